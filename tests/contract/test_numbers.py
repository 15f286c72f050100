"""Every number that can be given: no infinite, absurd or wrong one passes, and none ends in a traceback."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from smplora.cli.commands import VERBS
from smplora.cli.main import main
from smplora.cli.parse import checked, parse
from smplora.config.checks import MOST_OF
from smplora.core.errors import ConfigError

NESTED = ("grid", "points", "audit", "evaluate")  # of a sweep: checked as options of its runs
NEVER = (float("nan"), math.inf, -math.inf, 1e30, 10**50)


def numbers(kind: Any) -> set[type]:
    """The kinds of number that an option takes."""
    inner = {number for one in get_args(kind) for number in numbers(one)} if get_origin(kind) is not None else set()
    return inner | ({kind} if kind in (int, float) else set())


def holds_list(kind: Any) -> bool:
    """Whether an option is a list, or may be one."""
    return get_origin(kind) is list or any(map(holds_list, get_args(kind)))


def options_of(verb: str) -> list[str]:
    """Names of the options that are numbers or lists of such."""
    kinds = get_type_hints(VERBS[verb].options)
    return [f.name for f in fields(VERBS[verb].options) if numbers(kinds[f.name]) and f.name not in NESTED]


OPTIONS = [(verb, name) for verb in VERBS for name in options_of(verb)]


def test_there_are_many() -> None:
    assert len(OPTIONS) > 150


@pytest.mark.parametrize(("verb", "name"), OPTIONS)
def test_a_number(verb: str, name: str) -> None:
    is_list = holds_list(get_type_hints(VERBS[verb].options)[name])
    for value in (*NEVER, -1, 0):
        given = {name: [value] if is_list else value}
        problem = "\n".join(VERBS[verb].options(**given).problems())
        if value != 0:
            assert f"--{name}" in problem, (value, problem)
        assert len(problem) < 3000


@pytest.mark.parametrize("verb", sorted({verb for verb, _ in OPTIONS}))
def test_a_word_is_no_number(verb: str) -> None:
    """Said of all of them at once."""
    kinds = get_type_hints(VERBS[verb].options)
    names = options_of(verb)
    with pytest.raises(ConfigError) as error:
        checked(verb, {name: ["much"] if holds_list(kinds[name]) else "much" for name in names})
    assert not [name for name in names if f"--{name} got" not in str(error.value)]


COUNTS = {  # options of which a thousand million can be stored, but not done or kept
    "quickstart": ("num_images", "max_train_steps", "train_batch_size", "rank", "resolution", "teacher_steps"),
    "train": (
        *("max_train_steps", "num_train_epochs", "train_batch_size", "gradient_accumulation_steps", "proxy_steps"),
        *("num_class_images", "monitor_images", "num_validation_images", "validation_inference_steps", "num_crops"),
        *("noise_multiplicity", "num_caption_shuffles", "num_augmentations", "max_bucket_reso", "noise_multiplier"),
    ),
    "audit": (
        *("noise_pairs", "error_map_draws", "num_timesteps", "pfami_crops", "variations", "batch_size"),
        *("memorisation_images", "memorisation_captions", "memorisation_steps", "positive_control_steps", "shadows"),
    ),
    "evaluate": ("num_images", "num_inference_steps", "batch_size"),
    "caption": ("batch_size", "num_beams", "max_new_tokens"),
    "sweep": ("rank", "num_train_epochs"),
}


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in COUNTS.items() for name in names])
def test_what_would_take_months_or_all_memory(verb: str, name: str) -> None:
    (problem,) = [p for p in VERBS[verb].options(**{name: 10**9}).problems() if f"--{name} got" in p]
    assert re.search(r"; allowed: \d+ at most", problem)


@pytest.mark.parametrize(
    "words",
    [("sweep", "--seeds", "[0]", "--rank"), ("quickstart", "--resolution"), ("sweep", "--seeds", "[0]", "--workers")],
)
def test_the_first_check_of_what_runs_others(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=f"{words[-1]} got -1; allowed: "):
        parse(words[0], [*words[1:], "-1"])


def test_no_more_steps_than_the_model_has(
    image_folder: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Before anything is trained or drawn."""
    monkeypatch.setattr("smplora.models.diffusion.LatentDiffusion.num_train_timesteps", 10)
    commands = {
        "validation_inference_steps": ["train", "--train_data_dir", str(image_folder), "--aux_size", "5"],
        "num_inference_steps": ["evaluate", str(trained_run)],
        "memorisation_steps": ["audit", str(trained_run), "--attacks", "[loss]", "--memorisation"],
    }
    for option, words in commands.items():
        assert main([*words, f"--{option}", "11", "--output_dir", str(tmp_path / option)]) == 2
        assert capsys.readouterr().err.endswith(
            f"--{option} got 11; allowed: 10 at most, the timesteps of the base model\n"
        )
        assert not (tmp_path / option).exists()


def test_epochs_that_are_too_many_steps(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST_OF, "max_train_steps", 1000)
    words = ["train", "--train_data_dir", str(image_folder), "--aux_size", "5", "--output_dir", str(tmp_path / "x")]
    assert main([*words, "--num_train_epochs", "9000"]) == 2
    assert re.search(r"--num_train_epochs got 9000, 90000 steps; allowed: ", capsys.readouterr().err)


def test_on_the_command_line() -> None:
    for text in ("inf", "nan", "1e30", "1" + "0" * 50, "-1", "much"):
        with pytest.raises(ConfigError, match="--rank got"):
            parse("train", ["--rank", text, "--train_data_dir", "."])
