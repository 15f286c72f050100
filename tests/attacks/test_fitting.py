"""What scorers make of signals whose leak is known."""

from __future__ import annotations

import numpy as np

from smplora.attacks.methods.ensemble import Stacked
from smplora.attacks.methods.loss import LossAttack
from smplora.attacks.methods.loss_vector import LossVectorAttack
from smplora.attacks.scorers import Logistic, StandardisedMean, Unusual
from smplora.statistics.curves import auc

MEMBER = np.arange(400) < 200


def test_unusual_is_the_distance_to_the_median_of_strangers() -> None:
    signals = np.array([[0.0], [1.0], [2.0], [3.0], [9.0]])
    scorer = Unusual().fit(signals, np.array([False, False, False, False, True]))
    np.testing.assert_allclose(scorer.score(np.array([[1.5], [3.5], [-0.5]])), [0, 2, 2])  # median 1.5, spread 1


def test_members_pushed_to_both_sides_are_found_by_two_sided_attacks_alone() -> None:
    """A defence that hides the average: half its members are easier than strangers, half harder."""
    rng = np.random.default_rng(0)
    aux, test = rng.normal(size=(2, 400, 8))
    for signals in (aux, test):
        signals[:100] += 1.5
        signals[100:200] -= 1.5
    scores = {type(s).__name__: s.fit(aux, MEMBER).score(test) for s in (StandardisedMean(), Logistic(), Unusual())}
    assert abs(auc(scores["StandardisedMean"], MEMBER) - 0.5) < 0.1
    assert abs(auc(scores["Logistic"], MEMBER) - 0.5) < 0.15
    assert auc(scores["Unusual"], MEMBER) > 0.9


def test_members_easier_at_some_timesteps_and_harder_at_others_are_found_by_vectors() -> None:
    rng = np.random.default_rng(1)
    aux, test = rng.normal(size=(2, 400, 8))
    for signals in (aux, test):
        signals[:200] += np.array([1, -1] * 4) / 2
    assert abs(auc(StandardisedMean().fit(aux, MEMBER).score(test), MEMBER) - 0.5) < 0.1
    assert auc(Logistic().fit(aux, MEMBER).score(test), MEMBER) > 0.8


def stacked(parts: list[np.ndarray]) -> np.ndarray:
    """As ``EnsembleAttack.signals``."""
    rows = np.zeros((len(parts[0]), len(parts), 1 + max(part.shape[1] for part in parts)))
    for place, part in enumerate(parts):
        rows[:, place, : part.shape[1]], rows[:, place, -1] = part, part.shape[1]
    return rows


def test_an_ensemble_of_one_ranks_as_that_one() -> None:
    rng = np.random.default_rng(2)
    aux, test = rng.normal(size=(2, 400, 3)) + MEMBER[:, None]
    scores = Stacked([LossAttack()], 0).fit(stacked([aux]), MEMBER).score(stacked([test]))
    alone = StandardisedMean().fit(aux, MEMBER).score(test)
    assert (np.argsort(scores) == np.argsort(alone)).all()


def test_an_ensemble_joins_what_two_attacks_know_and_a_third_overfits() -> None:
    rng = np.random.default_rng(3)
    aux, test = ([rng.normal(size=(400, k)) + s * MEMBER[:, None] for k, s in ((1, 1), (2, 1), (60, 0))] for _ in "at")
    attacks = [LossAttack(), LossAttack(), LossVectorAttack()]
    joined = auc(Stacked(attacks, 0).fit(stacked(aux), MEMBER).score(stacked(test)), MEMBER)
    alone = [auc(part.mean(1), MEMBER) for part in test[:2]]
    assert joined > max(alone) + 0.03
