"""What one run proves under f-differential privacy: golden values, and mechanisms whose privacy is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from smplora.statistics.epsilon import one_run_epsilon
from smplora.statistics.f_dp import gaussian_epsilon, one_run_mu


@pytest.mark.parametrize(
    ("candidates", "right", "guesses", "golden"),
    [
        (100, 90, 100, 0.841376),
        (200, 140, 200, 0.328972),
        (1000, 80, 100, 0.364326),
        (500, 60, 70, 0.477672),
    ],
)
def test_golden_values(candidates: int, right: int, guesses: int, golden: float) -> None:
    """Of ``audit_rh_with_cap`` in Meta's privacy_guard (analysis/mia/fdp_analysis_node.py, MIT), whose noise was
    bisected until it neither passes nor fails: mu is 1 / noise."""
    assert one_run_mu(guesses, right, candidates) == pytest.approx(golden, abs=1e-5)


@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_it_is_a_bound_for_the_gaussian_mechanism_and_tighter_than_epsilon(mu: float) -> None:
    """m coordinates of N(coin * mu, 1), each guessed "in" above mu / 2: right with probability Phi(mu / 2)."""
    rng, m, delta = np.random.default_rng(0), 400, 1e-5
    right = rng.binomial(m, norm.cdf(mu / 2), 200)
    bounds = {k: one_run_mu(m, k, m) for k in set(map(int, right))}
    assert np.mean([bounds[int(k)] > mu for k in right]) <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 200)
    typical = int(m * norm.cdf(mu / 2))
    proven = gaussian_epsilon(bounds.get(typical) or one_run_mu(m, typical, m), delta)
    assert one_run_epsilon(m, typical, m, delta) < proven < gaussian_epsilon(mu, delta)


def test_it_is_a_bound_for_randomised_response() -> None:
    """Answers that are true with probability e / (1 + e) are epsilon-private; the mu of those answers is known."""
    rng, m, chance = np.random.default_rng(1), 300, math.e / (1 + math.e)
    true_mu = 2 * norm.ppf(chance)  # any mu-GDP mechanism whose tests are right so often has at least this mu
    right = rng.binomial(m, chance, 300)
    assert np.mean([one_run_mu(m, int(k), m) > true_mu for k in right]) <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize(("mu", "delta"), [(0.5, 1e-5), (1.5, 1e-5), (3.0, 1e-3)])
def test_epsilon_of_mu_is_where_the_curve_meets_delta(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    found = norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * norm.cdf(-epsilon / mu - mu / 2)
    assert found == pytest.approx(delta, rel=1e-3)


def test_extremes() -> None:
    assert one_run_mu(0, 0, 50) == one_run_mu(50, 0, 50) == one_run_mu(50, 25, 50) == 0
    assert one_run_mu(50, 50, 50, level=0.99) < one_run_mu(50, 50, 50)
    assert (gaussian_epsilon(0.0, 1e-5), gaussian_epsilon(1.0, 0.0)) == (0.0, math.inf)
    for bad in (
        lambda: one_run_mu(5, 6, 10),
        lambda: one_run_mu(5, 4, 5, level=1.0),
        lambda: gaussian_epsilon(-1, 0.1),
    ):
        with pytest.raises(ValueError, match=r"need|level"):
            bad()
