"""Privacy against quality on the bundled model: settings of the game against LoRA stopped early, over seeds and splits.

    python benchmarks/front.py --root runs/front --settings smp_lora,mi_lambda=1 --pairs 0:10 0:11 1:10 2:11

A setting is an objective and options of ``smplora train``; all else is the quickstart's recipe. Plain LoRA is measured
at each of --stops and after all steps. The first stop is a run of its own, the others are checkpoints. Finished runs,
audits and evaluations in ``--root`` are taken as they are, so that settings and pairs of seed and split can be added.

Results: benchmarks/results/NAME.json, docs/images/NAME_fid.svg and NAME_held_out_loss.svg.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from string import ascii_uppercase
from typing import Any

import yaml

from common import by_attack, checked, command, parser, write_result
from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.quickstart import QuickstartConfig
from smplora.config.train import TrainConfig
from smplora.core.environment import environment
from smplora.core.files import write_atomically
from smplora.core.parallel import Task, run_tasks
from smplora.data.digits import write_private_digits
from smplora.data.split import MANIFEST, write_split
from smplora.experiments.quickstart import DIGITS_PER_CELL, private_split, training
from smplora.experiments.tasks import task
from smplora.report.figures.plane import Bar, Place, plane
from smplora.report.figures.svg import Style, style
from smplora.results.attack import GROUPS
from smplora.results.audit import Audit
from smplora.results.quality import Quality
from smplora.results.record import read
from smplora.runs.folder import RunFolder
from smplora.statistics.over_runs import mean_interval

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images"
ATTACKS = ["loss", "calibrated_loss", "sima", "pia"]
QUALITY = {"fid": "held-out FID", "held_out_loss": "held-out loss"}  # the lower, the better
Row = dict[str, Any]


def run_options(args: Namespace, setting: str, seed: int, split: int) -> TrainConfig:
    """The run of a setting, its images and its split, which are written where they are not yet."""
    root = args.root.resolve()
    objective, *options = setting.split(",")
    folder = root / f"split-{split}" / f"seed-{seed}"
    images: Row = {"train_data_dir": args.train.get("train_data_dir") or str(write_private_digits(root / "images"))}
    cells: Row = {"split_seed": split, "aux_size": args.aux_size or DIGITS_PER_CELL}
    quick = QuickstartConfig(seed=seed, output_dir=str(folder), **images, **cells)
    if not (folder / MANIFEST).exists():
        write_split(private_split(quick, folder), folder)
    changed = {name: yaml.safe_load(value) for name, value in (option.split("=", 1) for option in options)}
    recipe = training(quick, objective, images, folder)
    return checked(replace(recipe, output_dir=str(folder / setting), **{**args.train, **changed}))


def shortest(args: Namespace) -> str:
    """The setting of LoRA stopped first: checkpoints come every 100 steps only."""
    return f"lora,max_train_steps={args.stops[0]}"


def subjects(args: Namespace, config: TrainConfig) -> list[Path]:
    """What is measured of a run."""
    run = Path(config.output_dir)
    stops = args.stops[1:] if run.name == "lora" else []
    return [*(run / "checkpoints" / f"checkpoint-{stop}" for stop in stops), run]


def tasks_of(args: Namespace, config: TrainConfig) -> Iterator[Task]:
    """Train a run, audit and evaluate what is measured of it."""
    yield task(config.output_dir, config)
    for subject in subjects(args, config):
        common: Row = {"adapter": str(subject), "seed": config.seed}
        audit = AuditConfig(**{**common, "attacks": ATTACKS, "noise_pairs": 1, **args.audit})
        yield task(f"audit {subject}", audit, config.output_dir)
        quality = EvaluateConfig(**{**common, "num_images": 300, **args.evaluate})
        yield task(f"evaluate {subject}", quality, f"audit {subject}")


def numbers(subject: Path) -> Row:
    """Audit and evaluation of a run or checkpoint."""
    audit = read(subject / "audit" / "audit.json", Audit, "audit")
    quality = read(subject / "quality" / "quality.json", Quality, "evaluate")
    held_out, loss = quality.against.held_out, quality.held_out_loss
    return {
        "step": audit.subject.step,
        "strongest": {group: audit.strongest[group].auc.value for group in GROUPS},
        "auc": by_attack(audit, lambda n: n.auc.value),
        "fid": held_out.fid.value,
        "kid": held_out.kid.value,
        "held_out_loss": loss.value if loss else None,
        "grad_norm": stability(RunFolder(subject).metrics()),
    }


def stability(lines: Sequence[Row]) -> Row | None:
    """Gradient norms of a run, from the means of its log lines; None of a checkpoint."""
    norms = [line["grad_norm"] for line in lines]
    return {"mean": fmean(norms), "deviation": stdev(norms), "largest": max(norms)} if len(norms) > 1 else None


def reached(curve: Sequence[tuple[float, float]], quality: float) -> tuple[float, str]:
    """The AUC at which LoRA, trained step by step, first is as good as ``quality``, on straight lines between the
    stops; and "reached". Where ``quality`` is worse than the first stop's, that stop's AUC, which is too high, and
    "earlier"; where LoRA never is as good, the AUC where it is best, and "never".

    Args:
        curve: (quality, AUC) of the stops, the lower the better, in the order of steps.
    """
    if curve[0][0] <= quality:
        return curve[0][1], "earlier"
    for (before, low), (after, high) in pairwise(curve):
        if after <= quality:
            return low + (high - low) * (before - quality) / (before - after), "reached"
    return min(curve)[1], "never"


def estimate(values: Sequence[float]) -> Row:
    """Mean and 95 % interval over runs; none of a single one."""
    over = mean_interval(values) if len(values) > 1 else None
    return {
        "n": len(values),
        "value": fmean(values),
        "low": over.low if over else None,
        "high": over.high if over else None,
    }


def compare(rows: Sequence[Row], setting: str) -> Row:
    """How much more a setting leaks than LoRA of the same seed and split, stopped where it is first as good."""
    comparison: Row = {}
    curves: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in sorted((r for r in rows if r["setting"] == "lora"), key=lambda r: r["step"]):
        curves[row["seed"], row["split"]].append(row)
    of_pair = [(row, curves[row["seed"], row["split"]]) for row in rows if row["setting"] == setting]
    ours = [(row, curve) for row, curve in of_pair if curve]
    if not ours:
        return comparison
    for measure in QUALITY:
        for group in GROUPS:
            pairs = [
                (row["strongest"][group], *reached([(r[measure], r["strongest"][group]) for r in curve], row[measure]))
                for row, curve in ours
            ]
            differences = [auc - stopped for auc, stopped, _ in pairs]
            comparison[f"{group} at equal {measure}"] = {
                **estimate(differences),
                "differences": differences,
                "stopped": [where for _, _, where in pairs],
            }
    return comparison


def means(rows: Sequence[Row]) -> list[Row]:
    """Every setting and step over its seeds and splits."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["setting"], row["step"]].append(row)
    return [
        {
            "setting": setting,
            "step": step,
            **{f"strongest_{g}": estimate([r["strongest"][g] for r in group]) for g in GROUPS},
            **{name: estimate([r[name] for r in group]) for name in ("fid", "kid", "held_out_loss")},
            "grad_norm": {
                name: estimate([r["grad_norm"][name] for r in group]) for name in group[0]["grad_norm"] or ()
            },
        }
        for (setting, step), group in groups.items()
    ]


def place(row: Row, measure: str, look: Style, number: int) -> Place:
    """A line of ``means`` in the figure."""
    quality, privacy = (
        Bar(e["value"], *(e["value"] if e[end] is None else e[end] for end in ("low", "high")))
        for e in (row[measure], row["strongest_test"])
    )
    stopped = row["setting"] == "lora"
    mark = str(row["step"]) if stopped else ascii_uppercase[number - 1]
    return Place(f"{row['setting']}, {row['step']} steps", mark, quality, privacy, look, "lora" if stopped else None)


def write_figures(over: Sequence[Row], folder: Path, name: str) -> None:
    """AUC on test members against each measure of quality: LoRA's stops joined, by their steps; settings by letters."""
    settings = list(dict.fromkeys(row["setting"] for row in over))
    for measure, title in QUALITY.items():
        places = [
            place(row, measure, style(number), number)
            for number, setting in enumerate(settings)
            for row in sorted((r for r in over if r["setting"] == setting), key=lambda r: r["step"])
        ]
        axes_names = (title, "AUC of the strongest attack")
        drawn = plane(places, f"{name}-{measure}", axes_names, size=(560, 420), front=True)
        alone = str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        write_atomically(folder / f"{name}_{measure}.svg", alone.encode())


def run_all(
    args: Namespace,
    runs: Sequence[tuple[Row, TrainConfig]],
    tasks: Callable[[Namespace, TrainConfig], Iterator[Task]],
    read_numbers: Callable[[Path], Row],
) -> list[Row]:
    """Run what is missing, unless --collect; a row of numbers for each subject that was measured.

    Args:
        runs: what a row says of each, and its options.
        tasks: of one run.
        read_numbers: of one subject.
    """
    if not args.collect:
        everything = [task for _, config in runs for task in tasks(args, config)]
        run_tasks(everything, args.name, workers=args.workers, strict=True)
    return [
        {
            **about,
            "setting": "lora" if about["setting"] == shortest(args) else about["setting"],
            **read_numbers(subject),
        }
        for about, config in runs
        for subject in subjects(args, config)
        if (subject / "quality" / "quality.json").exists()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, compare and write."""
    options = parser(__file__, __doc__, "train", "audit", "evaluate")
    options.add_argument("--root", type=Path, required=True)
    options.add_argument("--settings", nargs="+", default=[], help="plain LoRA is always among them")
    pairs = ["0:10", "0:11", "1:10", "1:11", "2:10", "2:11"]
    options.add_argument("--pairs", nargs="+", default=pairs, help="SEED:SPLIT")
    options.add_argument("--stops", type=int, nargs="+", default=[50, 100, 200, 400], help="steps of plain LoRA")
    options.add_argument("--name", default="front")
    options.add_argument("--aux_size", type=int, help="images in each cell; with another --root. Default: 50")
    options.add_argument("--workers", type=int)
    options.add_argument("--collect", action="store_true", help="run nothing: write what was measured so far")
    options.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the figures")
    args = options.parse_args(arguments)
    runs = [
        ({"setting": setting, "seed": seed, "split": split}, run_options(args, setting, seed, split))
        for seed, split in (map(int, pair.split(":")) for pair in args.pairs)
        for setting in dict.fromkeys([shortest(args), "lora", *args.settings])
    ]
    rows = run_all(args, runs, tasks_of, numbers)
    over = means(rows)
    record = {
        "command": command(options, args, "--root", "DIR"),
        "attacks": args.audit.get("attacks", ATTACKS),
        "means": over,
        "against_early_stopping": {setting: compare(rows, setting) for setting in args.settings},
        "rows": rows,
        "environment": environment(),
    }
    write_result(args.results, args.name, record, show=False)
    write_figures(over, args.pictures, args.name)


if __name__ == "__main__":
    main()
