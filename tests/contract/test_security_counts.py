"""The counts in docs/security.md are those of the files that benchmarks wrote."""

from __future__ import annotations

from pathlib import Path

from smplora.core.reading import read_json

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"


def test_counts_are_those_that_were_measured() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    kills, traces, mutations = (read_json(RESULTS / f"{name}.json") for name in ("kills", "traces", "mutations"))
    files = sum(one["files"] for one in traces["by_adapter"].values())
    rows = [
        f"| {kills['all']['kills']} kills at random moments of {len(kills['by_command'])} commands; "
        f"{kills['all']['restarts_compared']} restarts compared with an undisturbed twin | "
        f"{kills['all']['survived']} equal, {kills['left_behind']} half-written files | `{kills['command']}` |",
        f"| {mutations['readers']['mutations']} changed files of {len(mutations['readers']['by_kind'])} kinds, read | "
        f"{mutations['readers']['refused']} refused in a line, {mutations['readers']['taken']} used, "
        f"{mutations['readers']['wrong']} otherwise | `{mutations['command']}` |",
        f"| {mutations['commands']['mutations']} changed files given to the real commands | "
        f"{mutations['commands']['refused']} refused in a line, {mutations['commands']['taken']} used, "
        f"{mutations['commands']['wrong']} otherwise | the same |",
        f"| {sum(traces['needles'].values())} needles (captions, names, digests, pixels, seeds) searched in {files} "
        f"published files of {len(traces['by_adapter'])} adapters | {traces['found']} found; all "
        f"{sum(traces['control'].values())} planted ones are | `{traces['command']}` |",
    ]
    assert [row for row in rows if row not in text] == []
