"""What goes to experiment trackers: all the numbers, and nothing about the images."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import LoggerType

from conftest import short_config
from smplora.cli.main import main
from smplora.core.errors import ConfigError
from smplora.experiments.tasks import train
from smplora.runs.folder import MONITOR, RunFolder
from smplora.training.trackers import chosen_trackers, init_options

WATCHED: dict[str, Any] = {
    "monitor_steps": 3,
    "monitor_images": 4,
    "validation_steps": 6,
    "validation_inference_steps": 1,
    "validation_prompts": ["unique-caption"],
}


class FakeRun:
    def __init__(self, **options: Any) -> None:
        self.options, self.rows, self.finished = options, [], False

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """A stand-in for the package, which accelerate and smplora import by its name."""
    runs: list[FakeRun] = []
    wandb = ModuleType("wandb")
    wandb.__spec__ = SimpleNamespace(name="wandb")  # type: ignore[assignment]
    wandb.Settings = lambda **settings: settings  # type: ignore[attr-defined]
    wandb.Image = lambda picture: ("image", picture.shape)  # type: ignore[attr-defined]

    def init(**options: Any) -> FakeRun:
        runs.append(FakeRun(**options))
        return runs[-1]

    wandb.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [LoggerType.WANDB])
    return runs


def test_wandb_gets_numbers_and_nothing_else(image_folder: Path, tmp_path: Path, fake_wandb: list[FakeRun]) -> None:
    run = train(short_config(image_folder, tmp_path / "run", report_to="wandb", **WATCHED), progress=False)
    (sent,) = fake_wandb
    assert sent.finished
    folder = RunFolder(run)
    steps = [step for step, values in sent.rows if "loss" in values]
    assert steps == [row["step"] for row in folder.metrics()]
    readings = [(step, values) for step, values in sent.rows if "held_out_loss" in values]
    assert [step for step, _ in readings] == [row["step"] for row in folder.metrics(MONITOR)]
    last = folder.metrics(MONITOR)[-1]
    assert readings[-1][1]["auc"] == last["auc"]["value"]
    assert readings[-1][1]["auc_low"] == last["auc"]["low"]
    assert all(isinstance(v, (int, float)) for _, values in sent.rows for v in values.values())
    settings = sent.options["settings"]
    for kept_back in ("disable_git", "disable_code", "x_disable_meta", "x_disable_machine_info"):
        assert settings[kept_back] is True
    assert settings["console"] == "off"
    assert sent.options.keys() == {"project", "dir", "settings"}
    assert "config" not in sent.options


def test_images_only_on_request(image_folder: Path, tmp_path: Path, fake_wandb: list[FakeRun]) -> None:
    train(short_config(image_folder, tmp_path / "run", report_to="wandb", log_images=True, **WATCHED), progress=False)
    pictures = [(step, values["validation"]) for step, values in fake_wandb[0].rows if "validation" in values]
    assert pictures == [(6, [("image", (32, 32, 3))])]


def test_tensorboard_gets_the_monitor(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("socket.gethostname", lambda: "anns-laptop")
    settings = {**WATCHED, "report_to": "tensorboard", "log_images": True}
    run = train(short_config(image_folder, tmp_path / "run", **settings), progress=False)
    events = EventAccumulator(str(run / "logs" / "smplora")).Reload()
    rows = RunFolder(run).metrics(MONITOR)
    assert [e.step for e in events.Scalars("held_out_loss")] == [0, 3, 6]
    assert [e.value for e in events.Scalars("auc_high")] == pytest.approx([row["auc"]["high"] for row in rows[1:]])
    (tag,) = events.Tags()["images"]
    assert [e.step for e in events.Images(tag)] == [6]
    written = b"".join(p.read_bytes() for p in (run / "logs").rglob("*") if p.is_file())
    for private in (b"unique-caption", str(image_folder).encode(), b"handwritten", b"anns-laptop"):
        assert private not in written
    assert not [p for p in run.rglob("*") if "anns-laptop" in p.name]
    assert socket.gethostname() == "anns-laptop"


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen_trackers(None) == chosen_trackers("none") == []
    monkeypatch.setattr("smplora.training.trackers.find_spec", lambda name: None if name == "trackio" else object())
    assert chosen_trackers("all") == ["tensorboard", "wandb"]
    with pytest.raises(ConfigError, match=r"pip install smplora\[trackio\]"):
        chosen_trackers("trackio")
    monkeypatch.setattr("smplora.training.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"none is installed: pip install smplora\[tensorboard\]"):
        chosen_trackers("all")


def test_offline_refuses_what_goes_out(
    monkeypatch: pytest.MonkeyPatch, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B and Trackio, unless W&B is told to stay here; before anything is written."""
    monkeypatch.setattr("smplora.training.trackers.find_spec", lambda name: object())
    monkeypatch.setenv("SMPLORA_OFFLINE", "1")
    monkeypatch.setattr("smplora.core.offline.block", lambda: None)  # it would hold for the rest of this process
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--offline"]
    for name, outside in (("wandb", "wandb"), ("trackio", "trackio"), ("all", "wandb and trackio")):
        assert main([*run, "--report_to", name]) == 2
        said = capsys.readouterr().err
        assert f"--offline: --report_to got '{name}', and {outside} may use the network; take tensorboard" in said
        assert ("WANDB_MODE=offline" in said) == (name != "trackio")
        assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert chosen_trackers("wandb") == ["wandb"]
    assert chosen_trackers("tensorboard") == ["tensorboard"]


def test_logs_are_private(tmp_path: Path) -> None:
    assert init_options(["tensorboard"], tmp_path) == {"tensorboard": {}}
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
