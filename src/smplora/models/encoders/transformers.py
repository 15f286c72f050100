"""What pictures look like to a network that has nothing to do with the audited model: patches and embeddings.

From transformers (BLIP, DeiT, CLIP, DINO ..), or the small bundled extractor, which serves the bundled model. CLIP also
reads captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from smplora.core.errors import ConfigError
from smplora.models.diffusers_format import check_keys, folder_of, quiet
from smplora.models.encoders.digits import load_digit_features
from smplora.models.stated import building, check_network, first_line

BUNDLED = "tiny"
LARGEST_FOR_BUNDLED = 64  # pixels; it knows digits, and would say nothing about photographs
AT_ONCE = 16
CLIP = "openai/clip-vit-large-patch14"


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

    def __init__(self, name: str, device: str, option: str = "attack_encoder", allow_download: bool = False) -> None:
        """``name``: a local folder or an id of the hub, safetensors only.

        Args:
            option: the one that named it, for messages.
            allow_download: also from the network, not just from the local cache.

        Raises:
            ConfigError: no such model, or none that sees images.
            CheckpointError: a file of it that cannot be used.
        """
        from transformers import AutoImageProcessor, AutoModel

        local = {"local_files_only": not allow_download, "trust_remote_code": False}
        self.device, self.name = device, name
        given = f"--{option} got '{name}'"
        with building(lambda error: _not_there(name, option, error)), quiet():
            if folder := _here(name):
                check_network(folder, given)
            self.processor: Any = AutoImageProcessor.from_pretrained(name, **local)
            whole, told = AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True, **local)
            missing = {key for key in told["missing_keys"] if "pooler." not in key}
            check_keys({**told, "missing_keys": missing, "unexpected_keys": ()}, f"{given}, which")
            self.pools = missing == set(told["missing_keys"])  # else what pools was never trained
            self.whole: Any = whole.to(device).eval().requires_grad_(False)
            self.network: Any = getattr(self.whole, "vision_model", self.whole)
            if not self.patches(torch.full((1, 3, 8, 8), 0.5)).isfinite().all():
                raise ConfigError(f"{given}, which gives numbers that are not finite")

    def patches(self, images: Tensor) -> Tensor:
        """[b, P, d]."""
        return torch.cat([self._see(part)[0] for part in images.split(AT_ONCE)])

    def embedding(self, images: Tensor) -> Tensor:
        """The pooled output, or the first patch's where there is none: [b, d]."""
        return torch.cat([self._see(part)[1] for part in images.split(AT_ONCE)])

    @torch.no_grad()
    def _see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.network(pixel_values=self._prepared(images))
        hidden: Tensor = output.last_hidden_state.float().cpu()
        hidden = hidden.flatten(2).mT if hidden.dim() == 4 else hidden
        pooled = getattr(output, "pooler_output", None) if self.pools else None
        return hidden, hidden[:, 0] if pooled is None else pooled.float().cpu().flatten(1)

    def _prepared(self, images: Tensor) -> Tensor:
        pictures = [(i * 255).round().byte().permute(1, 2, 0).numpy() for i in images.clamp(0, 1)]
        pixels: Tensor = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        return pixels.to(self.device)


class ClipEncoder(TransformersEncoder):
    """CLIP (Radford et al. 2021): pictures and captions as unit vectors of one space."""

    def __init__(self, name: str, device: str, option: str, allow_download: bool = False) -> None:
        """See ``TransformersEncoder``.

        Raises:
            ConfigError: no such model, or no CLIP.
        """
        from transformers import AutoTokenizer

        super().__init__(name, device, option, allow_download)
        if not hasattr(self.whole, "visual_projection"):
            kind = getattr(self.whole.config, "model_type", "another model")
            raise ConfigError(f"--{option} got '{name}', which is no CLIP but '{kind}'; give one, such as {CLIP}")
        with building(lambda error: _not_there(name, option, error)), quiet():
            local = {"local_files_only": not allow_download, "trust_remote_code": False}
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name, **local)
            self.read(["a"])

    @torch.no_grad()
    def embedding(self, images: Tensor) -> Tensor:
        """Unit vectors [b, d]."""
        parts = [self.whole.get_image_features(pixel_values=self._prepared(p)) for p in images.split(AT_ONCE)]
        return torch.cat([_unit(part) for part in parts])

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors [b, d]; what is longer than CLIP reads is cut."""
        parts = []
        longest = self.whole.config.text_config.max_position_embeddings
        for start in range(0, len(captions), AT_ONCE):
            words = self.tokenizer(
                list(captions[start : start + AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(self.device)
            parts.append(
                _unit(
                    self.whole.get_text_features(input_ids=words["input_ids"], attention_mask=words["attention_mask"])
                )
            )
        return torch.cat(parts)


def _unit(output: Any) -> Tensor:
    """transformers' output, a tensor or an object that holds one, scaled to length one."""
    features: Tensor = getattr(output, "pooler_output", output).float().cpu()
    return torch.nn.functional.normalize(features, dim=-1)


def _here(name: str) -> Path | None:
    """The folder of a network, also of a hub id in the local cache."""
    try:
        return folder_of(name)
    except (OSError, ValueError):
        return None


def _not_there(name: str, option: str, error: Exception) -> ConfigError:
    bundled = f"neither '{BUNDLED}', nor" if option == "attack_encoder" else "neither"
    fetch = "" if option == "attack_encoder" else "; --allow_download fetches it"
    return ConfigError(
        f"--{option} got '{name}', which is {bundled} a folder in transformers' format with safetensors, nor a cached "
        f"hub id ({first_line(error)}){fetch}"
    )


@cache
def load_encoder(name: str, device: str) -> ImageEncoder:
    """The encoder of ``--attack_encoder``, on a GPU unless ``device`` is "cpu".

    Raises:
        ConfigError: it cannot be loaded.
    """
    if name == BUNDLED:
        return BundledEncoder()
    return TransformersEncoder(name, "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
