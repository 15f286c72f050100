"""Folders with results, read whole: an adapter's audit, its quality and run, and the pictures beside them."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError

from smplora.core.errors import CheckpointError, listing
from smplora.core.reading import read_json
from smplora.core.strips import cut, png, tiles
from smplora.core.surroundings import real
from smplora.core.yaml_text import read_yaml
from smplora.results.audit import FORMAT, UNCROSSED, Audit
from smplora.results.curves import BUDGET, Curve, read_curves
from smplora.results.gallery import EXPOSED, MEMORISED, CaptionMagnitudes, CopiedPair, ExposedImages, Memorised
from smplora.results.properties import FORMAT as PROPERTIES_FORMAT
from smplora.results.properties import Properties
from smplora.results.quality import FORMAT as QUALITY_FORMAT
from smplora.results.quality import Quality
from smplora.results.record import plain, read
from smplora.results.run import Done

CURVES = ("adaptation_loss", "mi_gain", "proxy_accuracy")
COLUMNS = ("Generated", "Nearest training image", "Nearest held-out image")


@dataclass(frozen=True, eq=False)  # told apart by identity
class ReportedRun:
    """The run that a subject belongs to; empty mappings where the adapter came without its run."""

    folder: Path
    config: Mapping[str, str]
    environment: Mapping[str, str]
    curves: Mapping[str, Curve]  # of metrics.jsonl by name
    budget: Mapping[str, Curve] = field(default_factory=dict)  # of budget.jsonl; empty without --privacy_budget


@dataclass(frozen=True)
class Exposed:
    """The members that the strongest attack is surest of; never in a shareable report."""

    attack: str  # its title
    pictures: tuple[bytes, ...]
    images: ExposedImages


@dataclass(frozen=True)
class Copies:
    """Generated images beside the real ones that they are nearest to, and the captions; never in a shareable report."""

    pictures: tuple[tuple[bytes, ...], ...] = ()  # of each pair, in the order of ``COLUMNS``
    pairs: tuple[CopiedPair, ...] = ()
    captions: tuple[CaptionMagnitudes, ...] = ()


@dataclass(frozen=True, eq=False)  # told apart by identity
class ReportedAdapter:
    """An adapter with its audit, and its quality and run where they exist."""

    folder: Path
    label: str  # unique within a report
    audit: Audit
    quality: Quality | None
    samples: tuple[bytes, ...]  # generated images of the quality's captions, as PNG files
    real: tuple[bytes, ...]  # held-out images, likewise
    exposed: Exposed | None
    copies: Copies
    run: ReportedRun
    properties: Properties | None = None  # of the training set as a whole; never in a shareable report


def collect(folders: Sequence[Path]) -> tuple[ReportedAdapter, ...]:
    """Read every folder once, in order; equal labels get their folder's name added.

    Raises:
        CheckpointError: a folder without audit, or files that are damaged, of another format or of another adapter;
            all folders are looked at first.
    """
    unique = list({real(folder): folder for folder in folders}.values())
    subjects: list[ReportedAdapter] = []
    runs: dict[Path, ReportedRun] = {}
    problems: list[str] = []
    for folder in unique:
        try:
            subjects.append(_subject(real(folder), runs))
        except CheckpointError as error:
            problems.append(str(error))
    if not unique:
        problems.append("name at least one run folder or checkpoint folder")
    if problems:
        raise CheckpointError(listing("Cannot write a report", problems))
    labels = Counter(subject.label for subject in subjects)
    return tuple(replace(s, label=f"{s.label} ({_where(s)})") if labels[s.label] > 1 else s for s in subjects)


def _where(subject: ReportedAdapter) -> str:
    run, folder = subject.run.folder, subject.folder
    return folder.name if run == folder else f"{run.name}/{folder.name}"


def _subject(folder: Path, runs: dict[Path, ReportedRun]) -> ReportedAdapter:
    path, remedy = audit_of(folder)
    audit = read(path, Audit, remedy, FORMAT, UNCROSSED)
    _check_finished(folder, path, audit, remedy)
    quality, samples, real = _quality(folder, audit.subject.adapter_sha256)
    home = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    if home not in runs:
        runs[home] = _run(home)
    return ReportedAdapter(
        folder=folder,
        label=audit.subject.label,
        audit=audit,
        quality=quality,
        samples=samples,
        real=real,
        exposed=_exposed(path.parent, audit),
        copies=_copies(path.parent) if audit.memorisation else Copies(),
        run=runs[home],
        properties=_properties(folder, audit.subject.adapter_sha256),
    )


def audit_of(folder: Path) -> tuple[Path, str]:
    """Where a folder's audit.json is, and the command that writes it.

    Raises:
        CheckpointError: there is none.
    """
    path = folder / "audit" / "audit.json"
    remedy = f"run `smplora audit --adapter {shlex.quote(str(folder))}`"
    if not path.is_file() and (folder / "audit.json").is_file():  # of `smplora audit --signals`, or --output_dir
        return folder / "audit.json", "run the same `smplora audit`"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no audit/audit.json; {remedy} first")
    return path, remedy


def _check_finished(folder: Path, path: Path, audit: Audit, remedy: str) -> None:
    if (folder / "DONE.json").is_file():
        finished = read(folder / "DONE.json", Done, remedy).adapter_sha256
        if audit.subject.adapter_sha256 not in (None, finished):
            raise CheckpointError(f"{path} is about another adapter than the one in {folder}; {remedy} again")


def _quality(folder: Path, audited: str | None) -> tuple[Quality | None, tuple[bytes, ...], tuple[bytes, ...]]:
    path = folder / "quality" / "quality.json"
    remedy = f"run `smplora evaluate --adapter {shlex.quote(str(folder))}`"
    if not path.is_file():
        return None, (), ()
    quality = read(path, Quality, remedy, QUALITY_FORMAT)
    if audited and quality.subject.adapter_sha256 not in (None, audited):
        raise CheckpointError(f"{path} measured another adapter than the audit; {remedy} again")
    try:
        rows = [tiles(path.parent / f"{name}.png", len(quality.captions)) for name in ("samples", "real")]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {plain(error)}); {remedy} again") from error
    return quality, rows[0], rows[1]


def _properties(folder: Path, audited: str | None) -> Properties | None:
    path = folder / "properties" / "properties.json"
    remedy = f"run `smplora properties {shlex.quote(str(folder))}`"
    if not path.is_file():
        return None
    found = read(path, Properties, remedy, PROPERTIES_FORMAT)
    if audited and found.subject.adapter_sha256 not in (None, audited):
        raise CheckpointError(f"{path} is about another adapter than the audit; {remedy} again")
    return found


def _run(folder: Path) -> ReportedRun:
    config, environment = folder / "config.yaml", folder / "environment.json"
    try:
        settings = read_yaml(config) if config.is_file() else {}
        machine = read_json(environment) if environment.is_file() else {}
        curves = read_curves(folder / "metrics.jsonl", CURVES)
        looks = folder / "budget.jsonl"
        budget = read_curves(looks, BUDGET) if looks.is_file() else {}
        return ReportedRun(folder, flat(settings or {}), flat(machine), curves, budget)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"a file of the run {folder} is damaged ({plain(error)})") from error


def _exposed(folder: Path, audit: Audit) -> Exposed | None:
    """The gallery beside audit.json; None where it is gone or not whole, since a page can do without."""
    try:
        images = read(folder / f"{EXPOSED}.json", ExposedImages, "")
        pictures = cut(folder / f"{EXPOSED}.png", 1, len(images.images))[0]
        return Exposed(audit.attack(images.attack).title, tuple(map(png, pictures)), images)
    except (CheckpointError, OSError, ValueError, UnidentifiedImageError):
        return None


def _copies(folder: Path) -> Copies:
    """The gallery of copies, likewise."""
    try:
        names = read(folder / f"{MEMORISED}.json", Memorised, "")
        pictures = cut(folder / f"{MEMORISED}.png", len(names.pairs), len(COLUMNS))
        return Copies(tuple(tuple(map(png, row)) for row in pictures), names.pairs, names.captions)
    except (CheckpointError, OSError, ValueError, UnidentifiedImageError):
        return Copies()


def flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``{"a.b": "text"}``; values that look like secrets are not shown."""
    texts: dict[str, str] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            texts |= flat(value, f"{name}.")
        elif str(key).lower().endswith(("token", "password", "secret", "api_key")) and isinstance(value, str):
            texts[name] = "(hidden)"
        else:
            texts[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return texts
