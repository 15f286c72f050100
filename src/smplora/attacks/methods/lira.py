"""LiRA: is the adapter's signal more like those of shadows that trained on the image? (Carlini et al. 2022)"""

from __future__ import annotations

from typing import Any

import numpy as np

from smplora.attacks.base import Access, AttackInfo
from smplora.attacks.shadow_comparison import Comparison, ShadowAttack
from smplora.core.arrays import Bools, Floats

MANY = 64  # shadows; with fewer an image's own spread says less than that of all images together


class Spread:
    """Standard deviations of the signals of shadows that all have an image, or all lack it, around their mean.

    With fewer than ``MANY`` shadows pooled over images, per column: sigma^2 = sum of squared residuals / sum of (m - 1)
    with m shadows an image. With more, each image has its own.
    """

    def __init__(self, compared: Comparison, inside: bool) -> None:
        """``compared`` are the samples to pool over."""
        self.inside = inside
        squares, freedom = self._residuals(compared)
        self.pooled = np.maximum(squares.sum(0) / freedom.sum(), 1e-24)  # [k]

    def _residuals(self, compared: Comparison) -> tuple[Floats, Floats]:
        """Sums of squared residuals [n, k] and their degrees of freedom [n]."""
        chosen = compared.is_in == self.inside
        residuals = compared.shadows - compared.mean(self.inside)[:, None]
        return (residuals**2 * chosen[..., None]).sum(1), chosen.sum(1) - 1

    def variances(self, compared: Comparison) -> Floats:
        """For each sample: [n, k]."""
        if compared.is_in.shape[1] < MANY:
            return np.broadcast_to(self.pooled, compared.target.shape)
        squares, freedom = self._residuals(compared)
        return np.maximum(squares / freedom[:, None], 1e-24)


class LikelihoodRatio:
    """sum over columns of log N(phi; mu_in, sigma_in^2) - log N(phi; mu_out, sigma_out^2).

    mu_in and mu_out are means over the shadows that were, and were not, trained on the image; no membership in the
    adapter under audit is used. Spreads are pooled over aux.
    """

    def fit(self, signals: Floats, is_member: Bools) -> LikelihoodRatio:
        """``signals`` as of ``Comparison.packed``."""
        compared = Comparison.unpacked(signals)
        self.spreads = {inside: Spread(compared, inside) for inside in (True, False)}
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, 1 + N, k + 1] -> [n]."""
        compared = Comparison.unpacked(signals)
        inside, outside = (self._log_density(compared, side) for side in (True, False))
        return inside - outside

    def _log_density(self, compared: Comparison, inside: bool) -> Floats:
        variances = self.spreads[inside].variances(compared)
        distances = (compared.target - compared.mean(inside)) ** 2 / variances
        log_densities: Floats = -(distances + np.log(2 * np.pi * variances)).sum(1) / 2
        return log_densities


class Deviation(LikelihoodRatio):
    """Mean over columns of (phi - mu_out) / sigma_out.

    With one column Carlini et al.'s 1 - Pr[Z > phi], Z ~ N(mu_out, sigma_out^2), is Phi of this: the same ranking,
    which Phi would round to 1 where it matters most.
    """

    def score(self, signals: Floats) -> Floats:
        """[n, 1 + N, k + 1] -> [n]."""
        compared = Comparison.unpacked(signals)
        deviations = np.sqrt(self.spreads[False].variances(compared))
        scores: Floats = ((compared.target - compared.mean(False)) / deviations).mean(1)
        return scores


class LiRAAttack(ShadowAttack):
    """Online: shadows with and without each image."""

    about = AttackInfo(
        title="LiRA, online",
        access=Access.GREY_BOX,  # that of the compared signal
        reference="Carlini et al. 2022",
        bibtex="""@inproceedings{carlini2022membership,
  title={Membership Inference Attacks From First Principles},
  author={Carlini, Nicholas and Chien, Steve and Nasr, Milad and Song, Shuang and Terzis, Andreas and Tram{\\`e}r, Florian},
  booktitle={IEEE Symposium on Security and Privacy}, year={2022}}""",
    )

    def scorer(self, seed: int) -> Any:
        """Gaussians, whose spread is that of shadows."""
        return LikelihoodRatio()


class OfflineLiRAAttack(ShadowAttack):
    """Offline: only shadows without the image, as somebody has who trained them before knowing the image."""

    about = AttackInfo(
        title="LiRA, offline",
        access=Access.GREY_BOX,
        reference=LiRAAttack.about.reference,
        bibtex=LiRAAttack.about.bibtex,
    )

    def scorer(self, seed: int) -> Any:
        """A Gaussian, whose spread is that of shadows."""
        return Deviation()
