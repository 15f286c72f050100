"""The scripts of benchmarks/ that measure time, at their smallest size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_scripts import few_images, lacking, load, start, written
from smplora.models.load import load_model

__all__ = ["few_images"]  # a fixture of the whole file


def test_step_time(tmp_path: Path) -> None:
    found = start("step_time", tmp_path, "--steps", 1, "--rounds", 1, "--batches", 1)
    before = written("step_time")
    assert not lacking(found, {name: value for name, value in before.items() if name != "batch_4"})
    assert found["batch_1"]["smp_lora_ratio"][0] > 0
    assert found["batch_1"]["smp_lora_peak_ratio"] > 1, "the proxy takes memory"


def test_precision(tmp_path: Path) -> None:
    few = ["--steps", 1, "--rounds", 1, "--batch", 1]
    found = start("precision", tmp_path, "--models", "tiny", "--device", "cpu", *few, wrote="precision_cpu")
    before = written("precision_cpu")
    assert found["faster_than_fp32"]["tiny"].keys() == before["faster_than_fp32"]["tiny"].keys()


def test_scale(tmp_path: Path) -> None:
    parts = ["feed", "near_duplicates"]
    found = start("scale", tmp_path, "--parts", *parts, "--rounds", 1, "--largest", 2, "--pictures", tmp_path)
    assert found["parts"].keys() == set(parts) < written("scale")["parts"].keys()
    assert (tmp_path / "scale.svg").read_text().startswith('<svg xmlns="http')


def test_a_step_of_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("scale")
    monkeypatch.setattr(script, "base_model", lambda _, device: load_model("tiny", device))
    monkeypatch.setattr(script, "STEPS", 1)
    assert script.step(tmp_path, resolution=32, rank=1) > 0


def test_complete_run(tmp_path: Path) -> None:
    assert not lacking(start("complete_run", tmp_path, "--rounds", 1), written("complete_run"))
