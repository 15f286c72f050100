"""What `smplora train` costs on a run that is complete, beside an interpreter that imports torch and does nothing.

    python benchmarks/complete_run.py [--rounds 5]     -> benchmarks/results/complete_run.json

Processor seconds of the whole process, the two in turns: medians, and their ratio with its range.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import command, parser, train_config, write_result
from smplora.experiments.tasks import train
from step_time import ratio


def seconds(*words: str) -> float:
    """Processor seconds of a process."""
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        few = {"aux_size": 5, "test_size": 5, "max_train_steps": 1, "device": "cpu"}
        train(train_config(Path(name) / "images", run, **few), progress=False)
        again = ("-m", "smplora", "train", "--config", str(run / "config.yaml"), "--output_dir", str(run))
        times: dict[str, list[float]] = {"command": [], "import_torch": []}
        for _ in range(args.rounds):
            times["command"].append(seconds(*again))
            times["import_torch"].append(seconds("-c", "import torch"))
    record = {
        "command": command(options, args),
        "seconds": {what: round(median(each), 2) for what, each in times.items()},
        "command_to_import_torch": ratio(times["command"], times["import_torch"]),
    }
    write_result(args.results, "complete_run", record)


if __name__ == "__main__":
    main()
