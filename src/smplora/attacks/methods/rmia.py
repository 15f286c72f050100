"""RMIA: by how much does the adapter raise the image's probability, compared with other images? (Zarifzadeh et al. 2024)

    LR(x, z) = (p(x | theta) / p(x)) / (p(z | theta) / p(z)),    score(x) = share of population images z with LR > gamma
    p(x) = ((1 + a) p_out(x) + (1 - a)) / 2,    p_out(x) = mean of p(x | shadow) over shadows that never saw x

Offline form of arXiv 2312.03262. Constants are those of the authors' tool (privacytrustlab/ml_privacy_meter at e384af8,
attacks.py): gamma = 1, a out of 0, 0.1, .. 1, the first of the best. Their experiments had gamma = 2 on confidences; the
scale of p is a convention here, so that only 1 means the same (decision 024).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit  # type: ignore[import-untyped,unused-ignore]

from smplora.attacks.base import Access, AttackInfo
from smplora.attacks.shadow_comparison import Comparison, ShadowAttack
from smplora.core.arrays import Bools, Floats
from smplora.statistics.curves import auc

GAMMA = 1.0
FACTORS = np.linspace(0, 1, 11)  # what a is chosen from


def prior(outside: Floats, factor: float) -> Floats:
    """p(x) of p_out(x) and a: the mean of p_out and p_in = a p_out + 1 - a, which is a guess, since there are no shadows
    that saw x."""
    mean: Floats = ((1 + factor) * outside + 1 - factor) / 2
    return mean


def dominated(ratios: Floats, population: Floats, gamma: float = GAMMA) -> Floats:
    """Share of the population that x dominates: most of the columns have LR(x, z) > gamma (the paper's vote over several
    queries of one image; half of them is not most).

    Args:
        ratios: p(x | theta) / p(x), [n, k].
        population: p(z | theta) / p(z), [m, k].

    Returns:
        [n], in [0, 1].
    """
    votes = np.zeros((len(ratios), len(population)), dtype=np.int32)
    for own, others in zip(ratios.T, population.T, strict=True):
        votes += own[:, None] > gamma * others[None]
    shares: Floats = (2 * votes > ratios.shape[1]).mean(1)
    return shares


class Population:
    """The share of population images that x dominates.

    Classifiers give p(x | theta) by themselves; here it is 1 / (1 + exp(-phi)), the inverse of the logarithm of odds that
    LiRA compares, of each column phi after it was standardised by the population's mean and spread under the adapter.
    The population are the non-members of the half that is fitted on, where the authors have images of their own.
    """

    def fit(self, signals: Floats, is_member: Bools) -> Population:
        """``signals`` as of ``Comparison.packed``; chooses a too."""
        compared = Comparison.unpacked(signals)
        outside = compared.target[~is_member]
        self.centre, self.spread = outside.mean(0), np.maximum(outside.std(0), 1e-12)
        self.factor = self._best_factor(compared)
        self.population = self._ratios(compared)[~is_member]
        return self

    def score(self, signals: Floats, gamma: float = GAMMA) -> Floats:
        """[n, 1 + N, k + 1] -> [n], in [0, 1]."""
        return dominated(self._ratios(Comparison.unpacked(signals)), self.population, gamma)

    def _ratios(self, compared: Comparison, factor: float | None = None) -> Floats:
        """p(x | theta) / p(x), [n, k]."""
        target, shadows = (expit((phi - self.centre) / self.spread) for phi in (compared.target, compared.shadows))
        outside = Comparison(target, shadows, compared.is_in).mean(False)
        ratios: Floats = target / prior(outside, self.factor if factor is None else factor)
        return ratios

    def _best_factor(self, compared: Comparison) -> float:
        """The a with the highest mean AUC where each shadow in turn is attacked with the help of the others: which images
        it trained on is known. (The authors attack one of them with one other.)"""
        means = []
        for factor in FACTORS:
            means.append(np.mean([self._auc_against(compared, j, factor) for j in range(compared.is_in.shape[1])]))
        return float(FACTORS[int(np.argmax(np.round(means, 12)))])

    def _auc_against(self, compared: Comparison, shadow: int, factor: float) -> float:
        others = np.arange(compared.is_in.shape[1]) != shadow
        as_target = Comparison(compared.shadows[:, shadow], compared.shadows[:, others], compared.is_in[:, others])
        is_member, ratios = compared.is_in[:, shadow], self._ratios(as_target, factor)
        return auc(dominated(ratios, ratios[~is_member]), is_member)


class RMIAAttack(ShadowAttack):
    """Offline: shadows without the image, and a population of non-members."""

    about = AttackInfo(
        title="RMIA, offline",
        access=Access.GREY_BOX,  # that of the compared signal
        reference="Zarifzadeh et al. 2024",
        bibtex="""@inproceedings{zarifzadeh2024low,
  title={Low-Cost High-Power Membership Inference Attacks},
  author={Zarifzadeh, Sajjad and Liu, Philippe and Shokri, Reza},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv 2312.03262}}""",
    )

    def scorer(self, seed: int) -> Any:
        """The population is that of aux."""
        return Population()
