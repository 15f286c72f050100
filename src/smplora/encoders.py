"""What pictures look like to a network that has nothing to do with the audited model: patches and embeddings.

From transformers (BLIP, DeiT, CLIP, DINO ..), or the small bundled extractor, which serves the bundled model.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from smplora.errors import ConfigError
from smplora.features import load_digit_features

BUNDLED = "tiny"
LARGEST_FOR_BUNDLED = 64  # pixels; it knows digits, and would say nothing about photographs
AT_ONCE = 16


class ImageEncoder(Protocol):
    """Pictures [b, 3, H, W] in [0, 1] -> features."""

    def patches(self, images: Tensor) -> Tensor:
        """The last layer's features of each patch: [b, P, d]."""
        ...

    def embedding(self, images: Tensor) -> Tensor:
        """One vector a picture: [b, d]."""
        ...


class BundledEncoder:
    """The bundled digit extractor."""

    def __init__(self) -> None:
        self.network = load_digit_features()

    @torch.no_grad()
    def patches(self, images: Tensor) -> Tensor:
        """[b, 16, 64].

        Raises:
            ConfigError: photographs.
        """
        return self.network.patches(self._small(images))

    @torch.no_grad()
    def embedding(self, images: Tensor) -> Tensor:
        """[b, 64].

        Raises:
            ConfigError: photographs.
        """
        features: Tensor = self.network(self._small(images))
        return features

    @staticmethod
    def _small(images: Tensor) -> Tensor:
        if max(images.shape[-2:]) > LARGEST_FOR_BUNDLED:
            raise ConfigError(
                f"--attack_encoder got '{BUNDLED}', which knows small digits only; give a folder or a cached hub id "
                "such as facebook/deit-base-distilled-patch16-384"
            )
        return images


class TransformersEncoder:
    """The image side of a model of the transformers library, with the preprocessing that it was made with."""

    def __init__(self, name: str, device: str) -> None:
        """``name``: a local folder or an id in the hub cache; safetensors only, nothing is downloaded.

        Raises:
            ConfigError: no such model, or none that sees images.
        """
        from transformers import AutoImageProcessor, AutoModel

        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(name, local_files_only=True)
            whole: Any = AutoModel.from_pretrained(name, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"--attack_encoder got '{name}', which is neither '{BUNDLED}', nor a folder in transformers' format, "
                f"nor a cached hub id ({str(error).splitlines()[0]})"
            ) from error
        self.network: Any = getattr(whole, "vision_model", whole).to(device).eval().requires_grad_(False)
        self.device = device

    def patches(self, images: Tensor) -> Tensor:
        """[b, P, d]."""
        return torch.cat([self._see(part)[0] for part in images.split(AT_ONCE)])

    def embedding(self, images: Tensor) -> Tensor:
        """The pooled output, or the first patch's where there is none: [b, d]."""
        return torch.cat([self._see(part)[1] for part in images.split(AT_ONCE)])

    @torch.no_grad()
    def _see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pictures = [(i * 255).round().byte().permute(1, 2, 0).numpy() for i in images.clamp(0, 1)]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        answer = self.network(pixel_values=pixels.to(self.device))
        hidden: Tensor = answer.last_hidden_state.float().cpu()
        hidden = hidden.flatten(2).mT if hidden.dim() == 4 else hidden
        pooled = getattr(answer, "pooler_output", None)
        return hidden, hidden[:, 0] if pooled is None else pooled.float().cpu().flatten(1)


@cache
def load_encoder(name: str, device: str) -> ImageEncoder:
    """The encoder of ``--attack_encoder``, on a GPU unless ``device`` is "cpu".

    Raises:
        ConfigError: it cannot be loaded.
    """
    if name == BUNDLED:
        return BundledEncoder()
    return TransformersEncoder(name, "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
