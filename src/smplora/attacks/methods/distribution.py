"""Is the image where generated images are, rather than where held-out ones are? For adapters that never saw it.

An adapter that was distilled, or trained on drawn images, has no single image by heart, but what it draws lies closer to
the images that its teacher saw than to others (Li et al. 2025). So whole sets are compared: kernel mean embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from smplora.attacks.base import Access, AttackInfo, BlackBoxView
from smplora.attacks.methods.reconstruction import GUIDANCE, STEPS, ReconstructionAttack
from smplora.core.arrays import Bools, Floats
from smplora.statistics.curves import auc

WIDTHS = (0.25, 0.5, 1.0, 2.0)  # of the kernel, in median distances


class Witness:
    """f(x) = mean over generated g of k(x, g) - mean over held-out h of k(x, h): the witness of their maximum mean
    discrepancy, k(x, y) = exp(-||x - y||^2 / (2 (w m)^2)), with m the median distance of g and h.

    Generated from the captions of everything that it is fitted on, members or not, and h are the non-members there; w is
    the width with the AUC farthest from 0.5 among these images. The authors train a deep kernel instead, and test whole
    sets; here the AUC of f is that test: its p is by the labels of the set. Source of f: Gretton et al. 2012, "A Kernel
    Two-Sample Test", Sec. 2.3.
    """

    def fit(self, signals: Floats, is_member: Bools) -> Witness:
        """``signals`` [n, 2, d]: the image's embedding, and that of one generated from its caption."""
        self.generated, self.held_out = signals[:, 1], signals[~is_member, 0]
        self.median = max(float(np.median(cdist(self.generated, self.held_out))), 1e-12)
        own = signals[:, 0]
        # an image among h is no stranger to itself: it is left out of its own mean
        self.width = max(WIDTHS, key=lambda w: abs(auc(self._witness(own, w, own_rows=~is_member), is_member) - 0.5))
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, 2, d] -> [n]."""
        return self._witness(signals[:, 0], self.width)

    def _witness(self, images: Floats, width: float, own_rows: Bools | None = None) -> Floats:
        near, far = (self._kernel(images, others, width) for others in (self.generated, self.held_out))
        counts = np.full(len(images), far.shape[1], float)
        if own_rows is not None:
            far[np.flatnonzero(own_rows), np.arange(far.shape[1])] = 0
            counts[own_rows] = max(far.shape[1] - 1, 1)
        witness: Floats = near.mean(1) - far.sum(1) / counts
        return witness

    def _kernel(self, one: Floats, other: Floats, width: float) -> Floats:
        values: Floats = np.exp(-((cdist(one, other) / (width * self.median)) ** 2) / 2)
        return values


@dataclass(frozen=True)
class DistributionAttack(ReconstructionAttack):
    """The witness of generated against held-out images."""

    info = AttackInfo(
        title="Nearer to generated images than held-out ones are, variant with a fixed kernel",
        access=Access.BLACK_BOX,
        reference="after Li et al. 2025",
        bibtex="""@article{li2025distributional,
  title={Membership Inference Attack Should Move On to Distributional Statistics for Distilled Generative Models},
  author={Li, Muxing and Ye, Zesheng and Li, Yixuan and Song, Andy and Zhang, Guangquan and Liu, Feng},
  journal={arXiv preprint arXiv:2502.02970}, year={2025}}""",
    )

    def signals(self, view: BlackBoxView) -> Floats:
        """Embeddings of the image and of one generated from its caption: [b, 2, d]."""
        own = self.encoder.embedding(view.pixels / 2 + 0.5)
        made = self.encoder.embedding(view.generate("image0", num_inference_steps=STEPS, guidance_scale=GUIDANCE))
        return np.stack([own.double().numpy(), made.double().numpy()], 1)

    def scorer(self, seed: int) -> Witness:
        """Its width is fitted."""
        return Witness()
