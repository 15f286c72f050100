"""What the drawn images of Synth-LoRA give away by themselves, before any adapter learns from them.

    python benchmarks/drawn.py --runs DIR/split-10/seed-0/SETTING ..     -> benchmarks/results/drawn.json

Runs are those of benchmarks/arena.py without --drop_nearest. Whoever sees the drawn images takes an image for a member
that one of them lies near: score = - distance to the nearest drawn image, by pixels; nothing is fitted. AUC over all
members against all non-members (200 and 200: a standard error of 0.03), where a share of the drawn images is left
out, those with the smallest ratio of both distances (--drop_nearest SHARE has another order), or as many as
"balanced" does; and the share of them that lie nearer to a member than to one of the held-out images
that choose, beside the share that chance would give.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from common import parser, write_result
from front import estimate
from smplora.config.synthetic import BALANCED
from smplora.config.train import TrainConfig
from smplora.data.pool import open_source, read_samples
from smplora.data.split import MANIFEST, read_split
from smplora.runs.folder import read_config
from smplora.statistics.curves import auc
from smplora.training.synthesis import FOLDER, choosers, distances_to, unbalanced

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def measured(run: Path) -> dict[str, Any]:
    """Of one run, by what is left out."""
    config = replace(read_config(run, TrainConfig), output_dir=str(run))
    split = read_split(run / MANIFEST, read_samples(open_source(config)))
    files = sorted((run / FOLDER).glob("*.png"))
    outside = split.cells["aux_nonmember"] + split.cells["test_nonmember"]
    held_out = choosers(split)
    near, far, other = (distances_to(part, config, files) for part in (split.train, outside, held_out))
    ratios = near.amin(1) / other.amin(1).clamp_min(1e-12)
    order, is_member = ratios.argsort(stable=True).tolist(), np.arange(near.shape[1] + far.shape[1]) < near.shape[1]
    dropped = {f"{share:g}": set(order[: round(share * len(files))]) for share in SHARES}
    dropped[BALANCED] = unbalanced(near.amin(1), other.amin(1), near.shape[1], other.shape[1])
    found: dict[str, Any] = {"chance": near.shape[1] / (near.shape[1] + other.shape[1])}
    for name, gone in dropped.items():
        left = [k for k in range(len(files)) if k not in gone]
        scores = -torch.cat([near[left].amin(0), far[left].amin(0)]).numpy()
        found[name] = {
            "left_out": len(gone) / len(files),
            "auc": float(auc(scores, is_member)),
            "nearer_to_a_member": float((ratios[left] < 1).double().mean()),
        }
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--runs", nargs="+", type=Path, required=True)
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [measured(run) for run in args.runs]
    names = [name for name in rows[0] if name != "chance"]
    record = {
        "command": f"{options.prog} --runs DIR/split-*/seed-*/SETTING",
        "setting": args.runs[0].name,
        "chance": fmean(row["chance"] for row in rows),
        "means": {n: {what: estimate([row[n][what] for row in rows]) for what in rows[0][n]} for n in names},
        "rows": rows,
    }
    write_result(args.results, "drawn", record)


if __name__ == "__main__":
    main()
