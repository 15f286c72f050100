"""Measures the ratios that benchmarks/results/ holds anew, and fails where one is worse than the tolerance allows.

    python scripts/bench_check.py [--rows complete_run ..]      (make bench-check: all, some 20 minutes)

Not part of the tests: it takes long, and other work on the machine disturbs it. Ratios to a baseline of the same run are
compared, never seconds. To keep a new number, run its script without --results and commit the file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smplora.core.reading import read_json

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


class Row(NamedTuple):
    """A script, the file that it writes, and the numbers in it that must not grow."""

    script: str
    words: tuple[str, ...]
    file: str
    keys: tuple[tuple[str, ...], ...]  # the ways to them; of a list the first counts
    tolerance: float  # as a share; of 0.5 where a number is below that, since noise does not shrink with it


SHARED = "smp_lora, sharing aux"
ROWS = {
    "complete_run": Row("complete_run", (), "complete_run", (("command_to_import_torch",),), 0.3),
    "step_time": Row(
        "step_time",
        ("--model", "mid", "--rounds", "1"),
        "step_time_mid_cpu",
        tuple(
            (batch, key)
            for batch in ("batch_1", "batch_4")
            for key in ("lora_to_bare", "smp_lora_ratio", f"{SHARED}_ratio", f"{SHARED}_peak_ratio")
        ),
        0.1,
    ),
    "audit_cost": Row("audit_cost", (), "audit_cost", (("ratio", "median"),), 0.1),
    "scale": Row(
        "scale",
        ("--parts", "feed", "near_duplicates", "step_rank"),
        "scale",
        tuple(("parts", part, "exponent") for part in ("feed", "near_duplicates", "step_rank")),
        0.3,
    ),
}


def value(record: Any, way: Sequence[str]) -> float:
    """The number at the end of the way."""
    for key in way:
        record = record[key]
    return float(record[0] if isinstance(record, list) else record)


def compare(before: Any, now: Any, row: Row) -> list[tuple[str, float, float, bool]]:
    """Name, number before and now, and whether it is worse than the tolerance allows."""
    found = []
    for way in row.keys:
        old, new = value(before, way), value(now, way)
        found.append((f"{row.file}: {' / '.join(way)}", old, new, new > old + row.tolerance * max(abs(old), 0.5)))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line for each number; 1 where one is worse."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS])
    worse = False
    for name in options.parse_args(arguments).rows:
        row = ROWS[name]
        with tempfile.TemporaryDirectory() as folder:
            words = [*row.words, "--results", folder, *(["--pictures", folder] if name == "scale" else [])]
            subprocess.run(
                [sys.executable, BENCHMARKS / f"{row.script}.py", *words], check=True, stdout=subprocess.DEVNULL
            )
            now = read_json(Path(folder) / f"{row.file}.json")
        for title, old, new, bad in compare(read_json(BENCHMARKS / "results" / f"{row.file}.json"), now, row):
            print(f"{'WORSE' if bad else 'ok':>5}  {title}: {old:g} before, {new:g} now", flush=True)
            worse |= bad
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
