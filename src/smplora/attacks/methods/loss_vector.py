"""The losses at several timesteps as a vector, to a classifier (multiple loss of Dubinski et al. 2025)

A defence that hides members in the average over timesteps may leave them easier at some and harder at others.
"""

from __future__ import annotations

from dataclasses import dataclass

from smplora.attacks.base import Access, AttackInfo
from smplora.attacks.methods.loss import LossAttack
from smplora.attacks.scorers import Logistic


@dataclass(frozen=True)
class LossVectorAttack(LossAttack):
    """Logistic regression on -l_ada(x; t) over t."""

    info = AttackInfo(
        title="Loss at each timestep, as a vector",
        access=Access.GREY_BOX,
        reference="multiple loss, Dubinski et al. 2025",
        bibtex="""@inproceedings{dubinski2025cdi,
  title={CDI: Copyrighted Data Identification in Diffusion Models},
  author={Dubi{\\'n}ski, Jan and Kowalczuk, Antoni and Boenisch, Franziska and Dziedzic, Adam},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition}, year={2025}, note={arXiv 2411.12858}}""",
    )

    def scorer(self, seed: int) -> Logistic:
        """Fitted on aux."""
        return Logistic()
