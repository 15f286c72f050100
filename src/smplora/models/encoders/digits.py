"""Image feature extractors for FID and KID: pictures in, one feature vector per picture out."""

from __future__ import annotations

from itertools import pairwise

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from smplora.core.files import ASSETS

EXTRACTOR_FILE = ASSETS / "extractor.safetensors"


class DigitFeatures(nn.Module):
    """Small convolutional network whose 64 pooled activations serve FID and KID of the bundled model.

    Trained by ``scripts/build_tiny_model.py`` to name digit (0 to 4) and quarter turn of a picture: the turns make
    it look at shape, the private digits 5 to 9 stay unseen. Each feature is scaled to mean 0 and deviation 1 over the
    digits 0 to 4.
    """

    num_features = 64  # torchmetrics reads this name

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        widths = (3, 16, 32, self.num_features)
        self.body = nn.Sequential(
            *(
                layer
                for i, o in pairwise(widths)
                for layer in (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.GroupNorm(8, o), nn.SiLU())
            ),
            nn.Conv2d(self.num_features, self.num_features, 3, padding=1),
        )
        self.centre: Tensor
        self.scale: Tensor
        self.head = nn.Linear(self.num_features, classes)
        self.register_buffer("centre", torch.zeros(self.num_features))
        self.register_buffer("scale", torch.ones(self.num_features))

    def forward(self, images: Tensor) -> Tensor:
        """Features of ``images`` [b, 3, h, w] in [0, 1], any size -> [b, 64]."""
        return (self._grid(images).mean((2, 3)) - self.centre) / self.scale

    def patches(self, images: Tensor) -> Tensor:
        """Features of each of the 16 fields whose mean ``forward`` takes -> [b, 16, 64]."""
        return (self._grid(images).flatten(2).mT - self.centre) / self.scale

    def _grid(self, images: Tensor) -> Tensor:
        pixels = nn.functional.interpolate(images, size=(32, 32), mode="bilinear", antialias=True, align_corners=False)
        grid: Tensor = self.body(pixels * 2 - 1)
        return grid

    def classify(self, images: Tensor) -> Tensor:
        """Class logits, used in training only -> [b, classes]."""
        logits: Tensor = self.head(nn.functional.silu(self.forward(images)))
        return logits


def load_digit_features() -> DigitFeatures:
    """The bundled extractor, frozen, in evaluation mode."""
    extractor = DigitFeatures()
    extractor.load_state_dict(load_file(EXTRACTOR_FILE))
    return extractor.eval().requires_grad_(False)
