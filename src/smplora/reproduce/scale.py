"""What a scale is: how large the paper is done again, on which model and images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from smplora.config import ReproduceConfig
from smplora.reproduce.runs import Run


class Scale(Protocol):
    """Turns the paper's runs into options. One module per scale."""

    name: str
    model: str  # what is adapted, for people
    machine: str  # that ``duration`` is about
    best_lambda: float | None  # of SMP-LoRA, where the paper's does nothing at this scale
    bookkeeping: Mapping[str, Any]  # options of TrainConfig that decide nothing
    auditing: Mapping[str, Any]  # options of AuditConfig
    evaluating: Mapping[str, Any]  # options of EvaluateConfig

    def training(self, run: Run, seed: int) -> dict[str, Any]:
        """Options of TrainConfig that decide what ``run`` computes."""
        ...

    def theory(self, run: Run) -> dict[str, Any]:
        """Options that measure gradients and curvature; they change nothing else."""
        ...

    def place(self, dataset: str, root: Path) -> dict[str, Any]:
        """Options of TrainConfig that say where a data set's images are, or will be (below ``root``)."""
        ...

    def prepare(self, datasets: Iterable[str], root: Path) -> None:
        """Write the images that are not there, below ``root``."""
        ...

    def missing(self, datasets: Iterable[str]) -> list[str]:
        """What the user has to bring first, one line each."""
        ...

    def duration(self, options: Mapping[str, Any], audits: int) -> float:
        """About how many seconds a run with these options and its audits take on ``machine``."""
        ...

    def stands_for(self, dataset: str) -> str:
        """What stands for a data set of the paper, for people."""
        ...


def scale_of(config: ReproduceConfig) -> Scale:
    """The scale that ``--scale`` and ``--quick`` name."""
    from smplora.reproduce import sd15, tiny

    if config.scale == "sd15":
        return sd15.SD15(config)
    return tiny.Quick() if config.quick else tiny.Tiny()
