"""What LiRA and RMIA with shadow adapters find beside the calibrated loss, on LoRA, SMP-LoRA and Distill-LoRA.

    python benchmarks/shadows.py [--folder DIR] [--steps 600] [--shadows 8] [--objectives lora smp_lora distill_lora]

Results: benchmarks/results/shadows.json; objectives that are not named keep what was measured before.

The quickstart's recipe: 10 private digits a step, rank 32 on all linear layers, 50 images a cell; SMP-LoRA with lambda
1 and a proxy rate of 1e-3; Distill-LoRA of twice the steps, its teachers of four thirds. Shadows have the objective of
the adapter that they are to attack. What is done in DIR is used as it is, so that a killed call goes on. One seed: the
standard error of an AUC is about 0.05.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from common import RECIPE, audited, by_attack, ends, evaluated, parser, record_of, train_config, write_result
from smplora.experiments.tasks import train
from smplora.results.attack import Numbers
from smplora.results.record import as_json

ATTACKS = ["loss", "calibrated_loss", "quantile", "lira", "lira_offline", "rmia"]
OBJECTIVES = ("lora", "smp_lora", "distill_lora")


def settings(objective: str, steps: int) -> dict[str, Any]:
    """The options of a run."""
    own: dict[str, dict[str, Any]] = {
        "smp_lora": {"mi_lambda": 1.0, "proxy_learning_rate": 1e-3},
        "distill_lora": {"max_train_steps": 2 * steps, "teacher_steps": 4 * steps // 3},
    }
    options = {**RECIPE, "objective": objective, "max_train_steps": steps, "device": "cpu", **own.get(objective, {})}
    return {**options, "checkpointing_steps": options["max_train_steps"]}


def summary(numbers: Numbers) -> dict[str, Any]:
    """The numbers of an attack on a group."""
    return {"auc": ends(numbers.auc, 2), "tpr_at_10_percent": numbers.rates[0.1].value}


def measured(folder: Path, objective: str, args: Namespace) -> dict[str, Any]:
    """Audit and evaluation of a run, which is trained unless it is there."""
    changed = {**settings(objective, args.steps), **args.train}
    common: dict[str, Any] = {
        "adapter": str(train(train_config(folder / "images", folder / objective, **changed))),
        "device": "cpu",
    }
    quality = evaluated(**{**common, "num_images": 300, **args.evaluate})
    result = audited(**{**common, "shadows": args.shadows, "attacks": ATTACKS, **args.audit})
    return {
        "shadows": as_json(result.shadows),
        "fid": ends(quality.against.held_out.fid, 1),
        "attacks": by_attack(result, summary),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__, "train", "audit", "evaluate")
    options.add_argument("--folder", type=Path)
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--shadows", type=int, default=8)
    options.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    args = options.parse_args(arguments)
    record = record_of(options, args, "shadows", ["steps", "shadows"], objectives=OBJECTIVES)
    with tempfile.TemporaryDirectory() as temporary:
        for objective in args.objectives:
            record[objective] = measured(args.folder or Path(temporary), objective, args)
            write_result(args.results, "shadows", record, show=False)


if __name__ == "__main__":
    main()
