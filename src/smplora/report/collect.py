"""Reads subject folders (docs/formats.md) into the records of ``subject``."""

from __future__ import annotations

import io
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]
from PIL import Image

from smplora.core.errors import CheckpointError, listing
from smplora.core.files import read_json
from smplora.report.copies import read_memorisation
from smplora.report.evidence import points, read_evidence
from smplora.report.parse import estimate, flat, load, number, one_of, plain, read_curves, whole
from smplora.report.subject import GROUPS, LEVELS, Attack, Distances, Numbers, Quality, Rate, Run, Subject, Verdict

LARGEST_TILE = 256  # pixels: a page of photographs should still travel by mail
CURVES = ("adaptation_loss", "mi_gain", "proxy_accuracy")


def collect(folders: Sequence[Path]) -> tuple[Subject, ...]:
    """Read every folder once, in order; equal labels get their folder's name added.

    Raises:
        CheckpointError: a folder without audit, or files that are damaged, of another format or of another adapter;
            all folders are looked at first.
    """
    unique = list({folder.resolve(): folder for folder in folders}.values())
    subjects: list[Subject] = []
    runs: dict[Path, Run] = {}
    problems: list[str] = []
    for folder in unique:
        try:
            subjects.append(_subject(folder, runs))
        except CheckpointError as error:
            problems.append(str(error))
    if not unique:
        problems.append("name at least one run folder or checkpoint folder")
    if problems:
        raise CheckpointError(listing("Cannot write a report", problems))
    seen = Counter(subject.label for subject in subjects)
    return tuple(replace(s, label=f"{s.label} ({_where(s)})") if seen[s.label] > 1 else s for s in subjects)


def _where(subject: Subject) -> str:
    run, folder = subject.run.folder, subject.folder
    return folder.name if run == folder else f"{run.name}/{folder.name}"


def _subject(folder: Path, runs: dict[Path, Run]) -> Subject:
    folder = folder.resolve()
    path = folder / "audit" / "audit.json"
    again = f"run `smplora audit --adapter {shlex.quote(str(folder))}`"
    if not path.is_file() and (folder / "audit.json").is_file():  # of `smplora audit --signals`, or --output_dir
        path, again = folder / "audit.json", "run the same `smplora audit`"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no audit/audit.json; {again} first")

    def parse(data: Any) -> Subject:
        """The subject that audit.json describes."""
        about, split, verdict = data["subject"], data["split"], data["verdict"]
        attacks = tuple(_attack(attack) for attack in data["attacks"])
        group = one_of(verdict["group"], GROUPS)
        one_of(verdict["attack"], [attack.name for attack in attacks if attack.on(group)])
        return Subject(
            folder=folder,
            label=plain(about["label"]),
            objective=plain(about["objective"]),
            model=plain(about.get("model", "unknown")),
            step=whole(about.get("step")),
            max_train_steps=whole(about.get("max_train_steps")),
            split=flat({key: value for key, value in split.items() if key != "cells"}),
            cells={str(name): int(count) for name, count in split["cells"].items()},
            seal=str(split["seal"]),
            settings=flat(data.get("settings") or {}),
            environment=flat(data.get("environment") or {}),
            attacks=attacks,
            chosen={g: one_of(data["strongest"][g]["attack"], [attack.name for attack in attacks]) for g in GROUPS},
            evidence=read_evidence(data, path.parent),
            verdict=Verdict(
                level=one_of(verdict["level"], LEVELS),
                sentence=plain(verdict["sentence"]),
                attack=str(verdict["attack"]),
                group=group,
            ),
            quality=_quality(folder, about.get("adapter_sha256")),
            memorisation=read_memorisation(data.get("memorisation"), path.parent),
            run=run,
        )

    home = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    if home not in runs:
        runs[home] = _run(home)
    run = runs[home]
    subject, digest = load(path, "smplora.audit/2", again, lambda data: (parse(data), data["subject"]))
    done = folder / "DONE.json"
    if done.is_file():
        finished = load(done, None, again, lambda data: data["adapter_sha256"])
        if digest.get("adapter_sha256") not in (None, finished):
            raise CheckpointError(f"{path} is about another adapter than the one in {folder}; {again} again")
    return subject


def _attack(data: Any) -> Attack:
    paper = data.get("paper_protocol")
    return Attack(
        name=str(data["name"]),
        title=plain(data["title"]),
        access=plain(data["access"]),
        reference=plain(data.get("reference") or ""),
        bibtex=str(data.get("bibtex") or "").strip(),
        fitted_on=plain(data["fitted_on"]),
        test=_numbers(data["test"]),
        aux_members=_numbers(data["aux_members"]) if data.get("aux_members") else None,
        paper_asr=number(paper["asr"]) if paper else None,
        paper_label=plain(paper["label"]) if paper else "",
    )


def _numbers(data: Any) -> Numbers:
    rates = [
        Rate(float(fpr), estimate(rate), bool(rate["resolvable"]), int(rate["needs_nonmembers"]))
        for fpr, rate in data["tpr_at_fpr"].items()
    ]
    if min(data["n_members"], data["n_nonmembers"]) < 1:
        raise ValueError("an empty cell")
    return Numbers(
        n_members=int(data["n_members"]),
        n_nonmembers=int(data["n_nonmembers"]),
        auc=estimate(data["auc"]),
        auc_method=plain(data["auc"].get("method") or ""),
        bootstrap=estimate(data.get("auc_bootstrap")),
        p_corrected=number((data.get("p_value") or {}).get("corrected")),
        asr=estimate(data["asr"]),
        rates=tuple(sorted(rates, key=lambda rate: rate.fpr)),
        roc=points(data["roc"], "fpr", "tpr"),
        above=points(data["roc"].get("band"), "fpr_low", "tpr_high"),
        below=points(data["roc"].get("band"), "fpr_high", "tpr_low"),
    )


def _quality(folder: Path, audited: str | None) -> Quality | None:
    path = folder / "quality" / "quality.json"
    again = f"run `smplora evaluate --adapter {shlex.quote(str(folder))}`"
    if not path.is_file():
        return None

    def parse(data: Any) -> Quality:
        """What quality.json measured."""
        if audited and data["subject"].get("adapter_sha256") not in (None, audited):
            raise CheckpointError(f"{path} measured another adapter than the audit; {again} again")
        features = [plain(name) for name in data["features"]]
        others = [(name, data["others"][name]) for name in features[1:]]
        scores = data.get("clip_score") or {}
        captions = tuple(plain(caption) for caption in data["captions"])
        own = ("n_generated", "seed", "num_inference_steps", "guidance_scale", "features")
        return Quality(
            by=tuple(_distances(name, measured) for name, measured in [(features[0], data), *others]),
            held_out_loss=estimate(data.get("held_out_loss")),
            clip_score=estimate(scores.get("generated")),
            real_clip_score=estimate(scores.get("held_out")),
            n_held_out=whole(data["against"]["held_out"].get("n")),
            settings=flat({key: data[key] for key in own if key in data}),
            captions=captions,
            samples=tiles(path.parent / "samples.png", len(captions)),
            real=tiles(path.parent / "real.png", len(captions)),
        )

    return load(path, "smplora.quality/2", again, parse)


def _distances(name: str, data: Any) -> Distances:
    held_out, train = data["against"]["held_out"], data["against"].get("train") or {}
    return Distances(
        name=name,
        title=plain(data["title"]),
        kid=estimate(held_out.get("kid")),
        fid=estimate(held_out.get("fid")),
        train_kid=estimate(train.get("kid")),
        train_fid=estimate(train.get("fid")),
        cmmd=estimate(held_out.get("cmmd")),
        diversity=tuple(estimate(held_out.get(n)) for n in ("precision", "recall", "density", "coverage")),
        nearest=estimate((data.get("nearest") or {}).get("ratio")),
    )


def tiles(path: Path, count: int) -> tuple[bytes, ...]:
    """Cut a strip into PNG files of its square pictures, without the strip's metadata; () if there is no strip."""
    if not path.is_file() or not count:
        return ()
    with Image.open(path) as strip:
        side = strip.height
        if strip.width != side * count:
            raise ValueError(f"{path.name} is {strip.width} x {side} pixels, not {count} squares")
        picture = strip.convert("RGB")
    return tuple(thumbnail(picture.crop((left, 0, left + side, side))) for left in range(0, picture.width, side))


def thumbnail(picture: Image.Image) -> bytes:
    """A PNG file of the picture, made small enough for a page and without metadata."""
    small = picture.convert("RGB")
    small.thumbnail((LARGEST_TILE, LARGEST_TILE))
    small.info = {}
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _run(folder: Path) -> Run:
    config, environment = folder / "config.yaml", folder / "environment.json"
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
        machine = read_json(environment) if environment.is_file() else {}
        return Run(folder, flat(settings or {}), flat(machine), read_curves(folder / "metrics.jsonl", CURVES))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise CheckpointError(f"a file of the run {folder} is damaged ({plain(error)})") from error
