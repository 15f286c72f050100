"""The runs of a sweep: what varies, and the names that it gives to folders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.distill import DISTILLED, WITH_TEACHERS, DistillOptions
from smplora.config.private import PrivateOptions
from smplora.config.synthetic import SYNTHETIC, SyntheticOptions
from smplora.config.train import TrainConfig

SEEDS = ("seed", "split_seed")  # runs that differ in these only are runs of one setting
LONGEST = 100  # characters of the name of a folder
PLAIN_LORA = "lora"
OF_ONE = {DISTILLED: DistillOptions, "dp_lora": PrivateOptions, SYNTHETIC: SyntheticOptions}  # others refuse them
USED_BY = {  # option of training -> the objectives that it is for; those that are not here are for all of them
    "mi_lambda": WITH_PROXY,
    **{f.name: WITH_PROXY for f in fields(TrainConfig) if f.name.startswith("proxy_")},
    **dict.fromkeys(("smp_delta", "smp_ratio"), ("smp_lora",)),
    **{f.name: (objective,) for objective, options in OF_ONE.items() for f in fields(options)},
    "teacher_steps": WITH_TEACHERS,
}


@dataclass(frozen=True)
class Point:
    """One run with its audit and evaluation."""

    varied: Mapping[str, Any]  # what was given for this point, by option ("rank", "audit.noise_pairs")
    train: Mapping[str, Any]  # every option of the run
    audit: Mapping[str, Any]  # those that were given
    evaluate: Mapping[str, Any]
    unused: tuple[str, ...] = ()  # what varies, and its objective has no use for

    @property
    def objective(self) -> str:
        """Of its run."""
        return str(self.train["objective"])

    @property
    def decides(self) -> str:
        """Everything that decides its numbers: two points that agree in it are the same."""
        return json.dumps([dict(self.train), dict(self.audit), dict(self.evaluate)], sort_keys=True, default=str)

    @property
    def setting(self) -> dict[str, Any]:
        """What it has in common with the runs that differ in their seeds only."""
        return {name: value for name, value in self.varied.items() if name not in SEEDS}

    @property
    def label(self) -> str:
        """For people."""
        return ", ".join(f"{name} {shown(value)}" for name, value in self.varied.items()) or "as given"

    @property
    def run(self) -> str:
        """Name of its run's folder; points that differ in audit or evaluation only share it."""
        return named({name: value for name, value in self.varied.items() if "." not in name}) or "run"

    @property
    def variant(self) -> str:
        """What its audit and evaluation differ in from others of the same run; "" where nothing does."""
        return named({name: value for name, value in self.varied.items() if "." in name})


def uses(objective: str, option: str, teacher: str = PLAIN_LORA) -> bool:
    """Whether an option of training changes anything with this objective.

    Args:
        teacher: of Synth-LoRA, what its teachers minimise: their options are its own.
    """
    owners = USED_BY.get(option, (objective,))
    return objective in owners or (objective == SYNTHETIC and teacher in owners)


def defaults_of_others(objective: str, objectives: set[str], teacher: str) -> dict[str, Any]:
    """Options at their defaults that the other objectives of a sweep have, and this one refuses; ``teacher`` as of
    ``uses``."""
    owners = [options for owner, options in OF_ONE.items() if owner in objectives - {objective}]
    return {f.name: f.default for options in owners for f in fields(options) if not uses(objective, f.name, teacher)}


def shown(value: Any) -> str:
    """A value as people write it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def named(values: Mapping[str, Any]) -> str:
    """A name for folders, such as ``mi_lambda=0.3_seed=0``, whatever the order."""
    ordered = sorted(values, key=lambda name: (name in SEEDS, name))
    return _short("_".join(f"{name}={_short(shown(values[name]), 40)}" for name in ordered), LONGEST)


def _short(text: str, length: int) -> str:
    """``text`` as it may stand in the name of a folder; where that changes it, with a digest of the whole."""
    plain = re.sub(r"[^\w.=+-]+", "-", text)
    if plain == text and len(text) <= length:
        return text
    return f"{plain[:length]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
