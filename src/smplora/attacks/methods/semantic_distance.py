"""II-S: does the image generated from its caption mean the same? (Wu et al. 2022, attack II-S)

Black box: distance of the embeddings of the image and of one image generated from its caption.
"""

from __future__ import annotations

from dataclasses import dataclass

from smplora.attacks.base import Access, AttackInfo, BlackBoxView, Scorer
from smplora.attacks.classifiers import Perceptron
from smplora.attacks.methods.reconstruction import GUIDANCE, STEPS, ReconstructionAttack
from smplora.core.arrays import Floats


@dataclass(frozen=True)
class SemanticDistanceAttack(ReconstructionAttack):
    """A perceptron of three layers on ||embedding(x) - embedding(generated)||_2."""

    info = AttackInfo(
        title="II-S, distance of embeddings",
        access=Access.BLACK_BOX,
        reference="Wu et al. 2022",
        bibtex="""@article{wu2022membership,
  title={Membership Inference Attacks Against Text-to-image Generation Models},
  author={Wu, Yixin and Yu, Ning and Li, Zheng and Backes, Michael and Zhang, Yang},
  journal={arXiv preprint arXiv:2210.00968}, year={2022}}""",
    )

    def signals(self, view: BlackBoxView) -> Floats:
        """The negative distance: [b, 1]."""
        own = self.encoder.embedding(view.pixels / 2 + 0.5)
        made = view.generate("image0", num_inference_steps=STEPS, guidance_scale=GUIDANCE)
        difference = own - self.encoder.embedding(made)
        return -difference.square().sum(1, keepdim=True).sqrt().double().numpy()

    def scorer(self, seed: int) -> Scorer:
        """As in the paper: Adam at 1e-4, 200 epochs."""
        return Perceptron(seed)
