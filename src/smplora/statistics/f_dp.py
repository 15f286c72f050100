"""What one training run proves under f-differential privacy: tighter than epsilon and delta where noise is Gaussian.

A mechanism is f-private if no test tells a data set from one with another record better than the trade-off function f
allows. Here f is that of a Gaussian of unit variance shifted by mu (mu-GDP: Dong, Roth & Su 2022), as DP-SGD's is
nearly.
"""

from __future__ import annotations

from math import exp, inf

from scipy.special import ndtr, ndtri  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.inputs import check_level

LARGEST_MU, LARGEST_EPSILON, EXACT = 32.0, 700.0, 1e-6


def one_run_mu(guesses: int, right: int, candidates: int, level: float = 0.95) -> float:
    """Lower bound on mu from one training run in which fair coins decided who became a member.

    As ``epsilon.one_run_epsilon``: of ``candidates`` samples ``guesses`` were guessed (in or out), ``right`` of them
    rightly. The bound is the largest mu that the counts reject. With s = guesses / candidates, start from
    r = (1 - level) s right / guesses and h = (1 - level) s (guesses - right) / guesses; for i = right - 1 .. 0:
    h' = max(h, Phi(Phi^-1(r) - mu)), r' = r + i / (guesses - i) (h' - h); rejected if r + h exceeds s. It is found by
    bisection, to 1e-6. Source: Mahloujifar, Melis & Chaudhuri 2024, "Auditing f-Differential Privacy in One Run",
    Alg. 3 and 4, arXiv 2410.22235.

    Raises ValueError for impossible counts or a level outside (0, 1).
    """
    if not 0 <= right <= guesses <= candidates:
        raise ValueError(f"need 0 <= right <= guesses <= candidates, got {right}, {guesses} and {candidates}")
    check_level(level)
    if guesses == 0 or not _rejected(0.0, guesses, right, candidates, level):
        return 0.0
    low, high = 0.0, LARGEST_MU
    while high - low > EXACT:
        middle = (low + high) / 2
        low, high = (middle, high) if _rejected(middle, guesses, right, candidates, level) else (low, middle)
    return low


def _rejected(mu: float, guesses: int, right: int, candidates: int, level: float) -> bool:
    share = guesses / candidates
    r, h = ((1 - level) * share * part / guesses for part in (right, guesses - right))
    for i in range(right - 1, -1, -1):
        if r + h > share:  # both only grow
            return True
        higher = max(h, float(ndtr(ndtri(r) - mu)))
        r, h = r + i / (guesses - i) * (higher - h), higher
    return r + h > share


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon that goes with ``delta`` in mu-GDP, where Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu
    - mu / 2) = delta: infinite for delta 0. Source: Dong, Roth & Su 2022, "Gaussian Differential Privacy", Cor. 2.13.

    Raises ValueError for a negative mu or a delta outside [0, 1).
    """
    if mu < 0 or not 0 <= delta < 1:
        raise ValueError(f"need mu >= 0 and delta in [0, 1), got {mu} and {delta}")
    if mu == 0:
        return 0.0
    if delta == 0:
        return inf

    def beyond(epsilon: float) -> bool:
        return float(ndtr(-epsilon / mu + mu / 2)) - exp(epsilon) * float(ndtr(-epsilon / mu - mu / 2)) > delta

    low, high = 0.0, LARGEST_EPSILON
    if not beyond(low):
        return 0.0
    while high - low > EXACT:
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) else (low, middle)
    return low
