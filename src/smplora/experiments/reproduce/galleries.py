"""The paper's pictures: each method's images, for one or more data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from smplora.core.strips import tiles
from smplora.experiments.reproduce.curves import RunsTarget, first_seed, label, look, systems
from smplora.experiments.reproduce.results import RunResult
from smplora.experiments.reproduce.runs import Need
from smplora.experiments.reproduce.section import Section, section_of
from smplora.report.figures.svg import mark, style
from smplora.report.html import Gallery, Strip, uris


@dataclass(frozen=True)
class GalleryTarget(RunsTarget):
    """Generated images of LoRA, MP-LoRA and SMP-LoRA below real ones."""

    datasets: tuple[str, ...] = ()

    def needs(self, best_lambda: float | None) -> list[Need]:
        """The main runs on each data set."""
        return [Need(run) for dataset in self.datasets for run in systems(best_lambda, dataset=dataset)]

    def read(self, run: RunResult) -> dict[str, Any]:
        """Where its pictures are, and their captions."""
        captions = list(run.quality().captions)
        return {"captions": captions, "pictures": "quality/samples.png", "real": "quality/real.png"}

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """One gallery a data set: the first seed's pictures of each row below real ones."""
        galleries = []
        for dataset in self.datasets:
            of_dataset = [row for row in content["rows"] if row["run"]["dataset"] == dataset]
            shown = [(row, seed) for row in of_dataset if (seed := first_seed(row))]
            if shown:
                first = shown[0][1]
                strips = [Strip("Real images, held out", Markup(""), _pictures(root, first, "real"))]
                strips += [Strip(label(r), mark(style(look(r))), _pictures(root, s, "pictures")) for r, s in shown]
                galleries.append(Gallery(dataset, tuple(first["captions"]), tuple(strips)))
        return section_of(self, content["rows"], galleries=galleries)


def _pictures(root: Path, seed: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return uris(tiles(root / str(seed["run"]) / str(seed[name]), len(seed["captions"])))
