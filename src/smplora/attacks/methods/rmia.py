"""RMIA: is the image more likely under the adapter than under its shadows, compared with other images? (Zarifzadeh et
al. 2024)"""

from __future__ import annotations

from typing import Any

import numpy as np

from smplora.attacks.base import Access, AttackInfo
from smplora.attacks.shadow_comparison import Comparison, ShadowAttack
from smplora.core.arrays import Bools, Floats


class Population:
    """Share of population images z with log [p(x|theta) / p(x)] > log [p(z|theta) / p(z)], gamma = 1.

    Offline, for losses without bounds: log p(x) is the mean over shadows without x, log p the mean over columns. The
    softmax's term (1 - a) / 2 means nothing for such losses and is left out, and with it the choice of a: hence "variant".
    The population are the non-members of the half that it is fitted on; the paper has images of its own.
    """

    def fit(self, signals: Floats, is_member: Bools) -> Population:
        """``signals`` as of ``Comparison.packed``."""
        self.population = np.sort(gains(Comparison.unpacked(signals[~is_member])))
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, 1 + N, k + 1] -> [n], in [0, 1]."""
        below = np.searchsorted(self.population, gains(Comparison.unpacked(signals)), side="left")
        scores: Floats = below / len(self.population)
        return scores


def gains(compared: Comparison) -> Floats:
    """How much likelier the adapter makes each sample than shadows without it do: [n]."""
    means: Floats = (compared.target - compared.mean(False)).mean(1)
    return means


class RMIAAttack(ShadowAttack):
    """Offline: shadows without the image, and a population of non-members."""

    about = AttackInfo(
        title="RMIA, offline, variant for losses",
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
