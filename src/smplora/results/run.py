"""Small files of a run folder that other commands read."""

from __future__ import annotations

from dataclasses import dataclass

from smplora.results.record import Count, Record


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


@dataclass(frozen=True)
class BaseModel(Record):
    """model.json: the base model; other weights under that name are refused."""

    name: str
    digest: str
