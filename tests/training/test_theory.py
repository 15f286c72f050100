"""The paper's measurements in whole runs: they change nothing, agree with slow twins, and survive a resumption."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.core.reading import read_json
from smplora.experiments.tasks import train
from smplora.results.record import as_json
from smplora.runs.folder import GRADIENTS, HESSIAN, THEORY, RunFolder
from smplora.training.theory import record
from smplora.training.theory.record import singles, spread, summary
from smplora.training.theory.smoothness import correlation

MEASURED: dict[str, Any] = {"gradient_steps": 1, "hessian_steps": 6, "train_batch_size": 2}


@pytest.fixture
def few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at the value of the norm."""
    monkeypatch.setattr(record, "ESTIMATES", {n: partial(f, iterations=2) for n, f in record.ESTIMATES.items()})


@pytest.fixture(scope="module")
def measured(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(short_config(image_folder, tmp_path_factory.mktemp("runs") / "run", **MEASURED), progress=False)


def lines(run: Path, file: str) -> list[dict[str, Any]]:
    return RunFolder(run).metrics(file)


WAYS: dict[str, dict[str, Any]] = {
    "smp_lora": {},
    "dropout": {"objective": "lora", "lora_dropout": 0.3},
    "checkpointing, bf16": {"gradient_checkpointing": True, "mixed_precision": "bf16", "hessian_batch": "step"},
    "text encoder": {"train_text_encoder": True, "objective": "mp_lora"},
}


@pytest.mark.usefixtures("few_products")
@pytest.mark.parametrize("way", WAYS)
def test_a_measured_run_is_the_same_bit_for_bit(way: str, image_folder: Path, tmp_path: Path) -> None:
    changes = {"max_train_steps": 2, "train_batch_size": 2, **WAYS[way]}
    plain = train(short_config(image_folder, tmp_path / "plain", **changes), progress=False)
    quick = {"gradient_steps": 1, "hessian_steps": 1}
    seen = train(short_config(image_folder, tmp_path / "seen", **quick, **changes), progress=False)
    for file in (ADAPTER_FILE, "checkpoints/checkpoint-2/optimizer.safetensors"):
        assert (plain / file).read_bytes() == (seen / file).read_bytes()
    assert len(lines(seen, HESSIAN)) == 2
    assert all(row["hessian_norm"] > 0 for row in lines(seen, HESSIAN))


def test_every_step_has_a_line(measured: Path) -> None:
    rows = lines(measured, GRADIENTS)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    logged = lines(measured, "metrics.jsonl")
    for before, line in zip([0, *(line["step"] for line in logged)], logged, strict=False):
        norms = [row["gradient_norm"] for row in rows[before : line["step"]]]
        assert sum(norms) / len(norms) == pytest.approx(line["grad_norm"], rel=1e-5)
    for row in rows:
        assert row["gradient_norm"] < row["gradient_scale"]
        assert row["gradient_scale"] <= row["adaptation_scale"] + row["gain_scale"]
        assert 0 < row["adaptation_factor_min"] < row["adaptation_factor"] < row["adaptation_factor_max"] < 1


def test_hessian_lines(measured: Path) -> None:
    rows = lines(measured, HESSIAN)
    assert [row["step"] for row in rows] == [6]
    for row in rows:
        power, krylov = row["estimates"]["power"], row["estimates"]["lanczos"]
        assert krylov["converged"]
        assert krylov["products"] < power["products"]
        assert power["norm"] <= krylov["norm"] * (1 + 1e-3)
        assert power["norm"] == pytest.approx(krylov["norm"], rel=0.2)
        assert row["hessian_norm"] == power["norm"]
        assert row["holds"]
        assert row["bound"] > row["l0"] > 0
        assert row["l1"] > 0


@pytest.mark.usefixtures("few_products")
def test_a_resumed_run_forgets_and_repeats(image_folder: Path, tmp_path: Path) -> None:
    settings = {"gradient_steps": 1, "hessian_steps": 2, "hessian_method": "lanczos", "train_batch_size": 2}
    run = train(short_config(image_folder, tmp_path / "run", **settings), progress=False)
    before = {file: (run / file).read_text() for file in (GRADIENTS, HESSIAN, THEORY)}
    assert [row["step"] for row in lines(run, HESSIAN)] == [2, 4, 6]
    train(short_config(image_folder, run, **settings, resume_from_checkpoint="checkpoint-3"), progress=False)
    assert before == {file: (run / file).read_text() for file in (GRADIENTS, HESSIAN, THEORY)}


def test_terms_of_the_gradient_add_up(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against separate backward passes, in two accumulated batches, of the ratio written out by hand."""
    slow: list[list[float]] = []
    parts: list[tuple[torch.Tensor, ...]] = []
    see_loss, see_gradients = record.Theory.see_loss, record.Theory.see_gradients

    def twin_loss(self: record.Theory, step: int, losses: torch.Tensor, gains: torch.Tensor) -> None:
        d = 1 - 0.3 * gains.detach() + 1e-5
        for term in (losses / d, 0.3 * losses.detach() / d**2 * gains):
            parts.append(torch.autograd.grad(term.mean() / 2, self.setup.parameters, retain_graph=True))
        see_loss(self, step, losses, gains)

    def twin_gradients(self: record.Theory, step: int) -> None:
        adaptation, gain = ([sum(x) for x in zip(*parts[k::2], strict=True)] for k in (0, 1))
        whole = [a + g for a, g in zip(adaptation, gain, strict=True)]
        slow.append([sum(float(x.norm()) for x in part) for part in (whole, adaptation, gain)])
        parts.clear()
        see_gradients(self, step)

    monkeypatch.setattr(record.Theory, "see_loss", twin_loss)
    monkeypatch.setattr(record.Theory, "see_gradients", twin_gradients)
    changes = {"mi_lambda": 0.3, "gradient_accumulation_steps": 2, "train_batch_size": 2, "max_train_steps": 2}
    run = train(short_config(image_folder, tmp_path / "run", gradient_steps=1, **changes), progress=False)
    for row, expected in zip(lines(run, GRADIENTS), slow, strict=True):
        found = [row[name] for name in ("gradient_scale", "adaptation_scale", "gain_scale")]
        assert as_json(found) == pytest.approx(expected, rel=1e-4)


def test_summary(measured: Path) -> None:
    told = read_json(measured / THEORY)
    rows, points = lines(measured, GRADIENTS), lines(measured, HESSIAN)
    factors = [row["gain_factor"] for row in rows]
    assert told["table_3"]["lambda*L_ada/D^2"]["max"] == max(factors)
    assert told["table_3"]["L_ada/D^2"]["mean"] == pytest.approx(sum(factors) / 6 / 0.05)
    assert told["table_3_single_images"]["1/D"]["max"] == max(row["adaptation_factor_max"] for row in rows)
    assert told["figure_2"]["gain_scale"] == as_json(spread([row["gain_scale"] for row in rows]))
    assert told["propositions"]["holds"] == told["propositions"]["points"] == len(points)
    assert told["figure_1b"]["pearson"] is None  # of two points
    many = [{**points[0], "gradient_norm": float(k), "hessian_norm": float(k % 3)} for k in range(9)]
    config = short_config(measured, measured)
    expected = correlation(range(9), [k % 3 for k in range(9)])
    assert summary(config, rows, many).figure_1b.pearson == expected
    assert spread([]) is None


def test_nothing_is_measured_unasked(trained_run: Path) -> None:
    assert not [file for file in (GRADIENTS, HESSIAN, THEORY) if (trained_run / file).exists()]


def test_bad_values_are_said_at_once(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "no"), "--gradient_steps", "-1"]
    flags += ["--max_grad_norm", "-1", "--shard_base_model", "true"]
    assert main(["train", *flags, "--hessian_steps", "5", "--mixed_precision", "fp16", "--hessian_method", "x"]) == 2
    said = capsys.readouterr().err
    assert "hessian_method" in said
    assert main(["train", *flags, "--hessian_steps", "5", "--mixed_precision", "fp16"]) == 2
    said = capsys.readouterr().err
    for part in ("--gradient_steps got -1", "--max_grad_norm got -1", "--mixed_precision fp16", "--shard_base_model"):
        assert part in said


def test_normalised_gradients(image_folder: Path, tmp_path: Path) -> None:
    """Every step's gradient has norm 1; Adam's first moment after one step is a tenth of it."""
    from safetensors.torch import load_file

    changes = {"max_train_steps": 1, "objective": "mp_lora"}
    norms = {}
    for name, option in {
        "normalised": {"gradient_normalisation": True},
        "clipped": {"max_grad_norm": 1e-3},
        "as it is": {"max_grad_norm": 0.0},
    }.items():
        run = train(short_config(image_folder, tmp_path / name, **changes, **option), progress=False)
        state = load_file(run / "checkpoints" / "checkpoint-1" / "optimizer.safetensors")
        moments = torch.cat([x.flatten() for key, x in state.items() if key.endswith("exp_avg")])
        norms[name] = float(moments.norm()) * 10
        logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["grad_norm"]
    assert norms["normalised"] == pytest.approx(1, rel=1e-4)
    assert norms["clipped"] == pytest.approx(1e-3, rel=1e-2)
    assert norms["as it is"] == pytest.approx(logged, rel=1e-4)
    assert logged != pytest.approx(1, rel=1e-2)


def test_single_images_of_batches_of_any_number() -> None:
    """Against numpy, for factors that were seen in three batches of four."""
    factors = np.random.default_rng(0).uniform(0.1, 2, (3, 4))
    lines = [
        {"gain_factor": x.mean(), "gain_factor_min": x.min(), "gain_factor_max": x.max(),
         "gain_factor_square": (x**2).mean()}
        for x in factors
    ]  # fmt: skip
    found = singles(lines, "gain_factor", 2.0)
    assert as_json(found) == pytest.approx(
        {
            "n": 3,
            "mean": 2 * factors.mean(),
            "std": 2 * factors.std(),
            "min": 2 * factors.min(),
            "max": 2 * factors.max(),
        }
    )
    assert singles([{"gain_factor": 1.0}], "gain_factor") is None
