"""Classifiers that attacks train on images of errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from smplora.core.arrays import Bools, Floats
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


class ResNet:
    """A ResNet-18 from scratch: the log-odds of membership, of the last epoch. Signals [n, c, h, w], divided by their
    standard deviation per channel on the fitting samples."""

    def __init__(self, seed: int, *, epochs: int, batch: int | None, optimizer: str, **settings: float) -> None:
        """Args:
        batch: images a step; None: all.
        optimizer: a class of torch.optim, with ``settings``.
        """
        self.seed, self.epochs, self.batch, self.optimizer, self.settings = seed, epochs, batch, optimizer, settings

    def fit(self, signals: Floats, is_member: Bools) -> ResNet:
        """Cross entropy on shuffled batches; of the last epoch."""
        from transformers import ResNetConfig, ResNetForImageClassification

        self.centre = signals.mean((0, 2, 3), keepdims=True)
        self.scale = np.maximum(signals.std((0, 2, 3), keepdims=True), 1e-12)
        images, labels = self._prepared(signals), torch.from_numpy(is_member).long()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(stream_seed(self.seed, "resnet"))
            shape: Any = ResNetConfig(
                num_channels=images.shape[1], embedding_size=WIDTHS[0], hidden_sizes=list(WIDTHS), depths=list(DEPTHS),
                layer_type="basic", num_labels=2,
            )  # fmt: skip
            self.network: Any = ResNetForImageClassification(shape).train()
            optimizer = getattr(torch.optim, self.optimizer)(self.network.parameters(), **self.settings)
            for epoch in range(self.epochs):
                order = torch.randperm(len(images), generator=generator(self.seed, "resnet order", epoch))
                for rows in order.split(self.batch or len(order)):
                    if len(rows) < 2:  # batch normalisation needs company
                        continue
                    optimizer.zero_grad(set_to_none=True)
                    F.cross_entropy(self.network(images[rows]).logits, labels[rows]).backward()
                    optimizer.step()
        return self

    @torch.no_grad()
    def score(self, signals: Floats) -> Floats:
        """[n, c, h, w] -> [n]."""
        logits = torch.cat([self.network.eval()(part).logits for part in self._prepared(signals).split(AT_ONCE)])
        scores: Floats = (logits[:, 1] - logits[:, 0]).double().numpy()
        return scores

    def _prepared(self, signals: Floats) -> torch.Tensor:
        return torch.from_numpy((signals - self.centre) / self.scale).float()
