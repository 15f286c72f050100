"""Seeded draws that are functions of (seed, name) alone: the same on every machine and with every library's version.
Where some originals are missing, the draw of the others stays what it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smplora.core.random_streams import stream_seed


@dataclass(frozen=True)
class Selection:
    """The first ``wanted`` of ``candidates`` that are different pictures are taken."""

    group: str  # a person's number, a class, a split
    wanted: int
    candidates: tuple[str, ...]  # names of originals, in drawn order


def shuffled(names: Iterable[str], *stream: int | str) -> list[str]:
    """``names`` in random order: each has a random number of its own, and they are sorted by it."""
    return sorted(names, key=lambda name: (stream_seed(*stream, name), name))


def counts(groups: int, fewest: int, most: int, total: int, *stream: int | str) -> list[int]:
    """How many images each of ``groups`` gives: uniform on ``fewest`` .. ``most``, drawn again until they sum to
    ``total`` (the paper names both the distribution and the sum). [groups]

    Raises:
        ValueError: no such numbers exist.
    """
    if not groups * fewest <= total <= groups * most:
        raise ValueError(f"{groups} groups of {fewest} to {most} images cannot have {total}")
    attempt = 0
    while True:
        drawn = [fewest + stream_seed(*stream, attempt, k) % (most - fewest + 1) for k in range(groups)]
        if sum(drawn) == total:
            return drawn
        attempt += 1
