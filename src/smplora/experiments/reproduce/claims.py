"""What the paper claims, looked up in our numbers: sentences that are computed from a target's JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from smplora.experiments.reproduce.runs import LAMBDA, LORA, SMP

Row = Mapping[str, Any]  # of a JSON file
Chosen = Callable[[Row], bool]

PROTOCOLS = {"paper_protocol": "the paper's protocol", "honest": "the honest protocol"}
BETTER = {
    "fid": "FID is lower", "kid": "KID is lower", "asr": "ASR is nearer to 50 %", "auc_dev": "the AUC is nearer to 0.5",
}  # fmt: skip
CALLED = {"fid": "FID", "kid": "KID", "asr": "ASR", "auc_dev": "|AUC - 0.5| / 0.5"}


def defence_against_baseline(
    rows: Sequence[Row], metrics: Sequence[str], place: str, baseline: tuple[str, str] = ("LoRA", LORA)
) -> list[str]:
    """SMP-LoRA, at the paper's lambda and the best one, against ``baseline``, a name and an objective."""
    more = {row["run"]["mi_lambda"] for row in rows if row["paper"] is None}
    return [
        sentence
        for weight in (LAMBDA, *sorted(more))
        for sentence in compare_methods(
            rows,
            (f"SMP, λ {weight:g},", rows_of(SMP, mi_lambda=weight)),
            (baseline[0], rows_of(baseline[1])),
            metrics,
            place,
        )
    ]


def rows_of(objective: str, **more: Any) -> Chosen:
    """Rows of runs with this objective at the paper's lambda, and other fields of ``PaperRun``."""
    fields = {"objective": objective, "mi_lambda": LAMBDA, **more}
    return lambda row: all(row["run"][name] == value for name, value in fields.items())


def mean(row: Row, protocol: str, metric: str) -> float | None:
    """Over seeds, if there is one."""
    numbers = row["over_seeds"].get(protocol, {}).get(metric)
    return None if numbers is None else float(numbers["mean"])


def compare_methods(
    rows: Sequence[Row], first: tuple[str, Chosen], second: tuple[str, Chosen], metrics: Sequence[str], place: str
) -> list[str]:
    """In how many places ``first``, a name and which rows it has, is better than ``second``; a sentence a protocol.

    Args:
        place: what the paper compares them in: a label of the rows, or a field of their runs.
    """
    sides = [{_place(row, place): row for row in rows if chosen(row)} for _, chosen in (first, second)]

    def wins(protocol: str, metric: str) -> str | None:
        pairs = [tuple(_badness(side[at], protocol, metric) for side in sides) for at in sides[0] if at in sides[1]]
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        return f"{BETTER[metric]} in {sum(x < y for x, y in known)} of {len(known)}" if known else None

    return _by_protocol(metrics, f"{first[0]} against {second[0]} by {{}}: ", wins)


def steps(rows: Sequence[Row], by: str, metrics: Sequence[str], among: str = "dataset") -> list[str]:
    """How often a number grows from one value of ``by``, a field of the runs, to the next larger one, a sentence for
    each protocol."""
    series = [
        sorted((row for row in rows if row["run"][among] == group), key=lambda row: float(row["run"][by]))
        for group in dict.fromkeys(row["run"][among] for row in rows)
    ]

    def growth(protocol: str, metric: str) -> str | None:
        values = [[v for row in group if (v := mean(row, protocol, metric)) is not None] for group in series]
        grows = [y > x for group in values for x, y in pairwise(group)]
        return f"{CALLED[metric]} grows in {sum(grows)} of {len(grows)}" if grows else None

    return _by_protocol(metrics, "By {}, from each value to the next larger one, ", growth)


def ranges(rows: Sequence[Row], metrics: Iterable[str]) -> list[str]:
    """Between which numbers all rows lie, a sentence for each protocol."""

    def span(protocol: str, metric: str) -> str | None:
        values = [v for row in rows if (v := mean(row, protocol, metric)) is not None]
        if len(values) < 2:
            return None
        return f"{CALLED[metric]} lies between {min(values):.3g} and {max(values):.3g}"

    return _by_protocol(metrics, "By {}: ", span)


def _by_protocol(metrics: Iterable[str], beginning: str, part: Callable[[str, str], str | None]) -> list[str]:
    """A sentence for each protocol of what ``part`` says of each metric; none where it has nothing to say.

    Args:
        beginning: of the sentence, with {} for the protocol.
    """
    metrics, sentences = list(metrics), []
    for protocol, title in PROTOCOLS.items():
        parts = [text for metric in metrics if (text := part(protocol, metric))]
        if parts:
            sentences.append(f"{beginning.format(title)}{', '.join(parts)}.")
    return sentences


def _place(row: Row, name: str) -> Any:
    return row["labels"].get(name) or row["run"].get(name)


def _badness(row: Row, protocol: str, metric: str) -> float | None:
    value = mean(row, protocol, metric)
    return abs(value - 50) if metric == "asr" and value is not None else value
