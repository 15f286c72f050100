"""How much would the model change without the image? Gradients preconditioned by their second moment (after Cohen and
Giryes 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smplora.attacks.base import Access, Attack, AttackInfo, WhiteBoxView
from smplora.attacks.methods.gsa import TIMESTEPS
from smplora.attacks.methods.loss import at_scale
from smplora.core.arrays import Bools, Floats

RIDGE = 1.0  # in mean eigenvalues of the second moment: directions that few images show are not trusted


class SelfInfluence:
    """s(x) = -g^T (F + r I)^-1 g, with g the gradient of the image's loss, F the mean of g g^T over the images that it is
    fitted on and r the mean of F's eigenvalues that are not zero.

    F stands for the Hessian, so that g^T F^-1 g is the image's influence on its own loss. Labels are not used. With X [n, k]
    the fitted gradients, (F + r I)^-1 = (I - X^T (X X^T + n r I)^-1 X) / r: n are fewer than k.
    """

    def fit(self, signals: Floats, is_member: Bools) -> SelfInfluence:
        """``signals`` [n, k]."""
        products, n = signals @ signals.T, len(signals)
        self.seen, self.ridge = signals, max(RIDGE * np.trace(products) / n / min(signals.shape), 1e-300)
        self.inverse = np.linalg.inv(products + n * self.ridge * np.eye(n))
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        along = signals @ self.seen.T
        scores: Floats = ((along @ self.inverse * along).sum(1) - (signals**2).sum(1)) / self.ridge
        return scores


@dataclass(frozen=True)
class SelfInfluenceAttack(Attack):
    """On the gradients that GSA looks at, in a random sketch that keeps inner products."""

    info = AttackInfo(
        title="Self-influence, gradients preconditioned by their second moment",
        access=Access.WHITE_BOX,
        reference="after Cohen and Giryes 2024",
        bibtex="""@inproceedings{cohen2024membership,
  title={Membership Inference Attack Using Self Influence Functions},
  author={Cohen, Gilad and Giryes, Raja},
  booktitle={IEEE/CVF Winter Conference on Applications of Computer Vision}, year={2024}, note={arXiv 2205.13680}}""",
    )

    def signals(self, view: WhiteBoxView) -> Floats:
        """Of the mean loss over timesteps, as GSA1: [b, buckets]."""
        draws = [f"gsa{k}" for k in range(len(TIMESTEPS))]
        steps = [at_scale(t, view.num_train_timesteps) for t in TIMESTEPS]
        return view.gradients(draws, steps, "adapter").sketch.double().numpy()

    def scorer(self, seed: int) -> SelfInfluence:
        """F is that of the images that it is fitted on."""
        return SelfInfluence()
