"""Beside the loop: the run is the same bit for bit, test cells stay unread, what is written can be resumed and read."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.train import TrainConfig
from smplora.data.pool import Sample
from smplora.data.split import CELLS, Split
from smplora.experiments.tasks import train
from smplora.runs.folder import MONITOR, RunFolder
from smplora.training import monitor
from smplora.training import setup as trainstate

WATCHED: dict[str, Any] = {
    "monitor_steps": 2,
    "monitor_images": 6,
    "validation_steps": 3,
    "validation_inference_steps": 2,
    "validation_guidance_scale": 2.0,
    "num_validation_images": 2,
    "validation_prompts": ["a handwritten six", "secret caption"],
    "run_page": True,
}


@pytest.fixture(scope="module")
def watched(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(short_config(image_folder, tmp_path_factory.mktemp("runs") / "watched", **WATCHED), progress=False)


def test_a_watched_run_is_the_same_bit_for_bit(watched: Path, trained_run: Path) -> None:
    for file in (
        ADAPTER_FILE,
        "checkpoints/checkpoint-3/proxy.safetensors",
        "checkpoints/checkpoint-6/optimizer.safetensors",
    ):
        assert (watched / file).read_bytes() == (trained_run / file).read_bytes()
    untimed = [
        [{k: v for k, v in row.items() if k != "elapsed_s"} for row in RunFolder(run).metrics()]
        for run in (watched, trained_run)
    ]
    assert untimed[0] == untimed[1]


def test_dropout_of_the_adapter_goes_on_undisturbed(image_folder: Path, tmp_path: Path) -> None:
    changes = {"lora_dropout": 0.3, "objective": "lora", "max_train_steps": 4}
    plain = train(short_config(image_folder, tmp_path / "plain", **changes), progress=False)
    seen = train(
        short_config(image_folder, tmp_path / "seen", **{**WATCHED, "run_page": False}, **changes), progress=False
    )
    assert (plain / ADAPTER_FILE).read_bytes() == (seen / ADAPTER_FILE).read_bytes()


def test_rows(watched: Path) -> None:
    rows = RunFolder(watched).metrics(MONITOR)
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    assert rows[0]["auc"] is None
    for row in rows[1:]:
        assert row["auc"]["low"] < row["auc"]["value"] < row["auc"]["high"]
        assert 0 <= row["proxy_auc"]["value"] <= 1
        assert row["gap"] == row["held_out_loss"] - row["member_loss"]


def test_pictures_are_private_plain_and_move_with_the_adapter(watched: Path) -> None:
    folder = watched / "validation"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = {f"step-{s}-{c}-{k}.png" for s in (3, 6) for c in (0, 1) for k in (0, 1)}
    assert {p.name for p in folder.iterdir()} == names | {"prompts.json"}
    for name in names:
        with Image.open(folder / name) as picture:
            assert picture.size == (32, 32)
            assert picture.info == {}
    contents = [(folder / name).read_bytes() for name in sorted(names)]
    assert len(set(contents)) == len(contents)
    assert all(b"secret" not in content for content in contents)


def test_a_resumed_run_forgets_and_repeats(image_folder: Path, tmp_path: Path, watched: Path) -> None:
    settings = {**WATCHED, "run_page": False}
    run = train(short_config(image_folder, tmp_path / "run", **settings), progress=False)
    (run / "validation" / "step-6-0-0.png").write_bytes(b"to be drawn again")
    train(short_config(image_folder, run, **settings, resume_from_checkpoint="checkpoint-3"), progress=False)
    assert (run / MONITOR).read_text() == (watched / MONITOR).read_text()
    for picture in (watched / "validation").glob("*.png"):
        assert (run / "validation" / picture.name).read_bytes() == picture.read_bytes()


def test_test_cells_are_not_looked_at(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monitor gets a split whose test cells cannot be read, and batches that hold aux and reference images only."""
    looked: list[str] = []
    real, make = monitor.Monitor.__init__, monitor.make_running_attack

    class Locked(dict[str, tuple[Sample, ...]]):
        def __getitem__(self, cell: str) -> tuple[Sample, ...]:
            assert not cell.startswith("test"), "the test cells are for the audit"
            return super().__getitem__(cell)

    def locked(self: monitor.Monitor, config: Any, setup: Any, split: Split, *others: Any) -> None:
        real(self, config, setup, Split(split.protocol, split.seed, Locked(split.cells)), *others)

    def watched_attack(config: TrainConfig, setup: trainstate.Setup, split: Split) -> Any:
        made = make(config, setup, split)
        looked.extend(d for cell in made.cells.values() for batch in cell.split(100) for d in batch.digests)
        allowed = {s.digest for cell in CELLS if not cell.startswith("test") for s in split.cells[cell]}
        assert set(looked) <= allowed
        return made

    monkeypatch.setattr(monitor.Monitor, "__init__", locked)
    monkeypatch.setattr(monitor, "make_running_attack", watched_attack)
    train(
        short_config(image_folder, tmp_path / "run", **{**WATCHED, "run_page": False}, max_train_steps=2),
        progress=False,
    )
    assert len(looked) == 18


def test_captions_of_held_out_images_by_default(image_folder: Path, tmp_path: Path) -> None:
    settings = {**WATCHED, "validation_prompts": [], "monitor_steps": 0, "max_train_steps": 1, "run_page": False}
    run = train(short_config(image_folder, tmp_path / "run", **settings), progress=False)
    captions = json.loads((run / "validation" / "prompts.json").read_text())["captions"]
    assert 1 <= len(captions) <= 4
    assert len(set(captions)) == len(captions)
    assert not (run / MONITOR).exists()
    assert not (run / "index.html").exists()


@pytest.mark.parametrize(
    ("steps", "affordable", "most", "expected"),
    [
        (1000, 10, 50, 100),
        (1000, 100, 50, 20),
        (1000, 3, 50, 500),
        (1000, 1, 50, 1000),
        (1000, 0, 50, 0),
        (7, 7, 50, 1),
    ],
)
def test_intervals_are_round_and_affordable(steps: int, affordable: int, most: int, expected: int) -> None:
    assert monitor.interval(steps, affordable, most) == expected


def test_defaults_cost_a_twentieth(image_folder: Path) -> None:
    """In forward passes of one image; a step's backward pass counts two."""
    split = Split("fixed", 0, {c: tuple(Sample(f"{c}{i}", "x", f"{c}{i}") for i in range(60)) for c in CELLS})
    for objective, passes in (("lora", 3), ("smp_lora", 5)):
        for steps in (100, 2000, 40_000):
            config = monitor.with_intervals(
                TrainConfig(train_data_dir="x", objective=objective, max_train_steps=steps, train_batch_size=4), split
            )
            assert config.monitor_steps is not None
            assert config.validation_steps is not None
            measurements = steps // config.monitor_steps if config.monitor_steps else 0
            rounds = steps // config.validation_steps if config.validation_steps else 0
            cost = measurements * 3 * 32 * 4 + rounds * 4 * 25
            assert cost <= 0.05 * steps * 4 * passes
            assert (steps < 1000) == (measurements == 0)


def test_bad_values_are_said_at_once(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "no"), "--monitor_steps", "-1"]
    assert main(["train", *flags, "--monitor_images", "1", "--log_images", "true"]) == 2
    said = capsys.readouterr().err
    assert "--monitor_steps got -1; allowed: 0 or more" in said
    assert "--monitor_images got 1; allowed: 2 or more" in said
    assert "--log_images got true without --report_to" in said
    assert not (tmp_path / "no").exists()
