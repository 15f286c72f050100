"""The main job in small: real processes, everything written, resumable, on a user's own folder."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

import smplora.experiments.quickstart
from small_networks import draw_little, learn_little
from smplora.cli.main import main
from smplora.config.quickstart import QuickstartConfig
from smplora.experiments.quickstart import quickstart


def arguments(images: Path, output: Path, *more: str) -> list[str]:
    small = ("--aux_size", "8", "--train_batch_size", "2", "--rank", "2", "--max_train_steps", "11")
    stop = ("--early_stops", "[10]", "--distill_steps", "4", "--teacher_steps", "2")
    return [
        "quickstart",
        "--train_data_dir",
        str(images),
        "--output_dir",
        str(output),
        *small,
        *stop,
        "--num_images",
        "20",
        "--json",
        "true",
        *more,
    ]


def test_quickstart_on_a_folder_then_resumed(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_little(monkeypatch)  # nobody looks at what attacks find, or at when checkpoints are written
    draw_little(monkeypatch)
    for place in ("config", "experiments"):
        monkeypatch.setattr(f"smplora.{place}.quickstart.CHECKPOINT_EVERY", 10)
    few = {"AuditConfig": {"num_timesteps": 2, "error_map_draws": 1}, "EvaluateConfig": {"num_inference_steps": 2}}
    for name, options in few.items():
        whole = getattr(smplora.experiments.quickstart, name)
        monkeypatch.setattr(smplora.experiments.quickstart, name, partial(whole, **options))
    root = tmp_path / "q"
    assert main(arguments(image_folder, root)) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    labels = ["LoRA, stopped at step 10", "LoRA", "MP-LoRA", "SMP-LoRA", "Distill-LoRA"]
    assert [s["label"] for s in summary["subjects"]] == labels
    assert [s["step"] for s in summary["subjects"]] == [10, 11, 11, 11, 4]
    page = (root / "report.html").read_text()
    assert all(s["label"] in page for s in summary["subjects"])
    assert "60 private images: 16 to train on" in err
    assert err.rstrip().endswith("report.html")
    assert (
        len(
            {json.loads((root / run / "split.json").read_text())["seal"] for run in ("lora", "mp_lora", "distill_lora")}
        )
        == 1
    )
    for subject in (root / "lora", root / "lora" / "checkpoints" / "checkpoint-10"):
        assert (subject / "audit" / "audit.json").exists()
        assert (subject / "quality" / "quality.json").exists()

    kept = {p: p.stat().st_mtime_ns for p in root.rglob("*.safetensors")} | {
        p: p.stat().st_mtime_ns for p in (root / "lora").rglob("audit.json")
    }
    shutil.rmtree(root / "mp_lora" / "audit")
    (root / "report.html").unlink()
    assert main(arguments(image_folder, root)) == 0
    assert json.loads(capsys.readouterr().out)["subjects"] == summary["subjects"]
    assert (root / "report.html").exists()
    assert (root / "mp_lora" / "audit" / "audit.json").exists()
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items()), "finished work was done again"

    assert main(arguments(image_folder, root, "--smp_lambda", "9")) == 2
    assert "smp_lambda was 1.0, now 9.0" in capsys.readouterr().err


def test_bad_options_come_before_any_work(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(image_folder, tmp_path / "q", "--early_stops", "[150]", "--rank", "0")) == 2
    err = capsys.readouterr().err
    assert "--early_stops got 150; allowed: multiples of 100 below --max_train_steps (11)" in err
    assert "--rank got 0" in err
    assert main(arguments(image_folder, tmp_path / "q", "--early_stops", "[]", "--aux_size", "30")) == 2
    assert "there are 60 images" in capsys.readouterr().err
    own = ["--base", "flow", "--pretrained_model_name_or_path", "somebody/model"]
    assert main(arguments(image_folder, tmp_path / "q", *own)) == 2
    assert (
        "--base is of the bundled models; leave it out with --pretrained_model_name_or_path" in capsys.readouterr().err
    )
    assert not (tmp_path / "q").exists()


def test_which_bundled_model(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the first task."""
    begun: list[QuickstartConfig] = []
    monkeypatch.setattr(
        smplora.experiments.quickstart, "run_all", lambda config, root, split: begun.append(config) or root
    )
    for base in ("unet", "flow"):
        where = {"train_data_dir": str(image_folder), "output_dir": str(tmp_path / base)}
        quickstart(QuickstartConfig(base=base, **where))  # type: ignore[arg-type]
    assert [c.pretrained_model_name_or_path for c in begun] == ["tiny", "tiny-flow"]
