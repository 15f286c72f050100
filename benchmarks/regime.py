"""What at the bundled model's scale makes the paper's claims of SMP-LoRA true or false, one change of regime at a time.

    python benchmarks/regime.py --root runs/regime [--regimes recipe paper ..] [--pairs 0:10 1:11]

The paper trains at batch 1 for 400 epochs, the adapter at 1e-4 and the proxy at 1e-5, lambda 0.05, on error maps of
16,384 numbers. "recipe" is the quickstart's: batch 10, 1,500 steps, 3e-3 and 1e-3, maps of 256 numbers; "paper" all of
the paper's that fits a small model. The others begin with batch 1 and change one thing each: the proxy's rate, whether
it is told t, lambda, the size of the maps. In each regime LoRA and SMP-LoRA with the same steps,
each measured at a quarter, half and all of them; 50 images a cell.

Attacks: the paper's own network on one error map, the same told many, and those of the quick tier. Nobody trains
shadows here: see arena.py for that. "at_equal_fid": how much more SMP-LoRA leaks, to each attack, than LoRA of the same
regime where that is first as good.

Finished runs, audits and evaluations in --root are taken as they are. Results: benchmarks/results/regime.json.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import by_attack, command, parser, write_result
from front import estimate, reached, run_options
from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.core.environment import environment
from smplora.core.parallel import Task, run_tasks
from smplora.experiments.tasks import task
from smplora.results.attack import GROUPS
from smplora.results.audit import Audit
from smplora.results.quality import Quality
from smplora.results.record import read

ATTACKS = ["error_map_single", "error_map", "loss", "calibrated_loss", "sima", "pia"]
PARTS = (4, 2, 1)  # what is measured: after a quarter, half and all steps
Row = dict[str, Any]
BATCH_1: Row = {"train_batch_size": 1, "max_train_steps": 8000, "learning_rate": 5e-4}
PAPER: Row = {
    "train_batch_size": 1, "max_train_steps": 40000, "learning_rate": 1e-4, "proxy_learning_rate": 1e-5,
    "rank": 64, "lora_alpha": 32,
}  # fmt: skip
REGIMES: dict[str, tuple[Row, dict[str, Row]]] = {  # what both objectives have, and SMP-LoRA's variants
    "recipe": ({"max_train_steps": 1500}, {"": {}}),
    "batch 1": (
        BATCH_1,
        {
            "": {},
            "proxy at 1e-4": {"proxy_learning_rate": 1e-4},
            "proxy at 1e-5": {"proxy_learning_rate": 1e-5},
            "proxy told t": {"proxy_sees_timestep": True},
            "lambda 1": {"mi_lambda": 1.0},
        },
    ),
    "batch 1, maps of 1,024": ({**BATCH_1, "resolution": 64}, {"": {}, "lambda 1": {"mi_lambda": 1.0}}),
    "paper": (PAPER, {"": {}}),
}
LAMBDA = 0.05


def objectives(regime: str) -> dict[str, Row]:
    """The runs of a regime by what they are called: their options."""
    common, variants = REGIMES[regime]
    every = {"checkpointing_steps": common["max_train_steps"] // max(PARTS), "checkpoints_total_limit": "null"}
    shared = {**common, **every}
    ours = {"smp_lora" + (f", {name}" if name else ""): own for name, own in variants.items()}
    return {"lora": shared} | {name: {**shared, "mi_lambda": LAMBDA, **own} for name, own in ours.items()}


def shown(value: Any) -> str:
    """As YAML reads it, to which 1e-05 is a word."""
    digits = f"{value:f}".rstrip("0") if isinstance(value, float) else str(value)
    return f"{digits}0" if digits.endswith(".") else digits


def subjects(run: Path, steps: int) -> list[Path]:
    """What is measured of a run."""
    return [run if part == 1 else run / "checkpoints" / f"checkpoint-{steps // part}" for part in PARTS]


def tasks_of(args: Namespace, config: TrainConfig) -> Iterator[Task]:
    """Train a run, audit and evaluate what is measured of it."""
    yield task(config.output_dir, config)
    for subject in subjects(Path(config.output_dir), config.max_train_steps):
        common: Row = {"adapter": str(subject), "seed": config.seed}
        audit = AuditConfig(**{**common, "attacks": ATTACKS, "noise_pairs": 1, "memorisation": False, **args.audit})
        yield task(f"audit {subject}", audit, config.output_dir)
        yield task(
            f"evaluate {subject}", EvaluateConfig(**{**common, "num_images": 300, **args.evaluate}), config.output_dir
        )


def numbers(subject: Path) -> Row:
    """Audit and evaluation of a run or checkpoint."""
    audit = read(subject / "audit" / "audit.json", Audit, "audit")
    quality = read(subject / "quality" / "quality.json", Quality, "evaluate")
    loss = quality.held_out_loss
    return {
        "step": audit.subject.step,
        "level": audit.verdict.level,
        "strongest": {group: audit.strongest[group].auc.value for group in GROUPS},
        "auc": by_attack(audit, lambda n: n.auc.value),
        "fid": quality.against.held_out.fid.value,
        "fid_of_training_images": quality.against.train.fid.value,
        "held_out_loss": loss.value if loss else None,
    }


def means(rows: Sequence[Row]) -> list[Row]:
    """Every regime, objective and step over its pairs; AUCs on test members."""
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["regime"], row["objective"], row["step"]].append(row)
    return [
        {
            "regime": regime,
            "objective": objective,
            "step": step,
            "strongest": estimate([r["strongest"]["test"] for r in group]),
            "auc": {name: estimate([r["auc"][name]["test"] for r in group]) for name in group[0]["auc"]},
            **{
                name: estimate([r[name] for r in group])
                for name in ("fid", "fid_of_training_images", "held_out_loss")
                if group[0][name] is not None
            },
        }
        for (regime, objective, step), group in groups.items()
    ]


def at_equal_fid(rows: Sequence[Row]) -> list[Row]:
    """How much more each variant leaks after all steps than LoRA of its regime, seed and split where its FID is first
    as low, by each attack on test members; ``stopped`` says where that was not inside LoRA's curve."""
    found: dict[tuple[str, str], list[tuple[Row, list[Row]]]] = defaultdict(list)
    for row in rows:
        same = [r for r in rows if all(r[name] == row[name] for name in ("regime", "seed", "split"))]
        curve = sorted((r for r in same if r["objective"] == "lora"), key=lambda r: r["step"])
        last = max(r["step"] for r in same if r["objective"] == row["objective"])
        if row["objective"] != "lora" and row["step"] == last and curve:
            found[row["regime"], row["objective"]].append((row, curve))
    return [
        {
            "regime": regime,
            "objective": objective,
            "stopped": [reached([(r["fid"], 0.0) for r in curve], row["fid"])[1] for row, curve in pairs],
            "auc": {name: estimate([more(row, curve, name) for row, curve in pairs]) for name in pairs[0][0]["auc"]},
        }
        for (regime, objective), pairs in found.items()
    ]


def more(row: Row, curve: Sequence[Row], attack: str) -> float:
    """How much more ``attack`` finds than in LoRA where its FID is first as low."""
    stops = [(r["fid"], r["auc"][attack]["test"]) for r in curve]
    there: float = row["auc"][attack]["test"]
    return there - reached(stops, row["fid"])[0]


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, compare and write."""
    options = parser(__file__, __doc__, "train", "audit", "evaluate")
    options.add_argument("--root", type=Path, required=True)
    options.add_argument("--regimes", nargs="+", choices=REGIMES, default=[*REGIMES])
    options.add_argument("--pairs", nargs="+", default=["0:10", "1:11"], help="SEED:SPLIT")
    options.add_argument("--aux_size", type=int, help="images in each cell; with another --root. Default: 50")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--collect", action="store_true", help="run nothing: write what was measured so far")
    args = options.parse_args(arguments)
    runs: list[tuple[Row, TrainConfig]] = []
    for seed, split in (map(int, pair.split(":")) for pair in args.pairs):
        for regime in args.regimes:
            for name, own in objectives(regime).items():
                setting = ",".join([name.partition(",")[0], *(f"{key}={shown(value)}" for key, value in own.items())])
                about = {"regime": regime, "objective": name, "seed": seed, "split": split}
                runs.append((about, run_options(args, setting, seed, split)))
    if not args.collect:
        everything = [task for _, config in runs for task in tasks_of(args, config)]
        run_tasks(everything, "regime", workers=args.workers, strict=True)
    rows = [
        {**about, **numbers(subject)}
        for about, config in runs
        for subject in subjects(Path(config.output_dir), config.max_train_steps)
        if (subject / "quality" / "quality.json").exists()
    ]
    record = {
        "command": command(options, args, "--root", "DIR"),
        "attacks": args.audit.get("attacks", ATTACKS),
        "means": means(rows),
        "at_equal_fid": at_equal_fid(rows),
        "rows": rows,
        "environment": environment(),
    }
    write_result(args.results, "regime", record, show=False)


if __name__ == "__main__":
    main()
