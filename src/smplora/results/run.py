"""Small files of a run folder that other commands read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smplora.results.record import Count, Line, Positive, Record, absent

PAGE = "index.html"  # of a run


@dataclass(frozen=True)
class Done(Record):
    """DONE.json: the adapter is complete."""

    step: Count
    adapter_sha256: str


@dataclass(frozen=True)
class CheckpointState(Record):
    """state.json of a checkpoint."""

    step: Count
    max_train_steps: Count
    num_processes: Count
    files: dict[str, str] | None = absent()
    """SHA-256 of the checkpoint's other files."""


@dataclass(frozen=True)
class BaseModel(Record):
    """model.json: the base model; another one under that name is refused."""

    name: str
    digest: str
    """Of weights, settings, tokenizers and noise schedule; in runs of version 0.1 of the weights."""


@dataclass(frozen=True, kw_only=True)
class Privacy(Record):
    """privacy.json, of --objective dp_lora: what is guaranteed."""

    format: Literal["smplora.privacy/1"] = "smplora.privacy/1"
    epsilon: float
    delta: float
    neighbours: Line
    """Which data sets count as neighbours."""
    accountant: Line
    noise_multiplier: float
    sample_rate: float
    """The share of the images in a step."""
    steps: Count
    max_grad_norm: float
    noise_multiplicity: Count


@dataclass(frozen=True)
class Prompts(Record):
    """validation/prompts.json: which pictures are drawn while training."""

    captions: tuple[Line, ...]
    images: Positive
    """Of each caption."""
