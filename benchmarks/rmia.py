"""RMIA as published against simpler scores of the same shadows, on simulated signals.

    python benchmarks/rmia.py [--draws 20] [--cell 200]     -> benchmarks/results/rmia.json

No model: what an adapter says of an image is the image's own difficulty (normal, standard deviation 1 or 5) plus
normal noise of 1, plus 1 if it was trained on; 8 shadows, 1, 3 or 8 columns. Scores: RMIA, with gamma 1 (the authors'
tool) and 2 (their experiments on confidences); "gain": the rank of phi - mu_out among non-members, which is what p(x) =
p_out(x) and log p = phi would give; offline LiRA. Each is fitted on one half and read on the other; means over draws,
and the a that RMIA chose.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from common import command, parser, write_result
from smplora.attacks.methods.lira import Deviation
from smplora.attacks.methods.rmia import Population, dominated
from smplora.attacks.shadow_comparison import Comparison
from smplora.core.arrays import Bools, Floats
from smplora.statistics.curves import auc
from smplora.statistics.rates import tpr_at_fpr

SHADOWS, LEAK = 8, 1.0
COLUMNS, DIFFICULTIES = (1, 3, 8), (1.0, 5.0)


class Half(NamedTuple):
    """Signals as of ``Comparison.packed``, and who is a member."""

    signals: Floats
    is_member: Bools


def simulated(rng: np.random.Generator, cell: int, columns: int, difficulty: float) -> Half:
    """``cell`` members and as many non-members."""
    is_member = np.arange(2 * cell) < cell
    hard = rng.normal(0, difficulty, (2 * cell, 1, columns))
    is_in = rng.permuted(np.tile(np.arange(SHADOWS) < SHADOWS // 2, (2 * cell, 1)), axis=1)
    shadows = hard + rng.normal(0, 1, (2 * cell, SHADOWS, columns)) + LEAK * is_in[..., None]
    target = hard[:, 0] + rng.normal(0, 1, (2 * cell, columns)) + LEAK * is_member[:, None]
    return Half(Comparison(target, shadows, is_in).packed(), is_member)


def gain(aux: Half, test: Half) -> Floats:
    """Share of aux non-members that gained less by the adapter, the columns' mean."""
    gains = [(c.target - c.mean(False)).mean(1) for c in (Comparison.unpacked(h.signals) for h in (aux, test))]
    return dominated(np.exp(gains[1])[:, None], np.exp(gains[0][~aux.is_member])[:, None])


def scores(aux: Half, test: Half) -> Iterator[tuple[str, Floats, float | None]]:
    """Name, scores of test, and a."""
    fitted = Population().fit(*aux)
    for gamma in (1.0, 2.0):
        yield f"rmia, gamma {gamma:g}", fitted.score(test.signals, gamma), fitted.factor
    yield "gain", gain(aux, test), None
    yield "lira_offline", Deviation().fit(*aux).score(test.signals), None


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--draws", type=int, default=20)
    options.add_argument("--cell", type=int, default=200)
    args = options.parse_args(arguments)
    rows = []
    for columns, difficulty in product(COLUMNS, DIFFICULTIES):
        found: dict[str, list[list[float]]] = {}
        for draw in range(args.draws):
            rng = np.random.default_rng([columns, int(difficulty), draw])
            aux, test = (simulated(rng, args.cell, columns, difficulty) for _ in range(2))
            for name, values, factor in scores(aux, test):
                rate = tpr_at_fpr(values, test.is_member, 0.01).value
                found.setdefault(name, []).append(
                    [auc(values, test.is_member), rate, *([] if factor is None else [factor])]
                )
        for name, numbers in found.items():
            means = dict(zip(("auc", "tpr_at_1_percent", "a"), np.round(np.mean(numbers, 0), 3).tolist(), strict=False))
            rows.append({"columns": columns, "difficulty": difficulty, "score": name, **means})
    record: dict[str, Any] = {"command": command(options, args, always=["draws", "cell"]), "rows": rows}
    write_result(args.results, "rmia", record)


if __name__ == "__main__":
    main()
