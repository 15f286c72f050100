"""Wall time and peak memory of the two commands that newcomers run.

    python benchmarks/budget.py quickstart      -> benchmarks/results/quickstart.json
    python benchmarks/budget.py tests           -> benchmarks/results/tests.json

Memory is the sum of the proportional set sizes of the whole process tree, sampled twice a second, so that pages shared
between processes count once.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from common import command, parser, write_result
from smplora.core.reading import read_json

MUST_LEAK = 0.75
BUDGETS: dict[str, dict[str, float]] = {"quickstart": {"wall_s": 360, "memory_gb": 3.0}, "tests": {"wall_s": 300}}


def tree_bytes(root: psutil.Process) -> int:
    """Proportional set size of a process and its descendants."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def results(root: Path) -> dict[str, Any]:
    """What the quickstart measured: plain LoRA's AUC under the calibrated loss, and every verdict."""
    files = [*sorted(root.glob("lora/checkpoints/*/audit/audit.json")), *sorted(root.glob("*/audit/audit.json"))]
    audits = {audit["subject"]["label"]: audit for audit in map(read_json, files)}
    leak = next(a["test"]["auc"] for a in audits["LoRA"]["attacks"] if a["name"] == "calibrated_loss")
    return {
        "lora_calibrated_loss_auc": leak,
        "verdicts": {label: a["verdict"]["sentence"] for label, a in audits.items()},
    }


def measure(command: list[str]) -> dict[str, float | int | str]:
    """Run ``command`` to its end; seconds, bytes, and when it first wrote something."""
    start, peak, first_output_s = time.perf_counter(), 0, 0.0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, tree_bytes(psutil.Process(process.pid)))
            if not first_output_s and os.fstat(log.fileno()).st_size:
                first_output_s = time.perf_counter() - start
            time.sleep(0.5 if first_output_s else 0.05)
        if process.returncode:
            log.seek(0)
            print(log.read()[-4000:].decode(errors="replace"), file=sys.stderr)
    return {
        "status": process.returncode,
        "wall_s": round(time.perf_counter() - start, 1),
        "first_output_s": round(first_output_s, 1),
        "memory_gb": round(peak / 1e9, 2),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, say whether it is within budget."""
    options = parser(__file__, __doc__)
    options.add_argument("what", choices=BUDGETS)
    options.add_argument("--folder", type=Path, help="where the quickstart writes; default: a temporary folder")
    options.add_argument("--words", default="", help="more words of the command, as in --words='--max_train_steps 300'")
    args = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "quickstart"
        commands = {"quickstart": ["smplora", "quickstart", "--output_dir", str(folder)], "tests": ["pytest"]}
        measured = measure([sys.executable, "-m", *commands[args.what], *shlex.split(args.words)])
        measurements = results(folder) if args.what == "quickstart" and not measured["status"] else {}
    budget, line = BUDGETS[args.what], command(options, args, args.what)
    record: dict[str, Any] = {"command": line, "cores": os.cpu_count(), **measured, **measurements, "budget": budget}
    write_result(args.results, args.what, record)
    if measurements and measurements["lora_calibrated_loss_auc"]["low"] <= MUST_LEAK:
        sys.exit(f"plain LoRA must leak: the interval of its AUC must lie above {MUST_LEAK}")
    over = [name for name, limit in budget.items() if record[name] > limit]
    sys.exit(f"over budget: {over}" if over or record["status"] else 0)


if __name__ == "__main__":
    main()
