"""Options of sweeps: those of training, and what varies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from itertools import product
from typing import Any, Literal, Optional, TypeAlias

from jsonargparse import ArgumentParser

from smplora.config.audit import AuditConfig
from smplora.config.checks import at_least, with_sizes
from smplora.config.evaluate import EvaluateConfig
from smplora.config.parsing import parser_for, typed
from smplora.config.sweep_points import PLAIN_LORA, SEEDS, USED_BY, Point, defaults_of_others, uses
from smplora.config.train import TrainConfig
from smplora.core.errors import nearest
from smplora.core.reading import shortened

KINDS = {"audit": AuditConfig, "evaluate": EvaluateConfig}  # whose options are written "audit.tier"
OURS = {"output_dir", "json", "device", "adapter", "signals", "coin_flip"}  # what the sweep itself decides
Value: TypeAlias = str | bool | int | float | list[Any] | None  # text first: a caption with a colon is no mapping


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

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        wrong = [*self._seed_problems(), *at_least(self, ("workers",), 1), *self._named_problems()]
        wrong += ["--final is of 'smplora train', which trains one run"] if self.final else []
        if wrong:
            return wrong + super().problems()
        training = [TrainConfig(**point.train).problems() for point in self.all_points]
        common = [p for p in training[0] if all(p in others for others in training)]
        single = [
            f"{point.label}: {problem}"
            for point, own in zip(self.all_points, training, strict=True)
            for problem in [*own, *_measuring_problems(point)]
            if problem not in common
        ]
        return [*common, *single, *self._same_settings(), *self._useless(), *self._checkpoint_problems()]

    @cached_property
    def all_points(self) -> list[Point]:
        """Every run, those of a setting one after the other; once where what its objective has no use for made two."""
        first: dict[str, Point] = {}
        points = []
        for point in self._every_point:
            before = first.setdefault(point.decides, point)
            if before is point or not (point.unused or before.unused):
                points.append(point)
        return points

    @property
    def unused(self) -> dict[str, list[str]]:
        """What varies, and an objective has no use for, by objective."""
        names: dict[str, dict[str, None]] = {}
        for point in self._every_point:
            names.setdefault(point.objective, {}).update(dict.fromkeys(point.unused))
        return {objective: list(unused) for objective, unused in names.items() if unused}

    def stops(self, point: Point) -> list[int]:
        """Steps at which the run of ``point`` is audited before its end."""
        if point.objective != PLAIN_LORA or not self.checkpoints:
            return []
        every, end = point.train["checkpointing_steps"], point.train["max_train_steps"]
        return list(range(every, end, every)) if self.checkpoints is True else sorted(self.checkpoints)

    @cached_property
    def _settings(self) -> list[dict[str, Any]]:
        """What varies, without seeds, for each setting."""
        grid = self.grid or {}
        crossed = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())] if grid else []
        return [*crossed, *(self.points or [])] or [{}]

    @cached_property
    def _objectives(self) -> set[str]:
        return {str(setting.get("objective", self.objective)) for setting in self._settings}

    @cached_property
    def _every_point(self) -> list[Point]:
        typed_values, _ = self._typed
        shared = {f.name: getattr(self, f.name) for f in fields(TrainConfig) if f.name not in ("output_dir", "json")}
        nobody: list[Optional[int]] = [None]
        points = []
        for setting, split_seed, seed in product(self._settings, self.split_seeds or nobody, self.seeds or nobody):
            seeds = {"split_seed": split_seed, "seed": seed}
            varied = {name: typed_values.get((name, repr(value)), value) for name, value in setting.items()}
            varied |= {name: value for name, value in seeds.items() if value is not None}
            objective = str(varied.get("objective", self.objective))
            teacher = str(varied.get("teacher_objective", self.teacher_objective))
            unused = tuple(name for name in varied if not uses(objective, name, teacher))
            varied = {name: value for name, value in varied.items() if name not in unused}
            own: dict[str, dict[str, Any]] = {
                "train": {**shared, **defaults_of_others(objective, self._objectives, teacher)},
                "audit": {"tier": self.tier, **self.audit},
                "evaluate": dict(self.evaluate),
            }
            for name, value in varied.items():
                kind, _, option = name.rpartition(".")
                own[kind or "train"][option] = value
            points.append(Point(varied, **own, unused=unused))
        return points

    def _varying(self) -> Iterator[tuple[str, Any, str]]:
        """(option, value, where it stands) of everything that varies or is set for all audits and evaluations."""
        yield from ((name, value, "--grid") for name, values in (self.grid or {}).items() for value in values)
        yield from ((name, value, "--points") for point in self.points or [] for name, value in point.items())
        for kind in KINDS:
            yield from ((f"{kind}.{name}", value, f"--{kind}") for name, value in getattr(self, kind).items())

    @cached_property
    def _typed(self) -> tuple[dict[tuple[str, str], Any], list[str]]:
        """Everything that varies by (option, its text), with the option's type; and what is wrong."""
        values: dict[tuple[str, str], Any] = {}
        problems: list[str] = []
        options = {"": TrainConfig, **KINDS}
        known = {kind: {f.name for f in fields(one)} - OURS for kind, one in options.items()}
        everything = [*sorted(known[""]), *(f"{kind}.{name}" for kind in KINDS for name in sorted(known[kind]))]
        for name, value, where in self._varying():
            if not isinstance(name, str):  # YAML's null, 4 and yes are none
                problems.append(
                    f"{where} has {'null' if name is None else shortened(name)} where the name of an option belongs"
                )
                continue
            kind, _, option = name.rpartition(".")
            if (name, repr(value)) in values:
                continue
            if option in OURS and kind in known:
                problems.append(f"{where} option '{name}' is decided by the sweep itself; leave it out")
            elif option not in known.get(kind, ()):
                problems.append(f"{where} has no option '{name}'{nearest(name, everything)}")
            else:
                usable, wrong = typed(_parser(options[kind]), options[kind], kind or "train", [(option, value, where)])
                problems += [f"{where}: {line.replace('--', f'--{kind}.' if kind else '--', 1)}" for line in wrong]
                values[name, repr(value)] = usable.get(option, value)
        return values, list(dict.fromkeys(problems))

    def _named_problems(self) -> list[str]:
        nothing = not any((self.grid, self.points, self.seeds, self.split_seeds, self.checkpoints))
        empty = [name for name, values in (self.grid or {}).items() if not values]
        return [
            *(["nothing varies: give --grid, --points or --seeds, as in --seeds '[0, 1, 2]'"] if nothing else []),
            *(f"--grid got no values for '{name}'; give a list" for name in empty),
            *self._typed[1],
        ]

    def _seed_problems(self) -> list[str]:
        problems = []
        names = {name for name, _, _ in self._varying()}
        for name in SEEDS:
            option, seeds = f"{name}s", getattr(self, f"{name}s")
            if seeds is None:
                continue
            if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
                problems.append(
                    f"--{option} got {seeds}; allowed: different whole numbers, 0 or more, as in '[0, 1, 2]'"
                )
            if name in names:
                problems.append(f"--{option} and '{name}' in --grid or --points: two ways to say it; give one of them")
        if self.split_seeds and self.split_manifest:
            problems.append("--split_seeds and --split_manifest exclude each other; give one of them")
        return problems

    def _same_settings(self) -> list[str]:
        first: dict[str, Point] = {}
        pairs = [(first.setdefault(point.decides, point), point) for point in self.all_points]
        return [
            f"two points are the same settings: '{one.label}' and '{other.label}'"
            for one, other in pairs
            if one is not other
        ]

    def _useless(self) -> list[str]:
        useless = {
            (where, name): " and ".join(USED_BY[name])
            for name, _, where in self._varying()
            if not any(
                uses(str(p.train["objective"]), name, str(p.train["teacher_objective"])) for p in self._every_point
            )
        }
        return [
            f"{where} got '{name}', which is of --objective {owners}, and no point has it; leave it out"
            for (where, name), owners in useless.items()
        ]

    def _checkpoint_problems(self) -> list[str]:
        if not self.checkpoints:
            return []
        plain = [point.train for point in self.all_points if point.objective == PLAIN_LORA]
        if not plain:
            return ["--checkpoints is for plain LoRA, and no point has objective lora; leave it out or add one"]
        problems = []
        for train in plain:
            every, end = train["checkpointing_steps"], train["max_train_steps"]
            if train["checkpoints_total_limit"]:
                problems.append("--checkpoints needs all of them; leave --checkpoints_total_limit out")
            if end is None:
                problems.append("--checkpoints needs --max_train_steps")
                continue
            problems += [
                f"--checkpoints got {step}; allowed: multiples of --checkpointing_steps ({every}) below {end}"
                for step in ([] if self.checkpoints is True else self.checkpoints)
                if step % every or not 0 < step < end
            ]
        return list(dict.fromkeys(problems))


def _measuring_problems(point: Point) -> list[str]:
    audit = AuditConfig(adapter="run", **point.audit).problems()
    return [*audit, *EvaluateConfig(adapter="run", **point.evaluate).problems()]


@cache
def _parser(options: type) -> ArgumentParser:
    return parser_for(options)
