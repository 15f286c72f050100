"""quality.json: how good an adapter's images are. The one statement of its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smplora.results.audit import Adapter
from smplora.results.estimate import Estimate
from smplora.results.record import Count, Line, Record, absent

FORMAT: Literal["smplora.quality/2"] = "smplora.quality/2"


@dataclass(frozen=True)
class Against(Record):
    """Generated images against a set of real ones."""

    n: Count
    kid: Estimate
    fid: Estimate
    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    cmmd: Estimate | None = absent()
    """With CLIP's features."""


@dataclass(frozen=True)
class AgainstBoth(Record):
    """Against images that no cell contains, the honest reference, and against training images, the paper's way."""

    held_out: Against
    train: Against | None = None


@dataclass(frozen=True)
class NearestImages(Record):
    """Mean distance from a generated image to the nearest of n training and of n held-out images."""

    n: Count
    train: Estimate
    held_out: Estimate
    ratio: Estimate


@dataclass(frozen=True, kw_only=True)
class NetworkQuality(Record):
    """What one network of --features says."""

    title: Line
    weights: str = ""
    """"bundled", a hub id, or "sha256:..": never a path."""
    dimensions: Count | None = None
    against: AgainstBoth
    nearest: NearestImages | None = None


@dataclass(frozen=True)
class ClipScore(Record):
    """Mean of 100 max(cosine, 0) of image and caption."""

    generated: Estimate
    held_out: Estimate | None = None
    weights: str = ""


@dataclass(frozen=True, kw_only=True)
class Quality(Record):
    """quality.json."""

    format: Literal["smplora.quality/2"]
    subject: Adapter
    seal: str | None = None
    """SHA-256 of the split's manifest."""
    n_generated: Count
    num_images: Count | None = None
    seed: int
    num_inference_steps: Count
    guidance_scale: float
    mixed_precision: Line | None = absent()
    """Of the base model, if that is not fp32."""
    features: tuple[Line, ...]
    """Names of --features; the numbers beside are the first one's."""
    title: Line
    weights: str = ""
    dimensions: Count | None = None
    against: AgainstBoth
    nearest: NearestImages | None = None
    others: dict[str, NetworkQuality]
    """The other networks by name."""
    clip_score: ClipScore | None = None
    held_out_loss: Estimate | None = None
    """Mean adaptation loss on the reference images."""
    captions: tuple[Line, ...]
    """Of samples.png, left to right."""
    elapsed_s: float | None = absent()

    @property
    def first(self) -> NetworkQuality:
        """What the first network says."""
        return NetworkQuality(title=self.title, weights=self.weights, dimensions=self.dimensions, against=self.against,
                        nearest=self.nearest)  # fmt: skip

    @property
    def by_network(self) -> dict[str, NetworkQuality]:
        """Every network's numbers by its name, the first one first."""
        return {self.features[0]: self.first, **{name: self.others[name] for name in self.features[1:]}}
