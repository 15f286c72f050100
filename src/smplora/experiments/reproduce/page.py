"""One page of everything that was reproduced in a folder, from its JSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smplora.config.catalogue.paper_targets import TARGETS
from smplora.core.files import write_atomically
from smplora.core.reading import read_object
from smplora.core.registry import load
from smplora.core.version import __version__
from smplora.experiments.reproduce.section import Section, Target
from smplora.report.html import PAPER, template

PAGE = "index.html"


def write_page(root: Path) -> Path:
    """Write index.html about every target whose JSON file is in ``root``, readable by its owner only.

    Raises:
        CheckpointError: a damaged file.
        OSError: it cannot be written.
    """
    contents = {name: read_content(root / f"{name}.json") for name in TARGETS if (root / f"{name}.json").exists()}
    sections = [section(name, content, root) for name, content in contents.items()]
    first = next(iter(contents.values()))
    html = template("reproduce.html.j2").render(
        title="The paper, reproduced",
        sections=sections,
        commands={name: f"smplora reproduce {name}" for name in contents},
        scale=first["scale"],
        quick=first["quick"],
        model=first["model"],
        best_lambda=first["best_lambda"],
        stands_for={k: v for content in contents.values() for k, v in content["stands_for"].items()},
        seeds=sorted({seed for content in contents.values() for seed in content["seeds"]}),
        citation=PAPER,
        version=__version__,
    )
    write_atomically(root / PAGE, html)
    return root / PAGE


def read_content(path: Path) -> dict[str, Any]:
    """A target's JSON file.

    Raises:
        CheckpointError: it is damaged.
    """
    return read_object(path, ("format", "target", "rows", "stands_for", "seeds"), "run the same command again")


def section(name: str, content: dict[str, Any], root: Path) -> Section:
    """A target's part of the page."""
    target: Target = load(TARGETS, name, "targets")
    shown = target.show(content, root)
    return replace(shown, differences=content.get("differences", ()), commands=commands(content["rows"]))


def commands(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
    """Each row's command lines, of its first seed, those of equal rows together."""
    first = [(row["run"]["title"], tuple(row["seeds"][0].get("commands", ()))) for row in rows]
    by_title: dict[str, tuple[str, ...]] = {}
    for title, lines in first:
        by_title[title] = (*by_title.get(title, ()), *(line for line in lines if line not in by_title.get(title, ())))
    return [(title, lines) for title, lines in by_title.items() if lines]
