"""The paper's pictures: each method's images, for one or more data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.experiments.reproduce.curves import collected, gallery, pictures, systems
from smplora.experiments.reproduce.results import Results
from smplora.experiments.reproduce.runs import Need
from smplora.experiments.reproduce.section import Section
from smplora.experiments.reproduce.systems import missing


@dataclass(frozen=True)
class GalleryTarget:
    """Generated images of LoRA, MP-LoRA and SMP-LoRA below real ones."""

    name: str
    title: str
    caption: str
    datasets: tuple[str, ...]

    def needs(self, best_lambda: float | None) -> list[Need]:
        """The main runs on each data set."""
        return [Need(run) for dataset in self.datasets for run in systems(best_lambda, dataset=dataset)]

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """Where the pictures are."""
        return collected(results, self.needs(best_lambda), pictures)

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """One gallery a data set."""
        rows = content["rows"]
        drawn = [
            gallery([row for row in rows if row["run"]["dataset"] == dataset], root, dataset)
            for dataset in self.datasets
        ]
        shown = [one for one in drawn if one]
        return Section(self.name, self.title, self.caption, galleries=shown, missing=missing(rows))
