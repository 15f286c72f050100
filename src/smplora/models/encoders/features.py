"""What ``--features`` names: networks that turn pictures into vectors, for distances between sets of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from smplora.core.files import files_sha256
from smplora.models.encoders import inception
from smplora.models.encoders.digits import load_digit_features
from smplora.models.encoders.transformers import ClipEncoder, TransformersEncoder

TITLES = {
    "tiny": "bundled digit features",
    "inception-768": "Inception",
    "inception-2048": "Inception",
    "dinov2": "DINOv2",
    "clip": "CLIP",
}


@dataclass(frozen=True)
class Extractor:
    """A network by its name in ``--features``."""

    name: str
    weights: str  # "bundled", a hub id, or "sha256:..." of local files, whose path is nobody's business
    embed: Callable[[Tensor], Tensor]  # [b, 3, h, w] in [0, 1] on the CPU -> [b, d] on the CPU

    def title(self, dimensions: int) -> str:
        """For people: "CLIP, 768-d"."""
        return f"{TITLES[self.name]}, {dimensions}-d"


def load_extractor(name: str, source: str, device: torch.device, allow_download: bool = False) -> Extractor:
    """The network ``name`` of ``--features``.

    Args:
        source: of its weights: "bundled", a file, a folder or a hub id.

    Raises:
        ConfigError, CheckpointError: its weights are not there, or are another network's.
    """
    if name == "tiny":
        return Extractor(name, source, load_digit_features())
    if name.startswith("inception"):
        network = inception.load_inception(source, int(name.removeprefix("inception-"))).to(device)

        @torch.no_grad()
        def embed(images: Tensor) -> Tensor:
            return torch.cat([network(part.to(device)).cpu() for part in images.split(inception.AT_ONCE)])

        return Extractor(name, weights_of(source), embed)
    kind = ClipEncoder if name == "clip" else TransformersEncoder
    encoder = kind(source, str(device), "features", allow_download)
    return Extractor(name, weights_of(source), encoder.embedding)


def load_clip(source: str, device: torch.device, allow_download: bool = False) -> ClipEncoder:
    """The network of ``--clip_score_model``.

    Raises:
        ConfigError: it is not there, or no CLIP.
    """
    return ClipEncoder(source, str(device), "clip_score_model", allow_download)


def weights_of(source: str) -> str:
    """How a result calls weights: a hub id as it is, local files by their content."""
    path = Path(source)
    if not path.exists():
        return source
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    return f"sha256:{_contents(tuple((f, f.stat().st_size, f.stat().st_mtime_ns) for f in files))}"


@lru_cache
def _contents(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Digest of files as they are now; read once, since weights are large and asked for often."""
    return files_sha256([path for path, _, _ in files])
