"""GSA as its authors run it: trees learn on shadow adapters, whose training images are known, and are carried over to
the adapter under audit (Pang et al. 2025)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from smplora.attacks.base import Access, AttackInfo
from smplora.attacks.methods.gsa import TREES, GSA1Attack
from smplora.attacks.scorers import Boosted
from smplora.attacks.shadow_comparison import Comparison, ShadowAttack
from smplora.core.arrays import Bools, Floats


class CarriedOver:
    """Boosted trees that tell a shadow's training images from others by its gradient norms.

    Rows are (image, shadow), labels whether that shadow was trained on that image; columns are scaled to mean 0 and
    deviation 1, those of all shadows together, those of the adapter by its own images, as in the authors' code. They
    keep 30 % of the rows aside to look at; here all are learned from. Nobody's membership in the adapter is used.
    """

    def __init__(self, trees: Boosted) -> None:
        """``trees`` are to be fitted."""
        self.trees = trees

    def fit(self, signals: Floats, is_member: Bools) -> CarriedOver:
        """``signals`` as of ``Comparison.packed``."""
        compared = Comparison.unpacked(signals)
        rows = compared.shadows.reshape(-1, compared.shadows.shape[2])
        self.trees.fit(scaled(rows, rows), compared.is_in.reshape(-1))
        self.seen = compared.target
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, 1 + N, k + 1] -> [n]."""
        return self.trees.score(scaled(Comparison.unpacked(signals).target, self.seen))


def scaled(rows: Floats, by: Floats) -> Floats:
    """``rows`` [n, k] by the columns' means and deviations in ``by`` [m, k]."""
    columns: Floats = (rows - by.mean(0)) / np.maximum(by.std(0), 1e-12)
    return columns


class GSA1ShadowsAttack(ShadowAttack):
    """GSA1 with shadow adapters."""

    own_signal = "gsa1"
    about = AttackInfo(
        title="GSA1 trained on shadow adapters",
        access=Access.WHITE_BOX,
        reference="Pang et al. 2025",
        bibtex=GSA1Attack.info.bibtex,
        fitted_on="shadow adapters",
    )

    def scorer(self, seed: int) -> CarriedOver:
        """XGBoost's defaults, 200 trees, as in the paper."""
        return CarriedOver(Boosted(seed, n_estimators=TREES))


class GSA2ShadowsAttack(GSA1ShadowsAttack):
    """GSA2 with shadow adapters."""

    own_signal = "gsa2"
    about = replace(GSA1ShadowsAttack.about, title="GSA2 trained on shadow adapters")
