"""Intervals and p-values from leave-one-out predictions: closed forms, and what they promise, by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from smplora.statistics.leave_one_out import best_level, jackknife_minmax, permutation_p


def test_levels() -> None:
    assert best_level(12) == 12 / 13
    assert best_level(19) == pytest.approx(0.95)
    assert best_level(100) == 0.95


def test_an_interval_that_is_known() -> None:
    """Four residuals at level 0.6: the third smallest counts; the ends are those of the predictions."""
    assert jackknife_minmax([1, 2, 3, 2], [-0.5, 0.1, 4, 0.3], 0.6) == (0.5, 3.5)
    assert jackknife_minmax([1, 2, 3, 2], [-0.5, 0.1, 4, 0.3], 0.8) == (-3, 7)
    with pytest.raises(ValueError, match="no interval of level"):
        jackknife_minmax([1, 2, 3, 2], [0, 0, 0, 0], 0.9)
    with pytest.raises(ValueError, match="no interval"):
        jackknife_minmax([1, 2, 3], [0, 0, 0, 0], 0.5)
    with pytest.raises(ValueError, match="level"):
        jackknife_minmax([1], [0], 1)


@pytest.mark.parametrize(("n", "noise"), [(12, "normal"), (12, "heavy"), (19, "normal"), (30, "normal")])
def test_the_interval_holds_the_label_as_often_as_it_says(n: int, noise: str) -> None:
    """A line through noisy points, refitted without each. 2,000 draws: the standard error is 0.006."""
    rng, held, draws = np.random.default_rng(n), 0, 2000
    level = best_level(n)
    for _ in range(draws):
        x = rng.normal(size=n + 1)
        y = 2 * x + (rng.normal(size=n + 1) if noise == "normal" else rng.standard_t(2, size=n + 1))
        asked, target, x, y = x[-1], y[-1], x[:-1], y[:-1]
        kept = ~np.eye(n, dtype=bool)
        xs, ys = (np.broadcast_to(v, (n, n))[kept].reshape(n, n - 1) for v in (x, y))
        slope = ((xs - xs.mean(1, keepdims=True)) * ys).sum(1) / ((xs - xs.mean(1, keepdims=True)) ** 2).sum(1)
        start = ys.mean(1) - slope * xs.mean(1)
        low, high = jackknife_minmax(start + slope * asked, y - (start + slope * x), level)
        held += low <= target <= high
    assert held / draws >= level - 0.018


def test_p_of_all_permutations_is_exact() -> None:
    """Of three labels: the observed errors among those of all six."""
    labels = np.array([0.0, 1, 2])
    guesses = np.array([[0.1, 1.2, 1.9], [2.0, 1, 0]])
    every = [
        [np.abs(guess - labels[list(order)]).mean() for guess in guesses] for order in itertools.permutations(range(3))
    ]
    alone, corrected = permutation_p(np.array(every[0]), np.array(every[1:]))
    assert alone[0] == 1 / 6
    assert alone[1] == 1
    assert corrected == 2 / 6, "the second way reaches 1/6 with the labels turned round"


def test_p_is_uniform_where_labels_mean_nothing() -> None:
    """Two ways of guessing, one the twin of the other: alone and corrected p are below a tenth in a tenth of draws."""
    rng, draws = np.random.default_rng(0), 800
    found = []
    for _ in range(draws):
        labels, guesses = rng.normal(size=8), rng.normal(size=(2, 8))
        shuffled = np.stack([rng.permutation(labels) for _ in range(99)])
        errors = np.abs(guesses - labels).mean(1)
        alone, corrected = permutation_p(errors, np.abs(guesses - shuffled[:, None]).mean(2))
        found.append((*alone, corrected))
    for ps in np.array(found).T:
        for level in (0.1, 0.5):
            assert abs((ps <= level).mean() - level) < 3.5 * np.sqrt(level * (1 - level) / draws)


def test_equal_errors_are_ties() -> None:
    alone, corrected = permutation_p(np.array([0.1 + 0.2]), np.array([[0.3]] * 9))
    assert alone[0] == corrected == 1
