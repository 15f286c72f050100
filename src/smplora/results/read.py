"""Reads what audits and evaluations wrote into the records of this room."""

from __future__ import annotations

import io
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from smplora.core.errors import CheckpointError, listing
from smplora.core.files import read_json
from smplora.core.wording import decimal, percent
from smplora.results.parse import estimate, flat, load, number, one_of, plain, read_curves, whole
from smplora.results.records import (
    GROUPS,
    LEVELS,
    Attack,
    CopyMeasure,
    CopyPair,
    Counted,
    Distances,
    Epsilon,
    Evidence,
    Exposed,
    Finding,
    Gate,
    Histogram,
    Memorisation,
    Numbers,
    Prompts,
    Quality,
    Rate,
    Run,
    Subject,
    Verdict,
)

LARGEST_TILE = 256  # pixels: a page of photographs should still travel by mail
CURVES = ("adaptation_loss", "mi_gain", "proxy_accuracy")
SIDES = ("train", "held_out")
COLUMNS = ("Generated", "Nearest training image", "Nearest held-out image")


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


def read_memorisation(data: Any, folder: Path) -> Memorisation | None:
    """The "memorisation" object of audit.json, with the pictures and captions in the same folder, if there are any."""
    if not data:
        return None
    images, settings = data["images"], data["settings"]
    guidance = float(settings["guidance"])
    guided = f"guidance {guidance:g}" if guidance != 1 else "no guidance"
    about = (
        f"{int(images['generated'])} images generated from training captions ({int(settings['images'])} for each "
        f"training image, {int(settings['steps'])} steps, {guided}), compared "
        f"with {int(images['train'])} training and {int(images['held_out'])} held-out images."
    )
    pairs, captions = _private(folder)
    return Memorisation(
        found=one_of(data["found"], ("copies", "nearer", None)),
        sentence=plain(data["sentence"]),
        about=about if settings["encoder"] else f"{about} Embeddings were not compared: no --attack_encoder.",
        measures=tuple(_measure(m) for m in data["measures"]),
        prompts=_prompts(data["prompts"]),
        pairs=pairs,
        captions=captions,
    )


def _measure(data: Mapping[str, Any]) -> CopyMeasure:
    test = data["nearer_test"]
    ratio = estimate({"value": test["ratio"]["value"], **test["ratio"]["chance"]}) if test else None
    return CopyMeasure(
        title=plain(data["title"]),
        reference=plain(data["reference"]),
        bibtex=str(data["bibtex"]).strip(),
        threshold=float(data["threshold"]),
        images={side: _counted(data["images"][side]) for side in SIDES},
        generations={side: _counted(data["generations"][side]) for side in SIDES},
        p=float(data["p"]),
        ratio=ratio,
        ratio_p=float(test["p"]) if test else None,
    )


def _counted(data: Mapping[str, Any]) -> Counted:
    return Counted(int(data["count"]), int(data["of"]), estimate(data))


def _prompts(data: Mapping[str, Any]) -> Prompts:
    scores = {
        name: (number(found["train"]), number(found["held_out"]), estimate(found["auc"]))
        for name, found in data["scores"].items()
    }
    return Prompts(plain(data["reference"]), str(data["bibtex"]).strip(), scores, plain(data["reason"] or ""))


def _private(folder: Path) -> tuple[tuple[CopyPair, ...], tuple[tuple[str, float, float], ...]]:
    try:
        about = read_json(folder / "memorised.json")
        with Image.open(folder / "memorised.png") as file:
            grid = file.convert("RGB")
        side = grid.width // len(COLUMNS)
        if grid.height != side * len(about["pairs"]):
            return (), ()
        pairs = []
        for row, pair in enumerate(about["pairs"]):
            pictures = []
            for column in range(len(COLUMNS)):
                buffer = BytesIO()
                left, top = side * column, side * row
                grid.crop((left, top, left + side, top + side)).save(buffer, format="PNG")
                pictures.append(buffer.getvalue())
            pairs.append(CopyPair(tuple(pictures), _note(pair)))
        captions = tuple((plain(c["caption"]), float(c["adapter"]), float(c["base"])) for c in about["captions"])
        return tuple(pairs), captions
    except (OSError, ValueError, KeyError, TypeError):
        return (), ()


def _note(pair: Mapping[str, Any]) -> str:
    near, other = pair["train"], pair["held_out"]
    measured = [name for name in ("tiles", "embedding") if near[name] is not None]
    distances = "; ".join(
        f"{name} {decimal(float(near[name]), 2)}, held-out {decimal(float(other[name]), 2)}" for name in measured
    )
    own = "from its own caption" if pair["of_its_own_caption"] else "from another image's caption"
    return f"{plain(pair['caption'])}; {own}; {distances}"


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
