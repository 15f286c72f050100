"""What guesses about one run prove, by three bounds: Steinke et al.'s epsilon, Mahloujifar et al.'s mu, and Xiang et
al.'s mu, which takes the noise of different records for independent.

    python benchmarks/one_run.py [--simulations 400] [--candidates 1000]     -> benchmarks/results/one_run.json

"published": Xiang et al.'s own table (arXiv 2509.08704; mu = 1, delta = 1e-5), their epsilon beside ours of the same
bound. Then simulated mechanisms, each with its true value, the median bound and the share of runs in which the bound
exceeds the truth, at 95 % confidence: "randomised_response" (every coin is told rightly with probability
e^eps / (1 + e^eps)), "gaussian" (every coin is seen through noise of its own; the quarter farthest from the middle is
guessed), and "shared" (one draw decides for all records whether their coins are told at all, as one training run's
randomness is shared: mu of the whole is small, and a bound must know).

Xiang et al.'s bound for Gaussian noise: of n candidates the r that lie farthest out are guessed, u of them wrongly.
p = E[P(Bin(r, g(W)) <= u)], W ~ Beta(n - r, r + 1) the rank of the nearest that was not guessed, and g(w) =
Phi(-mu/2 - c) / (1 - w) where 1 - w = Phi(mu/2 - c) + Phi(-mu/2 - c); the bound is the largest mu with p below 5 %. The
closed form of g is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
from scipy.stats import beta, binom, norm

from common import command, parser, write_result
from smplora.statistics.epsilon import one_run_epsilon
from smplora.statistics.f_dp import gaussian_epsilon, one_run_mu

LEVEL, POINTS, DELTA = 0.95, 200, 1e-5
TABLE = ((1000, 100, 10, 3.1645), (1000, 250, 36, 3.6327), (1000, 500, 103, 3.7557), (1000, 1000, 309, 3.6700),
         (10000, 2500, 364, 4.1371))  # fmt: skip


def independent_mu(guesses: int, right: int, candidates: int) -> float:
    """Xiang et al.'s bound."""
    wrong, low, high = guesses - right, 1e-6, 16.0
    if _independent_p(low, wrong, guesses, candidates) >= 1 - LEVEL:
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        rejected = _independent_p(middle, wrong, guesses, candidates) < 1 - LEVEL
        low, high = (middle, high) if rejected else (low, middle)
    return low


def _independent_p(mu: float, wrong: int, guesses: int, candidates: int) -> float:
    if guesses == candidates:
        return float(binom.cdf(wrong, candidates, norm.cdf(-mu / 2)))
    cuts = np.linspace(0, mu / 2 + 8, 4000)  # c, farther out with w
    above = norm.cdf(mu / 2 - cuts) + norm.cdf(-mu / 2 - cuts)
    ranks = beta.ppf((np.arange(POINTS) + 0.5) / POINTS, candidates - guesses, guesses + 1)
    cut = np.interp(-(1 - ranks), -above, cuts)
    return float(binom.cdf(wrong, guesses, norm.cdf(-mu / 2 - cut) / (1 - ranks)).mean())


def bounds(guesses: int, right: int, candidates: int) -> dict[str, float]:
    """All three."""
    return {
        "steinke_epsilon": one_run_epsilon(guesses, right, candidates),
        "mahloujifar_mu": one_run_mu(guesses, right, candidates),
        "xiang_mu": independent_mu(guesses, right, candidates),
    }


def randomised_response(epsilon: float, candidates: int, rng: np.random.Generator) -> tuple[int, int]:
    """(guesses, right)."""
    return candidates, int(rng.binomial(candidates, exp(epsilon) / (1 + exp(epsilon))))


def gaussian(mu: float, candidates: int, rng: np.random.Generator) -> tuple[int, int]:
    """The quarter with the largest scores on either side is guessed."""
    inside = rng.random(candidates) < 0.5
    scores = rng.normal(size=candidates) + mu * (inside - 0.5)
    chosen = np.argsort(-np.abs(scores))[: candidates // 4]
    return len(chosen), int((inside[chosen] == (scores[chosen] > 0)).sum())


def shared(told: float, candidates: int, rng: np.random.Generator) -> tuple[int, int]:
    """With probability ``told`` every coin is seen with 95 % reliability, else none at all."""
    return candidates, int(rng.binomial(candidates, 0.95 if rng.random() < told else 0.5))


def mu_of_shared(told: float, reliability: float = 0.95) -> float:
    """The smallest mu whose trade-off curve lies below that of one record of ``shared``."""
    wrong, right = told * (1 - reliability), told * reliability
    alpha = np.array([wrong, wrong + 1 - told])  # the corners of the curve, where a Gaussian's touches it
    missed = 1 - right - np.array([0.0, 1 - told])
    return float((norm.ppf(1 - alpha) - norm.ppf(missed)).max())


def simulated(
    mechanism: Callable[[float, int, np.random.Generator], tuple[int, int]], value: float, runs: int, candidates: int,
    truth: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Median of each bound, and how often it exceeds the truth."""
    rng = np.random.default_rng(0)
    found = [bounds(*mechanism(value, candidates, rng), candidates) for _ in range(runs)]
    return {
        name: {
            "true": round(truth[name], 3),
            "median": round(float(np.median([f[name] for f in found])), 3),
            "above": round(float(np.mean([f[name] > truth[name] + 1e-3 for f in found])), 3),
        }
        for name in truth
    }


def main(arguments: list[str] | None = None) -> None:
    """Compute and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--simulations", type=int, default=400)
    options.add_argument("--candidates", type=int, default=1000)
    args = options.parse_args(arguments)
    size = (args.simulations, args.candidates)
    published = [
        {
            "candidates": n, "guesses": r, "wrong": u, "their_epsilon": theirs,
            "our_epsilon": round(gaussian_epsilon(independent_mu(r, r - u, n), DELTA), 4),
            "mahloujifar_epsilon": round(gaussian_epsilon(one_run_mu(r, r - u, n), DELTA), 4),
        }
        for n, r, u, theirs in TABLE
    ]  # fmt: skip
    responses = {}
    for epsilon in (1.0, 3.0):  # of mu: the Gaussian through the corner of randomised response
        mu = 2 * float(norm.ppf(exp(epsilon) / (1 + exp(epsilon))))
        truth = {"steinke_epsilon": epsilon, "mahloujifar_mu": mu, "xiang_mu": mu}
        responses[f"epsilon {epsilon:g}"] = simulated(randomised_response, epsilon, *size, truth)
    gaussians = {
        f"mu {mu:g}": simulated(gaussian, mu, *size, {"mahloujifar_mu": mu, "xiang_mu": mu}) for mu in (1.0, 2.0, 3.0)
    }
    shares = {}
    for told in (0.06, 0.2, 0.5):
        mu = mu_of_shared(told)
        truth = {"steinke_epsilon": log(0.95 / 0.05), "mahloujifar_mu": mu, "xiang_mu": mu}
        shares[f"told with probability {told:g}"] = simulated(shared, told, *size, truth)
    record = {
        "command": command(options, args, always=["simulations", "candidates"]),
        "published": published,
        "randomised_response": responses,
        "gaussian": gaussians,
        "shared": shares,
    }
    write_result(args.results, "one_run", record)


if __name__ == "__main__":
    main()
