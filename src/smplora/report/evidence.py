"""What all attacks together prove: read from audit.json, and put into table cells and sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from smplora.core.files import read_json
from smplora.core.wording import decimal, p_text, percent
from smplora.report.parse import estimate, number, one_of, plain
from smplora.report.rows import Cell
from smplora.report.subject import (
    GROUPS,
    Epsilon,
    Evidence,
    Exposed,
    Finding,
    Gate,
    Histogram,
    Subject,
)
from smplora.report.wording import interval

HEADERS = (
    "Strongest attack on test members",
    "Strongest attack on aux members",
    "Epsilon, at least",
    "Epsilon from one run, at least",
    "The set as a whole (p)",
)


def points(curves: Any, x: str, y: str) -> tuple[tuple[float, float], ...]:
    """Pairs of two equally long lists; none where there is nothing."""
    return tuple((float(a), float(b)) for a, b in zip(curves[x], curves[y], strict=True)) if curves else ()


def read_evidence(data: Mapping[str, Any], folder: Path) -> Evidence:
    """The evidence in audit.json, and the gallery of exposed members in the same folder, if there is one."""
    titles = {str(attack["name"]): plain(attack["title"]) for attack in data["attacks"]}
    one_run = data["epsilon"]["one_run"]
    return Evidence(
        gates=tuple(
            Gate(one_of(check["passed"], (True, False, None)), plain(check["sentence"]))
            for check in data["gates"]["checks"]
        ),
        notes=tuple(plain(note) for note in data["gates"]["notes"]),
        findings={group: _finding(data["strongest"][group], titles) for group in GROUPS},
        epsilon=_epsilon(data["epsilon"]["clopper_pearson"]),
        one_run=_epsilon(one_run) if one_run else None,
        delta=float(data["epsilon"]["delta"]),
        dataset_p=float(data["dataset_inference"]["p"]),
        detectable={group: float(data["power"][group]["auc"]) for group in GROUPS},
        power=float(data["power"]["test"]["power"]),
        histograms={group: _histogram(data["exposure"][group]) for group in GROUPS},
        exposed=_exposed(folder, titles),
        methods=tuple(str(method["bibtex"]) for method in data.get("methods", ())),
    )


def _finding(data: Mapping[str, Any], titles: Mapping[str, str]) -> Finding:
    return Finding(
        title=titles[str(data["attack"])],
        auc=estimate(data["auc"]),
        level=float(data["auc"]["level"]),
        p=number(data["p_corrected"]) or 0.0,
        attacks=int(data["attacks"]),
    )


def _epsilon(data: Mapping[str, Any]) -> Epsilon:
    return Epsilon(float(data["value"]), float(data["ceiling"]))


def _histogram(data: Mapping[str, Any]) -> Histogram:
    counts = [tuple(int(n) for n in data[name]) for name in ("members", "nonmembers")]
    return Histogram(tuple(float(edge) for edge in data["edges"]), *counts)


def _exposed(folder: Path, titles: Mapping[str, str]) -> Exposed | None:
    try:
        about = read_json(folder / "exposed.json")
        with Image.open(folder / "exposed.png") as strip:
            strip.load()
        side, images = strip.height, about["images"]
        if strip.width != side * len(images):
            return None
        pictures = []
        for place in range(len(images)):
            buffer = BytesIO()
            strip.crop((side * place, 0, side * (place + 1), side)).save(buffer, format="PNG")
            pictures.append(buffer.getvalue())
        notes = tuple(
            f"{plain(image['cell']).split('_')[0]}, above {percent(float(image['beats']))}" for image in images
        )
        return Exposed(titles[str(about["attack"])], tuple(pictures), notes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def evidence_rows(subjects: Sequence[Subject]) -> list[tuple[Subject, tuple[Cell, ...]]]:
    """Cells that go with ``HEADERS``, one row a subject."""
    return [(subject, _cells(subject.evidence)) for subject in subjects]


def _cells(evidence: Evidence) -> tuple[Cell, ...]:
    return (
        *(_finding_cell(evidence.findings[group]) for group in GROUPS),
        _epsilon_cell(evidence.epsilon),
        _epsilon_cell(evidence.one_run) if evidence.one_run else Cell("", note="needs --split_protocol coin"),
        Cell(p_text(evidence.dataset_p)),
    )


def _finding_cell(finding: Finding) -> Cell:
    note = f"{finding.title}; corrected p {p_text(finding.p)}"
    return Cell(f"AUC {decimal(finding.auc.value or 0.0, 2)}", interval(finding.auc), note)


def _epsilon_cell(epsilon: Epsilon) -> Cell:
    return Cell(decimal(epsilon.value, 2), note=f"of at most {decimal(epsilon.ceiling, 2)} with these cells")


def power_sentence(subjects: Sequence[Subject]) -> str:
    """What the audits would have missed, once for all of them."""
    test, aux = (_range({decimal(s.evidence.detectable[group], 2) for s in subjects}) for group in GROUPS)
    missed = _range({percent(1 - s.evidence.power) for s in subjects})
    reach = test if test == aux else f"{test} on test members, or {aux} on aux members,"
    return f"With these cells an AUC below {reach} would have gone unseen in more than {missed} of audits."


def _range(numbers: Collection[str]) -> str:
    return min(numbers) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
