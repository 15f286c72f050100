"""Options of sweeps: those of training, and what varies."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from itertools import product
from typing import Any, Literal, Optional, TypeAlias

from jsonargparse import ArgumentParser

from smplora.config.audit import AuditConfig
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.checks import at_least
from smplora.config.distill import DISTILLED, DistillOptions
from smplora.config.evaluate import EvaluateConfig
from smplora.config.parsing import parser_for, typed
from smplora.config.private import PrivateOptions
from smplora.config.train import TrainConfig
from smplora.core.errors import nearest

SEEDS = ("seed", "split_seed")  # runs that differ in these only are runs of one setting
KINDS = {"audit": AuditConfig, "evaluate": EvaluateConfig}  # whose options are written "audit.tier"
OURS = {"output_dir", "json", "device", "adapter", "signals", "coin_flip"}  # what the sweep itself decides
LONGEST = 100  # characters of the name of a folder
PLAIN_LORA = "lora"
OF_ONE = {DISTILLED: DistillOptions, "dp_lora": PrivateOptions}  # objective -> options that others refuse
USED_BY = {  # option of training -> the objectives that it is for; those that are not here are for all of them
    "mi_lambda": WITH_PROXY,
    **{f.name: WITH_PROXY for f in fields(TrainConfig) if f.name.startswith("proxy_")},
    **dict.fromkeys(("smp_delta", "smp_ratio"), ("smp_lora",)),
    **{f.name: (objective,) for objective, options in OF_ONE.items() for f in fields(options)},
}
Value: TypeAlias = str | bool | int | float | list[Any] | None  # text first: a caption with a colon is no mapping


@dataclass(frozen=True)
class Point:
    """One run with its audit and evaluation."""

    varied: Mapping[str, Any]  # what was given for this point, by option ("rank", "audit.noise_pairs")
    train: Mapping[str, Any]  # every option of the run
    audit: Mapping[str, Any]  # those that were given
    evaluate: Mapping[str, Any]
    unused: tuple[str, ...] = ()  # what varies, and its objective has no use for

    @property
    def same(self) -> str:
        """Equal where everything that decides the numbers is."""
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


@dataclass(frozen=True, kw_only=True)
class SweepConfig(TrainConfig):
    """Train, audit and evaluate many settings, and show which of them no other one beats in privacy and quality. All options of 'smplora train' are what the runs share. Run the same command again to resume, or with more values to go on."""

    output_dir: str = "sweeps/sweep"
    """Everything goes here: sweep.csv, sweep.json, index.html, and a folder for each run."""
    grid: Optional[dict[str, list[Value]]] = None
    """Options with the values to try, in all combinations, as in '{mi_lambda: [0.05, 1]}'. Those of audits and evaluations are written as 'audit.noise_pairs'."""
    points: Optional[list[dict[str, Value]]] = None
    """Further settings, as a list, as in '[{objective: lora}, {objective: mp_lora, mi_lambda: 0.1}]'."""
    seeds: Optional[list[int]] = None
    """Train every setting with each of these seeds (default: --seed alone). Two or more give intervals over seeds."""
    split_seeds: Optional[list[int]] = None
    """Train every setting on each of these splits. Default: --split_seed alone."""
    checkpoints: bool | list[int] = False
    """Also audit plain LoRA as if it had been stopped at these steps, as in '[200, 400]', or at every checkpoint ('true'): what a defence has to beat."""
    tier: Literal["quick", "standard", "strong"] = "quick"
    """How hard the audits try; see smplora audit --help."""
    audit: dict[str, Value] = field(default_factory=dict)
    """Further options of the audits, as in '{noise_pairs: 1}'."""
    evaluate: dict[str, Value] = field(default_factory=dict)
    """Options of the evaluations, as in '{num_images: 300}'."""
    quality: Literal["kid", "fid", "held_out_loss"] = "kid"
    """Quality of the front: KID or FID against held-out images, or the loss on them. The table has all three."""
    privacy: Literal["test", "aux_members"] = "test"
    """Privacy of the front: AUC of the strongest attack on test members (no proxy has seen them) or on aux members. The table has both."""
    workers: Optional[int] = None
    """Processes side by side. Default: one per processor core, at most 3; 1 on a GPU."""
    dry_run: bool = False
    """Say what would be trained and how long it would take, and stop."""

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        wrong = [
            *self._seed_problems(),
            *at_least(self, ("workers",), 1),
            *self._named_problems(),
        ]
        if wrong:
            return wrong + super().problems()
        found = [TrainConfig(**point.train).problems() for point in self.all_points]
        common = [p for p in found[0] if all(p in others for others in found)]
        return [
            *common,
            *(
                f"{point.label}: {p}"
                for point, own in zip(self.all_points, found, strict=True)
                for p in [*own, *_measuring_problems(point)]
                if p not in common
            ),
            *self._same_settings(),
            *self._useless(),
            *self._checkpoint_problems(),
        ]

    @cached_property
    def all_points(self) -> list[Point]:
        """Every run, those of a setting one after the other; once where what its objective has no use for made two."""
        kept: dict[str, Point] = {}
        points = []
        for point in self._every_point:
            before = kept.setdefault(point.same, point)
            if before is point or not (point.unused or before.unused):
                points.append(point)
        return points

    @property
    def unused(self) -> dict[str, list[str]]:
        """What varies, and an objective has no use for, by objective."""
        found: dict[str, dict[str, None]] = {}
        for point in self._every_point:
            found.setdefault(point.train["objective"], {}).update(dict.fromkeys(point.unused))
        return {objective: list(names) for objective, names in found.items() if names}

    @cached_property
    def _objectives(self) -> set[str]:
        return {str(setting.get("objective", self.objective)) for setting in self._settings()}

    @cached_property
    def _every_point(self) -> list[Point]:
        values, _ = self._values
        shared = {f.name: getattr(self, f.name) for f in fields(TrainConfig) if f.name not in ("output_dir", "json")}
        points = []
        for setting in self._settings():
            nobody: list[Optional[int]] = [None]
            for split_seed, seed in product(self.split_seeds or nobody, self.seeds or nobody):
                seeds = {"split_seed": split_seed, "seed": seed}
                varied = {name: values.get((name, repr(value)), value) for name, value in setting.items()}
                varied |= {name: value for name, value in seeds.items() if value is not None}
                objective = str(varied.get("objective", self.objective))
                unused = tuple(name for name in varied if not uses(objective, name))
                varied = {name: value for name, value in varied.items() if name not in unused}
                own: dict[str, dict[str, Any]] = {
                    "train": {**shared, **self._left_out(objective)},
                    "audit": {"tier": self.tier, **self.audit},
                    "evaluate": dict(self.evaluate),
                }
                for name, value in varied.items():
                    kind, _, option = name.rpartition(".")
                    own[kind or "train"][option] = value
                points.append(Point(varied, **own, unused=unused))
        return points

    def _left_out(self, objective: str) -> dict[str, Any]:
        """What all points share, and this one's objective refuses since it is another point's."""
        owners = [options for owner, options in OF_ONE.items() if owner in self._objectives - {objective}]
        return {f.name: f.default for options in owners for f in fields(options)}

    def stops(self, point: Point) -> list[int]:
        """Steps at which the run of ``point`` is audited before its end."""
        if point.train["objective"] != PLAIN_LORA or not self.checkpoints:
            return []
        every, end = point.train["checkpointing_steps"], point.train["max_train_steps"]
        return list(range(every, end, every)) if self.checkpoints is True else sorted(self.checkpoints)

    def _settings(self) -> list[dict[str, Any]]:
        grid = self.grid or {}
        crossed = [dict(zip(grid, chosen, strict=True)) for chosen in product(*grid.values())] if grid else []
        return [*crossed, *(self.points or [])] or [{}]

    def _given(self) -> list[tuple[str, Any, str]]:
        """(option, value, where) of everything that varies."""
        grid = [(name, value, "--grid") for name, values in (self.grid or {}).items() for value in values]
        points = [(name, value, "--points") for point in self.points or [] for name, value in point.items()]
        shared = [
            (f"{kind}.{name}", value, f"--{kind}") for kind in KINDS for name, value in getattr(self, kind).items()
        ]
        return [*grid, *points, *shared]

    @cached_property
    def _values(self) -> tuple[dict[tuple[str, str], Any], list[str]]:
        """Everything that varies by (option, its text), with the option's type; and what is wrong."""
        values: dict[tuple[str, str], Any] = {}
        problems: list[str] = []
        options = {"": TrainConfig, **KINDS}
        known = {kind: {f.name for f in fields(one)} - OURS for kind, one in options.items()}
        everything = [*sorted(known[""]), *(f"{kind}.{name}" for kind in KINDS for name in sorted(known[kind]))]
        for name, value, where in self._given():
            kind, _, option = name.rpartition(".")
            if (name, repr(value)) in values:
                continue
            if option not in known.get(kind, ()):
                taken = option in OURS and kind in known
                hint = " is decided by the sweep itself; leave it out" if taken else nearest(name, everything)
                problems.append(f"{where} {'option' if taken else 'has no option'} '{name}'{hint}")
                continue
            found, wrong = typed(_parser(options[kind]), options[kind], kind or "train", [(option, value, where)])
            problems += [f"{where}: {line.replace('--', f'--{kind}.' if kind else '--', 1)}" for line in wrong]
            values[name, repr(value)] = found.get(option, value)
        return values, list(dict.fromkeys(problems))

    def _named_problems(self) -> list[str]:
        empty = [f"--grid got no values for '{name}'; give a list" for name, v in (self.grid or {}).items() if not v]
        nothing = not any((self.grid, self.points, self.seeds, self.split_seeds, self.checkpoints))
        return [
            *(["nothing varies: give --grid, --points or --seeds, as in --seeds '[0, 1, 2]'"] if nothing else []),
            *empty,
            *self._values[1],
        ]

    def _seed_problems(self) -> list[str]:
        found = []
        named = {name for name, _, _ in self._given()}
        for option, name in (("seeds", "seed"), ("split_seeds", "split_seed")):
            given = getattr(self, option)
            if given is None:
                continue
            if not given or min(given) < 0 or len(set(given)) < len(given):
                found.append(f"--{option} got {given}; allowed: different whole numbers, 0 or more, as in '[0, 1, 2]'")
            if name in named:
                found.append(f"--{option} and '{name}' in --grid or --points: two ways to say it; give one of them")
        if self.split_seeds and self.split_manifest:
            found.append("--split_seeds and --split_manifest exclude each other; give one of them")
        return found

    def _same_settings(self) -> list[str]:
        seen: dict[str, Point] = {}
        twice = [(seen[p.same], p) for p in self.all_points if seen.setdefault(p.same, p) is not p]
        return [f"two points are the same settings: '{one.label}' and '{other.label}'" for one, other in twice]

    def _useless(self) -> list[str]:
        useless = {
            (where, name): USED_BY[name]
            for name, _, where in self._given()
            if not any(uses(objective, name) for objective in self._objectives)
        }
        return [
            f"{where} got '{name}', which is of --objective {' and '.join(owners)}, and no point has it; leave it out"
            for (where, name), owners in useless.items()
        ]

    def _checkpoint_problems(self) -> list[str]:
        if not self.checkpoints:
            return []
        plain = [point for point in self.all_points if point.train["objective"] == PLAIN_LORA]
        if not plain:
            return ["--checkpoints is for plain LoRA, and no point has objective lora; leave it out or add one"]
        problems = []
        for point in plain:
            every, end = point.train["checkpointing_steps"], point.train["max_train_steps"]
            if point.train["checkpoints_total_limit"]:
                problems.append("--checkpoints needs all of them; leave --checkpoints_total_limit out")
            if end is None:
                problems.append("--checkpoints needs --max_train_steps")
            else:
                problems += [
                    f"--checkpoints got {step}; allowed: multiples of --checkpointing_steps ({every}) below {end}"
                    for step in ([] if self.checkpoints is True else self.checkpoints)
                    if step % every or not 0 < step < end
                ]
        return list(dict.fromkeys(problems))


def uses(objective: str, option: str) -> bool:
    """Whether an option of training changes anything with this objective."""
    return objective in USED_BY.get(option, (objective,))


def _measuring_problems(point: Point) -> list[str]:
    audit = AuditConfig(adapter="run", **point.audit).problems()
    return [*audit, *EvaluateConfig(adapter="run", **point.evaluate).problems()]


@cache
def _parser(options: type) -> ArgumentParser:
    return parser_for(options)


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
