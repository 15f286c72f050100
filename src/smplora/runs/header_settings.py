"""How an adapter was trained, as far as its file's header says: kohya's keys and smplora's own, as options of training.

They come from outside and pass the checks of the options; options that are given overrule them unread.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from smplora.adapters.files.write import OURS
from smplora.config.subject import FileOptions, SubjectOptions, as_training, told_problems
from smplora.core.console import say
from smplora.core.errors import CheckpointError
from smplora.core.reading import parse_json

HEADER = {  # what kohya's scripts and smplora write into a file's header -> the option that it sets
    "ss_clip_skip": "clip_skip",
    "ss_max_token_length": "max_token_length",
    "ss_resolution": "resolution",
    "ss_enable_bucket": "enable_bucket",
    "ss_bucket_no_upscale": "bucket_no_upscale",
    "ss_min_bucket_reso": "min_bucket_reso",
    "ss_max_bucket_reso": "max_bucket_reso",
    f"{OURS}resolution": "resolution",
}
DATASETS = "ss_datasets"  # kohya's, where the data came from a configuration file: JSON, one object each
IN_DATASETS = ("resolution", "enable_bucket", "bucket_no_upscale", "min_bucket_reso", "max_bucket_reso")
SWITCHES = ("enable_bucket", "bucket_no_upscale")
OF_BUCKETS = ("bucket_no_upscale", "min_bucket_reso", "max_bucket_reso")
NOTHING = ("", "None", "null")
LARGEST = 10**18
_SIZES = re.compile(r"[\[(]?\s*(-?[0-9]+)\s*(?:[,x*]?\s*(-?[0-9]+))?\s*,?\s*[\])]?")


@dataclass(frozen=True)
class Told:
    """What the header says."""

    options: dict[str, Any]
    sources: dict[str, str]  # option -> "ss_clip_skip = '2'"

    def complaint(self, path: Path, problem: str) -> CheckpointError | None:
        """The error for an option that has a ``problem``, "--clip_skip got 0; ...", if the header set it."""
        option = problem.partition(" ")[0].removeprefix("--")
        if option not in self.sources:
            return None
        return CheckpointError(
            f"--adapter: the header of {path} says {self.sources[option]}: {problem}; --{option} overrules it"
        )


def told_training(config: SubjectOptions, path: Path, metadata: Mapping[str, str], *, skips_layers: bool) -> Told:
    """Options that the file's header states and that were not given; what is not understood is said.

    Args:
        path: what messages call the file.
        skips_layers: whether the model's text encoder can; SDXL always reads the same layers, whatever kohya's header
            says.

    Raises:
        CheckpointError: values that the options would refuse; a training resolution that is not square.
    """
    given = [name for name in get_type_hints(FileOptions) if getattr(config, name) is not None]
    given += [] if skips_layers else ["clip_skip"]
    told = Told({}, {})
    for key, option, text in _stated(path, metadata):
        if option in given or text.strip() in NOTHING:
            continue
        source = f"{key} = '{text:.100}'"
        value = _value(option, text.strip())
        if value is None:
            say(f"the header of {path} says {source}, which is not understood; if it matters, give --{option}")
            continue
        if isinstance(value, tuple):
            raise CheckpointError(
                f"--adapter: the header of {path} says {source}, which is not square; give the --{option} that it was "
                "trained at, and --enable_bucket true if its images kept their shapes"
            )
        if told.options.get(option, value) != value:
            raise CheckpointError(
                f"--adapter: the header of {path} says {told.sources[option]} and {source}; give --{option}"
            )
        told.options[option], told.sources[option] = value, source
    buckets = config.enable_bucket if config.enable_bucket is not None else told.options.get("enable_bucket")
    for option in () if buckets else OF_BUCKETS:  # kohya writes their defaults too
        told.options.pop(option, None)
    _check(config, path, told)
    return told


def _stated(path: Path, metadata: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(key, option, text) of everything that the header says."""
    if DATASETS in metadata:
        try:
            datasets = parse_json(metadata[DATASETS])
            sets = [{name: one.get(name) for name in IN_DATASETS} for one in datasets]
        except (ValueError, TypeError, AttributeError):
            say(f"the header of {path} has {DATASETS} that are not understood; options say how it was trained")
            sets = []
        for name in IN_DATASETS:
            texts = {str(one[name]) for one in sets}
            if len(texts) == 1:
                yield DATASETS, name, texts.pop()
            elif texts:
                say(f"the header of {path} has {DATASETS} of several values of {name}; if it matters, give --{name}")
    for key, option in HEADER.items():
        if key in metadata:
            yield key, option, metadata[key]


def _value(option: str, text: str) -> int | bool | tuple[int, int] | None:
    """The option's value; two sizes that differ; None: the text is not understood."""
    if option in SWITCHES:
        return {"true": True, "false": False}.get(text.lower())
    match = _SIZES.fullmatch(text)
    if not match or (match[2] and option != "resolution"):
        return None
    first, second = (_whole(digits) for digits in (match[1], match[2] or match[1]))
    return first if first == second else (first, second)


def _whole(digits: str) -> int:
    return int(digits) if len(digits) <= len(str(LARGEST)) else LARGEST


def _check(config: SubjectOptions, path: Path, told: Told) -> None:
    """Let the header's values pass the checks of the options.

    Raises:
        CheckpointError: one does not.
    """
    lengths: Collection[int] = get_args(get_args(get_type_hints(FileOptions)["max_token_length"])[0])
    length = told.options.get("max_token_length")
    known = ", ".join(str(n) for n in lengths)
    problems = [] if length in (None, *lengths) else [f"--max_token_length got {length}; allowed: {known}"]
    for problem in [*problems, *told_problems(as_training(config, told.options))]:
        complaint = told.complaint(path, problem)
        if complaint:
            raise complaint
