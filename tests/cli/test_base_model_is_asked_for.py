"""One's own images are not adapted to the bundled toy unmentioned: train and sweep ask for the model to adapt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ASKING
from smplora.cli.commands import VERBS
from smplora.cli.help import help_text
from smplora.cli.main import main
from smplora.cli.parse import checked, parse, parser_of
from smplora.core.errors import ConfigError


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As users have it."""
    for name, verb in ASKING.items():
        monkeypatch.setitem(VERBS, name, verb)
    parser_of.cache_clear()
    yield
    parser_of.cache_clear()


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_the_model_to_adapt_is_needed(verb: str, noise_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"train": [], "sweep": ["--seeds", "[0, 1]"]}
    assert main([verb, "--train_data_dir", str(noise_folder), "--rank", "4", *more[verb]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for said in ("--pretrained_model_name_or_path is needed", "in the local cache: ", "'tiny'", "digits"):
        assert said in line
    assert "--pretrained_model_name_or_path TEXT\n" in help_text(verb, everything=True), "it has no default"
    with pytest.raises(ConfigError, match="--pretrained_model_name_or_path is needed"):
        checked(verb, {"train_data_dir": str(noise_folder)})


def test_it_is_said_beside_what_else_is_wrong(noise_folder: Path) -> None:
    with pytest.raises(ConfigError, match="2 problems") as error:
        parse("train", ["--train_data_dir", str(noise_folder), "--rank", "x"])
    assert "is needed" in str(error.value)


@pytest.mark.parametrize("where", ["flag", "file", "call"])
def test_it_can_be_given_anywhere(where: str, noise_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("pretrained_model_name_or_path: tiny\n")
    images = ["--train_data_dir", str(noise_folder)]
    config = {
        "flag": lambda: parse("train", [*images, "--pretrained_model_name_or_path", "tiny"]),
        "file": lambda: parse("train", [*images, "--config", str(tmp_path / "c.yaml")]),
        "call": lambda: checked(
            "train", {"train_data_dir": str(noise_folder), "pretrained_model_name_or_path": "tiny"}
        ),
    }[where]()
    assert config.pretrained_model_name_or_path == "tiny"


def test_a_sweep_over_base_models_names_them(noise_folder: Path, tmp_path: Path) -> None:
    images = ["--train_data_dir", str(noise_folder)]
    parse("sweep", [*images, "--grid", "{pretrained_model_name_or_path: [tiny, tiny-flow]}"])
    parse(
        "sweep",
        [*images, "--points", "[{pretrained_model_name_or_path: tiny}, {pretrained_model_name_or_path: tiny-flow}]"],
    )
    with pytest.raises(ConfigError, match="is needed"):
        parse("sweep", [*images, "--points", "[{pretrained_model_name_or_path: tiny}, {rank: 8}]"])
    (tmp_path / "printed.yaml").write_text("pretrained_model_name_or_path: null\nrank: 8\n")  # by --print_config
    printed = ["--config", str(tmp_path / "printed.yaml")]
    assert parse("train", [*images, *printed, "--pretrained_model_name_or_path", "tiny"]).rank == 8


def test_models_in_the_hub_cache_are_named(
    noise_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in (("someone--a-base", "model_index.json"), ("someone--a-tokenizer", "tokenizer.json")):
        commit = tmp_path / f"models--{name}" / "snapshots" / ("0" * 40)
        commit.mkdir(parents=True)
        (commit / file).write_text("{}")
        (commit.parents[1] / "refs").mkdir()
        (commit.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path))
    assert main(["train", "--train_data_dir", str(noise_folder)]) == 2
    said = capsys.readouterr().err
    assert "in the local cache: 'someone/a-base')" in said


def test_the_toy_is_said_first_and_on_the_card(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--pretrained_model_name_or_path", "tiny", "--output_dir", str(tmp_path / "run"), "--aux_size", "5"]
    quick = ["--max_train_steps", "1", "--monitor_steps", "0", "--run_page", "false"]
    assert main(["train", "--train_data_dir", str(image_folder), *words, *quick]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("smplora train: loading")]
    assert "is a toy" in lines[0]
    (done,) = [line for line in lines if line.startswith("base model: ")]
    for said in ("the bundled model", "32 x 32 pixels", "up to 14 tokens", "lora: 1 steps, 1 images at a time"):
        assert said in done
    assert any(line.startswith("about ") for line in lines)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "a toy that draws digits" in card
    assert "ComfyUI" not in card
    assert "Stable Diffusion" not in card
