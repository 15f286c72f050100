"""What a scale is: how large the paper is done again, on which model and images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from smplora.config.train import TrainConfig
from smplora.experiments.reproduce.runs import PaperRun
from smplora.experiments.tasks import Options


class Scale(Protocol):
    """Turns the paper's runs into options. One module per scale."""

    name: str
    model: str  # what is adapted, for people
    machine: str  # that ``duration`` is about
    best_lambda: float | None  # of SMP-LoRA, where the paper's does nothing at this scale
    bookkeeping: Mapping[str, Any]  # options of TrainConfig that decide nothing
    auditing: Mapping[str, Any]  # options of AuditConfig
    evaluating: Mapping[str, Any]  # options of EvaluateConfig

    def training(self, run: PaperRun, seed: int) -> dict[str, Any]:
        """Options of TrainConfig that decide what ``run`` computes."""
        ...

    def theory(self, run: PaperRun) -> dict[str, Any]:
        """Options that measure gradients and curvature; they change nothing else."""
        ...

    def place(self, dataset: str, root: Path) -> dict[str, Any]:
        """Options of TrainConfig that say where a data set's images are, or will be (below ``root``)."""
        ...

    def prepare(self, datasets: Iterable[str], attacks: Collection[str], root: Path) -> None:
        """Write the images that are not there, below ``root``, and fetch what may be fetched."""
        ...

    def missing(self, datasets: Iterable[str], attacks: Collection[str]) -> list[str]:
        """What the user has to bring first, for these data sets and these attacks of Table 11, one line each."""
        ...

    def duration(self, train: TrainConfig, task: Options) -> float:
        """About how many seconds a task of the run ``train``, its training, an audit or the evaluation, takes on
        ``machine``."""
        ...

    def differences(self, runs: Iterable[PaperRun]) -> list[str]:
        """In what these runs differ from the paper's, beside what all runs of the scale do; sentences."""
        ...

    def stands_for(self, dataset: str) -> str:
        """What stands for a data set of the paper, for people."""
        ...


def libraries_missing(attacks: Collection[str]) -> list[str]:
    """Optional libraries that these attacks want and that are not installed."""
    if "gsa1" not in attacks or find_spec("xgboost") is not None:
        return []
    return [
        "GSA1, an attack of Table 11, needs XGBoost: pip install smplora[xgboost], or name targets without table_11"
    ]
