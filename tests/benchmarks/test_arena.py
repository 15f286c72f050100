"""The arena: splits of the same images, shadows that serve them all, and its goal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from benchmark_scripts import EVALUATE, TRAIN, few_images, lacking, load, start, written

__all__ = ["few_images"]  # a fixture of the whole file

from smplora.config.train import TrainConfig
from smplora.data.digits import write_private_digits
from smplora.data.pool import open_source, read_samples
from smplora.data.split import MANIFEST, chooses, read_split
from smplora.experiments.tasks import train
from smplora.results.manifest import CELLS


def test_arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smplora.data.split.chooses", lambda sample: sample.digest < "01")  # that FID has enough
    monkeypatch.setattr("alignment.IMAGES", 50)
    monkeypatch.setattr("alignment.STEPS", 1)
    changed = {name: value for name, value in TRAIN.items() if name not in ("aux_size", "test_size", "reference_size")}
    words = [
        *("--root", tmp_path, "--pictures", tmp_path, "--aux_size", 5, "--pairs", "0:10", "--stops", 2, "--steps", 2),
        *("--shadows", 4, "--settings", "lora,max_train_steps=2", "--train", {**changed, "logging_steps": 1}),
        *("--audit", {"num_timesteps": 1}, "--evaluate", {**EVALUATE, "num_images": 69}),
    ]
    load("arena").main([json.dumps(word) if isinstance(word, dict) else str(word) for word in (*words, "--only")])
    (shadows,) = (tmp_path / "shadows").iterdir()
    assert len(list(shadows.glob("shadow-*"))) == 4
    found = start("arena", tmp_path, *words, "--collect")
    open_ends: dict[str, Any] = {"goal": {}, "against_early_stopping": {}}
    assert not lacking({**found, **open_ends}, {**written("arena"), **open_ends})
    assert [row["setting"] for row in found["rows"]] == ["lora"]


def test_regime(tmp_path: Path) -> None:
    changed = {name: value for name, value in TRAIN.items() if name not in ("aux_size", "test_size", "reference_size")}
    words = [
        *("--root", tmp_path, "--aux_size", 5, "--pairs", "0:10", "--regimes", "recipe", "--train", changed),
        *("--audit", {"num_timesteps": 1, "attacks": ["loss", "calibrated_loss"]}),
        *("--evaluate", {**EVALUATE, "num_images": 69}),
    ]
    small = {"REGIMES": {"recipe": ({"max_train_steps": 2}, {"": {"mi_lambda": 1.0}})}, "PARTS": (1,)}
    found = start("regime", tmp_path, *words, **small)
    assert [row["objective"] for row in found["rows"]] == ["lora", "smp_lora"]
    (compared,) = found["at_equal_fid"]
    first, second = ({"auc": row["auc"]["loss"]["test"], "fid": row["fid"]} for row in found["rows"])
    assert compared["auc"]["loss"]["value"] == second["auc"] - first["auc"]
    assert compared["stopped"] == ["earlier" if first["fid"] <= second["fid"] else "never"]


def test_a_regime_is_compared_with_lora_where_it_is_first_as_good() -> None:
    """Between the second and the third stop of its own seed: 0.6 to 0.8, so 0.7."""

    def row(objective: str, seed: int, step: int, fid: float, auc: float) -> dict[str, Any]:
        about = {"regime": "a", "objective": objective, "seed": seed, "split": 0, "step": step}
        return {**about, "fid": fid, "auc": {"loss": {"test": auc}}}

    lora = [row("lora", 0, step, fid, auc) for step, fid, auc in ((1, 9, 0.5), (2, 7, 0.6), (4, 5, 0.8))]
    others = [row("lora", 1, 4, 6, 0.5), row("smp_lora", 0, 2, 5, 0.9), row("smp_lora", 0, 4, 6, 0.65)]
    (found,) = load("regime").at_equal_fid([*lora, *others])
    assert found["auc"]["loss"]["value"] == pytest.approx(-0.05)
    assert found["stopped"] == ["reached"]


def test_drawn(tmp_path: Path) -> None:
    """Three members and three held-out images were drawn: members go until what is left could be chance."""
    images, run = write_private_digits(tmp_path), tmp_path / "run"
    drawn: dict[str, Any] = {"objective": "synth_lora", "num_synthetic_images": 6, "synthetic_inference_steps": 1}
    config = TrainConfig(train_data_dir=str(images), output_dir=str(run), teacher_steps=1, **TRAIN, **drawn)
    train(replace(config, reference_size=58), progress=False)
    split = read_split(run / MANIFEST, read_samples(open_source(config)))
    known = [*split.train[:3], *[s for s in split.cells["reference"] if chooses(s)][:3]]
    for file, sample in zip(sorted((run / "synthetic_images").glob("*.png")), known, strict=True):
        copy(images / sample.file, file)
    found = start("drawn", tmp_path, "--runs", run)
    assert not lacking(found, written("drawn"))
    (row,) = found["rows"]
    assert row["balanced"]["nearer_to_a_member"] <= row["chance"] < row["0"]["nearer_to_a_member"]


def test_splits_of_the_arena_divide_the_same_images(tmp_path: Path) -> None:
    images = write_private_digits(tmp_path)
    one, other, again = (load("arena").same_candidates(images, 5, seed) for seed in (10, 11, 10))
    assert one.seal == again.seal != other.seal
    audited = [{s.digest for cell in CELLS[:4] for s in split.cells[cell]} for split in (one, other)]
    assert audited[0] == audited[1]
    assert len(audited[0]) == 20
    assert {s.digest for s in one.cells["aux_member"]} != {s.digest for s in other.cells["aux_member"]}


def test_the_goal_of_the_arena() -> None:
    """LoRA first reaches 0.75 between two stops; a setting must be as good as that, and its interval end at 0.60."""
    goal = load("arena").goal

    def row(setting: str, step: int, auc: float, end: float, fid: float) -> dict[str, Any]:
        return {
            "setting": setting,
            "step": step,
            "worse": {"value": auc},
            "worse_ends": {"value": end},
            "fid": {"value": fid},
        }

    lora = [row("lora", 100, 0.7, 0.78, 8), row("lora", 200, 0.8, 0.85, 4), row("lora", 400, 0.9, 0.95, 3)]
    others = [row("a", 9, 0.5, 0.59, 5.9), row("b", 9, 0.5, 0.59, 6.1), row("c", 9, 0.5, 0.61, 5)]
    found = goal([*others, *lora])
    assert found["lora_fid_at_0.75"] == pytest.approx(6)
    assert [found["met"][f"{name}, 9 steps"]["met"] for name in "abc"] == [True, False, False]
    assert goal(lora[:1])["lora_fid_at_0.75"] is None
