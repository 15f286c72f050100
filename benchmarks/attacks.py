"""What each attack finds on a plain LoRA of the quickstart's recipe, and what it costs.

    python benchmarks/attacks.py [--folder DIR] [--tier standard]     -> benchmarks/results/attacks.json

600 steps of 10 private digits, rank 32 on all linear layers, 50 images a cell, one thread. A finished run or audit in
DIR is used as it is. One seed: the standard error of an AUC is about 0.05.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from common import RECIPE, audited, by_attack, command, ends, parser, train_config, write_result
from smplora.experiments.tasks import train

SETTINGS: dict[str, Any] = {**RECIPE, "max_train_steps": 600, "checkpointing_steps": 200, "device": "cpu"}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__, "train", "audit")
    options.add_argument("--folder", type=Path)
    options.add_argument("--tier", nargs="+", default=["standard"])
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    record: dict[str, Any] = {"command": command(options, args, always=["tier"])}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        run = train(train_config(folder / "images", folder / "lora", **{**SETTINGS, **args.train}))
        for tier in args.tier:
            settings = {"adapter": str(run), "tier": tier, "device": "cpu", "output_dir": str(folder / tier)}
            result = audited(**settings, **args.audit)
            record[tier] = {
                "elapsed_s": result.elapsed_s,
                "auc": by_attack(result, lambda numbers: ends(numbers.auc, 2)),
            }
    write_result(args.results, "attacks", record)


if __name__ == "__main__":
    main()
