"""Quantile regression: is the loss lower than is usual for non-members that look like this image? (Bertran et al. 2023;
Tang et al. 2024)

One adapter, no shadows. The authors train networks on thousands of public images; an aux cell has tens or hundreds, so
that the regression here is linear, on a few features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import QuantileRegressor
from sklearn.preprocessing import StandardScaler

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.methods.loss import loss_vector
from smplora.core.arrays import Bools, Floats

LEVELS = (0.5, 0.7, 0.9)  # false positive rates of 50 % to 10 %; more extreme ones take more non-members
PENALTY = 0.01  # L1, on standardised features


class Quantiles:
    """s(x) minus the mean of the quantiles q_0.5(x), q_0.7(x), q_0.9(x) of a non-member like x, fitted on aux non-members.

    Each q_a(x) is linear in the features and minimises the pinball loss; at level a a member is declared where
    s(x) > q_a(x), which happens to a share 1 - a of non-members.
    """

    def fit(self, signals: Floats, is_member: Bools) -> Quantiles:
        """``signals`` [n, 1 + f]: s, then features."""
        outside = signals[~is_member]
        self.scaler = StandardScaler().fit(outside)
        scaled = self.scaler.transform(outside)
        self.models: list[Any] = [
            QuantileRegressor(quantile=level, alpha=PENALTY, solver="highs").fit(scaled[:, 1:], scaled[:, 0])
            for level in LEVELS
        ]
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, 1 + f] -> [n], in standard deviations of the non-members' s."""
        scaled = self.scaler.transform(signals)
        usual = np.mean([model.predict(scaled[:, 1:]) for model in self.models], 0)
        scores: Floats = scaled[:, 0] - usual
        return scores


def features(view: GreyBoxView) -> Floats:
    """What makes an image easy whoever trained on it: [b, 5]. Mean and spread of its grey values, how much neighbouring
    pixels differ, the spread of its latents, words of its caption."""
    grey = view.pixels.mean(1).double()
    texture = grey.diff(dim=1).abs().mean((1, 2)) + grey.diff(dim=2).abs().mean((1, 2))
    words = torch.tensor([float(len(caption.split())) for caption in view.captions]).double()
    latents = view.batch.mean.cpu().double().flatten(1).std(1)
    columns = (grey.mean((1, 2)), grey.flatten(1).std(1), texture, latents, words)
    return torch.stack([column.cpu() for column in columns], 1).numpy()


@dataclass(frozen=True)
class QuantileAttack(Attack):
    """s = mean over timesteps of -log l_adapted; the features include the base model's mean log loss."""

    num_timesteps: int = 8
    noise_pairs: int = 2
    info = AttackInfo(
        title="Quantile regression of the loss",
        access=Access.GREY_BOX,
        reference="Bertran et al. 2023; Tang et al. 2024",
        bibtex="""@inproceedings{bertran2023scalable,
  title={Scalable Membership Inference Attacks via Quantile Regression},
  author={Bertran, Martin and Tang, Shuai and Kearns, Michael and Morgenstern, Jamie and Roth, Aaron and Wu, Zhiwei Steven},
  booktitle={Advances in Neural Information Processing Systems}, year={2023}, note={arXiv 2307.03694}}
@inproceedings{tang2024membership,
  title={Membership Inference Attacks on Diffusion Models via Quantile Regression},
  author={Tang, Shuai and Wu, Zhiwei Steven and Aydore, Sergul and Kearns, Michael and Roth, Aaron},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv 2312.05140}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """s, the base model's log loss, ``features``: [b, 7]."""
        adapted, base = (
            loss_vector(view, self.num_timesteps, self.noise_pairs, adapted=which).double().log().mean(1).numpy()
            for which in (True, False)
        )
        return np.concatenate([-adapted[:, None], base[:, None], features(view)], 1)

    def scorer(self, seed: int) -> Quantiles:
        """Fitted on aux non-members."""
        return Quantiles()
