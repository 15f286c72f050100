"""Whole verdicts of simulated audits whose attacks are fitted: alarms where nothing leaks, and what intervals cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm

from smplora.attacks.base import Access, Attack, AttackInfo
from smplora.audit.conclusion import Conclusion, conclude, learn_attacks, score_attacks
from smplora.statistics.claims import GROUPS

COLUMNS = 8
ENOUGH = 199  # permutations: p of 0.02 is a multiple of 1 / 200
INFO = AttackInfo("Fitted", Access.GREY_BOX, "", "")


class LeastSquares:
    """A linear classifier, fitted in microseconds; as close to its samples as a logistic regression."""

    def fit(self, signals: Any, is_member: Any) -> LeastSquares:
        self.centre = signals.mean(0)
        self.weights = np.linalg.lstsq(signals - self.centre, is_member - is_member.mean(), rcond=None)[0]
        return self

    def score(self, signals: Any) -> Any:
        return (signals - self.centre) @ self.weights


@dataclass(frozen=True)
class Fitted(Attack):
    info = INFO

    def signals(self, view: Any) -> Any:
        raise NotImplementedError

    def scorer(self, seed: int) -> LeastSquares:
        return LeastSquares()


def audited(seed: int, size: int, attacks: int, *leaks: float) -> tuple[Conclusion, dict[str, Any]]:
    """One audit of cells of ``size``; the first attacks see members shifted by so much in each column. With leaks also
    what was fitted to read each group."""
    rng, member = np.random.default_rng([seed, size, attacks]), np.arange(2 * size) < size
    tried = {f"a{k}": Fitted() for k in range(attacks)}
    signals = {
        (name, f"{half}_{kind}"): rng.normal(size=(size, COLUMNS)) + (shift if kind == "member" else 0.0)
        for name, shift in zip(tried, [*leaks, *[0.0] * attacks], strict=False)
        for half in ("aux", "test")
        for kind in ("member", "nonmember")
    }
    learned = learn_attacks(tried, signals, "aux", member, seed)
    scored = score_attacks(tried, learned, signals, member, member, seed)
    found = conclude(scored, member, member, seed=seed, failed_gates=(), permutations=ENOUGH)
    return found, {"test": learned, "aux_members": learn_attacks(tried, signals, "test", member, seed) if leaks else {}}


def too_many(runs: int, share: float) -> int:
    """More than this in ``runs`` would happen in less than 1 % of tests where the share is as promised."""
    return int(binom.ppf(0.99, runs, share))


@pytest.mark.parametrize(("size", "attacks", "runs"), [(50, 1, 150), (200, 1, 60), (100, 5, 40), (50, 25, 20)])
def test_nothing_is_found_where_nothing_leaks(size: int, attacks: int, runs: int) -> None:
    """In 5 % of audits at most anything is significant on either group, and hardly ever is one red. Scores of aux
    members out of fold over one set, taken as independent, were significant in 15 %."""
    alarms = red = outside = 0
    for seed in range(runs):
        found, _ = audited(seed, size, attacks)
        alarms += min(found.strongest[group].smallest_p_corrected for group in GROUPS) < 0.05
        red += found.verdict.level == "red"
        for group in GROUPS:
            auc = found.attacks[0].on(group).auc  # type: ignore[union-attr]
            outside += not auc.low <= 0.5 <= auc.high
    assert alarms <= too_many(runs, 0.04)
    assert red <= too_many(runs, 0.04)
    assert outside <= too_many(2 * runs, 0.05)  # of the first attack, fitted like the others, at 95 %


@pytest.mark.parametrize("area", [0.5, 0.65, 0.8])
def test_the_strongest_attacks_interval_covers_what_it_truly_finds(area: float) -> None:
    """The truth is the AUC of what was fitted: normal scores, along its own weights."""
    outside = runs = 0
    shift = np.sqrt(2 / COLUMNS) * norm.ppf(area)
    for seed in range(40):
        found, learned = audited(seed, 60, 3, shift, 0.7 * shift)
        for group in GROUPS:
            best = found.strongest[group]
            leak = {"a0": shift, "a1": 0.7 * shift}.get(best.attack, 0.0)
            one = learned[group][best.attack]
            weights = one.sign * one.scorer.weights
            truth = norm.cdf(weights.sum() * leak / np.linalg.norm(weights) / np.sqrt(2))
            outside += not best.auc.low <= truth <= best.auc.high
            runs += 1
    assert outside <= too_many(runs, 1 - 0.992)
