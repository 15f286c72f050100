"""Classifiers that attacks train on images of errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from smplora.core.arrays import Bools, Floats
from smplora.core.device import reproducible
from smplora.core.random_streams import generator, stream_seed

AT_ONCE = 64  # images that are scored
WIDTHS, DEPTHS = (64, 128, 256, 512), (2, 2, 2, 2)  # of ResNet-18


PERCEPTRON = {"hidden_layer_sizes": (128, 64), "learning_rate_init": 1e-4, "max_iter": 200, "batch_size": 8}


class Perceptron:
    """Three layers on standardised signals, Adam: the log-odds of membership."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, signals: Floats, is_member: Bools) -> Perceptron:
        """``signals`` [n, k]."""
        network = MLPClassifier(random_state=self.seed % 2**32, n_iter_no_change=10**6, **PERCEPTRON)
        with warnings.catch_warnings():  # the epochs are those of the paper, converged or not
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model: Any = make_pipeline(StandardScaler(), network).fit(signals, is_member)
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        logs = self.model.predict_log_proba(signals)
        scores: Floats = logs[:, 1] - logs[:, 0]
        return scores


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where shapes change (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *_convolution(inputs, width, 3, stride), nn.ReLU(), *_convolution(width, width, 3, 1)
        )  # fmt: skip
        same = stride == 1 and inputs == width
        self.shortcut = nn.Sequential(*([] if same else _convolution(inputs, width, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs, h, w] -> [b, width, h / stride, w / stride]."""
        return F.relu(self.path(x) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """A ResNet for small images: the first convolution is 3 x 3 and keeps their size, each further stage halves it.

    Windows of 4 x 4 are averaged, what is left over at the edge of the last map is not seen (as the papers' networks have
    it), and windows are averaged again, which are one in the papers.
    """

    def __init__(self, channels: int, outputs: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        layers = [*_convolution(channels, widths[0], 3, 1), nn.ReLU()]
        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                layers.append(ResidualBlock(inputs, width, 2 if stage and not block else 1))
                inputs = width
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[b, channels, h, w] -> [b, outputs]."""
        maps = self.layers(x)
        logits: Tensor = self.head(F.avg_pool2d(maps, [min(4, edge) for edge in maps.shape[2:]]).mean((2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, edge: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, edge, stride, padding=edge // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a paper trains its ResNet-18, of which it takes the first ``stages``."""

    stages: int
    epochs: int
    batch: int | None  # images a step; None: all
    optimizer: str  # a class of torch.optim
    settings: Mapping[str, float]
    regression: bool  # one output that is to be 1 for members and 0 for others, by squared error; else a softmax of two


class ResNet:
    """A ResNet from scratch on signals [n, c, h, w]; of the last epoch. Fitted and asked on ``device``.

    The papers give signals as they are. Here they are divided by their spread on the fitting samples, one number for all:
    the first batch normalisation takes out any common factor, but for its epsilon of 1e-5, which would swallow errors of
    latents.
    """

    def __init__(self, seed: int, recipe: Recipe, device: torch.device) -> None:
        self.seed, self.recipe, self.device = seed, recipe, device

    def fit(self, signals: Floats, is_member: Bools) -> ResNet:
        """On shuffled batches; a batch of one image is left out, which batch normalisation may refuse."""
        self.spread = max(float(signals.std()), 1e-12)
        with reproducible(stream_seed(self.seed, "resnet"), self.device):
            self.network = self.fresh(signals.shape[1])
            orders = (
                torch.randperm(len(signals), generator=generator(self.seed, "resnet order", epoch))
                for epoch in range(self.recipe.epochs)
            )
            self.descend(self._scaled(signals), torch.from_numpy(is_member), orders)
        return self

    def fresh(self, channels: int) -> ResidualNetwork:
        """As it begins: drawn on the CPU, so that every device starts from the same."""
        stages, outputs = self.recipe.stages, 1 if self.recipe.regression else 2
        return ResidualNetwork(channels, outputs, WIDTHS[:stages], DEPTHS[:stages]).to(self.device)

    def descend(self, images: Tensor, is_member: Tensor, orders: Iterable[Tensor]) -> None:
        """Train ``network`` on images [n, c, h, w] for an epoch in each of the ``orders`` [n]."""
        self.network.train()
        optimizer = getattr(torch.optim, self.recipe.optimizer)(self.network.parameters(), **self.recipe.settings)
        for order in orders:
            for rows in order.split(self.recipe.batch or len(order)):
                if len(rows) > 1:
                    with torch.enable_grad():
                        logits = self.network(images[rows].to(self.device))
                        loss = self._loss(logits, is_member[rows].to(self.device))
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()

    def _loss(self, logits: Tensor, is_member: Tensor) -> Tensor:
        if self.recipe.regression:
            return F.mse_loss(logits[:, 0], is_member.to(logits))
        return F.cross_entropy(logits, (~is_member).long())

    @torch.no_grad()
    def score(self, signals: Floats) -> Floats:
        """[n, c, h, w] -> [n]: the output, or minus that for non-members, as the papers read them."""
        parts = self._scaled(signals).split(AT_ONCE)
        with reproducible(stream_seed(self.seed, "resnet"), self.device):
            logits = torch.cat([self.network.eval()(part.to(self.device)) for part in parts]).cpu().double().numpy()
        scores: Floats = logits[:, 0] if self.recipe.regression else -logits[:, 1]
        return scores

    def _scaled(self, signals: Floats) -> Tensor:
        return torch.from_numpy(signals / self.spread).float()
