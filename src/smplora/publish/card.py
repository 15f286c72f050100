"""The model card: README.md beside an adapter, in the hub's format. Numbers of the audit, nothing about the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from smplora.adapters.files.kohya import SDXL
from smplora.adapters.files.read import read_metadata
from smplora.adapters.files.write import KOHYA_FILE, OURS
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.train import LORA_OPTIONS, TrainConfig
from smplora.core.files import BUNDLED, PACKAGE, write_atomically
from smplora.core.ownership import CARD_MARK
from smplora.core.version import __version__
from smplora.models.families import family_named
from smplora.report.limitations import cautions, not_measured
from smplora.report.tables import QUALITY_HEADERS, attack_headers, attack_rows, quality_cells
from smplora.report.wording import GROUP_WORDS, cells
from smplora.results.attack import GROUPS
from smplora.results.audit import AuditSubject
from smplora.results.estimate import Estimate, Proportion
from smplora.results.record import read
from smplora.results.run import Privacy
from smplora.results.subjects import ReportedAdapter, audit_of, collect
from smplora.runs.folder import PRIVACY
from smplora.runs.rehearsal import FOLDER as REHEARSAL
from smplora.runs.rehearsal import what_is_kept_out
from smplora.runs.subject import Subject

CARD = "README.md"
MARKER = CARD_MARK
FAMILIES = {
    "sd_v1": "Stable Diffusion 1.x",
    "sd_v2": "Stable Diffusion 2.x",
    "sd_v2_v": "Stable Diffusion 2.x (v-prediction)",
    SDXL: "Stable Diffusion XL",
}
_GAIN = (
    "the gain of a proxy attack model that learns, while the adapter trains, to tell its training images from others"
)
OBJECTIVES = {
    "lora": "Trained with the plain adaptation loss: nothing was done against membership inference.",
    "dp_lora": "Trained with DP-LoRA: the plain adaptation loss, with each image's gradient clipped and noise added.",
    "distill_lora": "Trained with Distill-LoRA: on the predictions of other adapters, for each training image "
    "those of one that had not seen it.",
    "synth_lora": "Trained with Synth-LoRA: on images that another adapter, which is private, drew; it saw no private "
    "image itself.",
    "mp_lora": f"Trained with MP-LoRA: the adaptation loss plus lambda times {_GAIN}.",
    "smp_lora": f"Trained with SMP-LoRA: the adaptation loss divided by one minus lambda times {_GAIN}.",
}
# settings that may be told: none of them is a path, a caption or a count of images
SHOWN_SETTINGS = (
    *(
        "adaptation",
        "objective",
        "mi_lambda",
        "rank",
        "lora_alpha",
        "lora_targets",
        "train_text_encoder",
        "use_rslora",
        "use_dora",
    ),
    *("resolution", "learning_rate", "lr_scheduler", "train_batch_size", "gradient_accumulation_steps", "snr_gamma"),
    *("mixed_precision", "quantize", "save_precision", "clip_skip", "max_token_length"),
    *("target_epsilon", "noise_multiplier", "noise_multiplicity"),
    *("num_teachers", "synthetic_teachers", "teacher_objective", "weight_noise"),
)


@dataclass(frozen=True)
class CardOptions:
    """What the adapter's owner wants on the card beyond what the run knows."""

    base_model: str | None = None
    license: str | None = None
    instance_prompt: str | None = None
    repo_id: str | None = None
    pictures: tuple[str, ...] = ()  # names of files beside the card


def write_card(subject: Subject) -> None:
    """Write or refresh the card beside the subject's adapter, unless its owner made it his own (``MARKER`` is gone).

    Raises:
        OSError: it cannot be written.
    """
    path = subject.folder / CARD
    if path.is_symlink():
        return
    if not path.exists() or MARKER in path.read_text(encoding="utf-8"):
        write_atomically(path, render(subject))


def render(subject: Subject, options: CardOptions | None = None, *, kohya: bool | None = None) -> str:
    """The card's text; the same input gives the same text.

    Args:
        kohya: whether the card stands beside a file in the kohya layout. Default: whether the folder has one.

    Raises:
        CheckpointError: a damaged adapter or audit.
    """
    options = options or CardOptions()
    adaptation = subject.adaptation
    metadata = read_metadata(adaptation.weights(subject.folder)[0])
    family = metadata.get(f"{OURS}family", "")
    base = options.base_model or metadata.get(f"{OURS}base_model", "")
    kind = f"{subject.title[:1].upper()}{subject.title[1:]} {adaptation.noun}".strip()
    source = options.repo_id or "."
    flow = family_named(family)
    pipeline = flow.PIPELINES[0] if flow else f"StableDiffusion{'XL' * (family == SDXL)}Pipeline"
    audit, stale = audited(subject)
    title = options.repo_id.rpartition("/")[2] if options.repo_id else kind
    toy = next((folder for title, folder in BUNDLED.values() if title == base), None)
    what = f"{kind} of {flow.TITLE if flow else FAMILIES.get(family, 'a latent diffusion model')}"
    if toy:
        what = f"{kind} of {base} of smplora, a toy that draws digits of 32 x 32 pixels"
    kohya = (subject.folder / KOHYA_FILE).exists() if kohya is None else kohya
    environment = Environment(
        loader=PackageLoader("smplora.publish", ""), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("card.md.j2").render(
        front_matter=_front_matter(subject, base, family, options, title, audit),
        title=title,
        what=f"{what}{f', trained on {base}' if base and not toy else ''}, from {subject.step} steps of training.",
        toy=f"smplora/{toy.relative_to(PACKAGE).as_posix()}" if toy else "",
        pictures=options.pictures,
        instance_prompt=_inline(options.instance_prompt or subject.config.trigger),
        pipeline=pipeline,
        usage="\n".join(adaptation.usage(source, pipeline, base if "/" in base else "BASE_MODEL")),
        exact=adaptation.weights(subject.folder)[0].name,
        kohya_file=KOHYA_FILE if kohya else "",
        clip_skip=subject.config.clip_skip - 1,
        dora=subject.config.use_dora,
        settings=_settings(subject.config),
        objective=OBJECTIVES.get(subject.config.objective, f"Trained with {subject.title}.") + _promise(subject),
        subject=audit,
        stale=stale,
        rehearsed=bool(audit and subject.config.final),
        kept_out=what_is_kept_out(subject.config) if subject.config.final else "",
        **(_numbers(audit) if audit else {}),
        version=__version__,
        marker=MARKER,
    )


def audited(subject: Subject) -> tuple[ReportedAdapter | None, bool]:
    """The audit of this very adapter (of a final: of its rehearsal), if there is one, and whether there is one of
    another version of it.

    Raises:
        CheckpointError: it is damaged.
    """
    if subject.config.final and (subject.run / REHEARSAL / "audit" / "audit.json").exists():
        return collect([subject.run / REHEARSAL])[0], False
    if not (subject.folder / "audit" / "audit.json").exists():
        return None, False
    path, again = audit_of(subject.folder)
    if read(path, AuditSubject, again).subject.adapter_sha256 != subject.adapter_sha256:
        return None, True
    return collect([subject.folder])[0], False


def _numbers(subject: ReportedAdapter) -> dict[str, Any]:
    audit, quality = subject.audit, subject.quality
    cells_of_quality = zip(QUALITY_HEADERS, quality_cells(quality), strict=True) if quality else ()
    measured = [f"{name} {cell.text} {cell.interval}".rstrip() for name, cell in cells_of_quality if cell.text]
    return {
        "verdict": audit.verdict.sentence,
        "cells": cells(audit.split.cells),
        "headers": attack_headers(subject),
        "rows": attack_rows(subject),
        "gaps": [*cautions([subject]), *not_measured([subject])],
        "quality": ", ".join(measured),
        "copies": audit.memorisation.sentence if audit.memorisation else "",
    }


def _promise(subject: Subject) -> str:
    """What differential privacy guarantees, where it was used."""
    path = subject.folder / PRIVACY
    if not path.exists():
        return ""
    promise = read(path, Privacy, "train the adapter anew")
    return (
        f" It is ({promise.epsilon:.3g}, {promise.delta:g})-differentially private for adding or removing one image "
        f"with its caption (noise multiplier {promise.noise_multiplier:.3g}, {promise.accountant} accountant), as long "
        "as the run folder, which holds the seed of the noise, stays private."
    )


def _front_matter(
    subject: Subject, base: str, family: str, options: CardOptions, title: str, audit: ReportedAdapter | None
) -> str:
    """The card's head, as the hub reads it."""
    flow = family_named(family)
    line = flow.TAG if flow else "stable-diffusion-xl" if family == SDXL else "stable-diffusion"
    relation = "adapter" if subject.adaptation.freezes_base else "finetune"
    more: dict[str, Any] = {
        **({"base_model_relation": relation} if "/" in base else {}),
        **({"instance_prompt": options.instance_prompt} if options.instance_prompt else {}),
    }
    if options.pictures:
        text = options.instance_prompt or "-"
        more["widget"] = [{"text": text, "output": {"url": picture}} for picture in options.pictures]
    means_something = audit is not None and audit.audit.verdict.level != "invalid"
    numbers = _eval_results(audit, bool(subject.config.final)) if audit and means_something else None
    data = ModelCardData(
        base_model=base if "/" in base else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        license=options.license,
        tags=["text-to-image", "diffusers", *subject.adaptation.tags, line, "smplora"],
        model_name=title if numbers else None,
        eval_results=numbers,
        **more,
    )
    return f"{data.to_yaml()}\n"


def _eval_results(subject: ReportedAdapter, rehearsed: bool) -> list[EvalResult]:
    """The audit, in the hub's form: the strongest attack on each group of members, and how good the images are."""
    of = "this adapter's rehearsal" if rehearsed else "this adapter"
    results = []

    def add(images: str, kind: str, name: str, estimate: Estimate | Proportion | None) -> None:
        if estimate is None or estimate.value is None:
            return
        ends = {end: getattr(estimate, end) for end in ("low", "high") if getattr(estimate, end) is not None}
        results.append(
            EvalResult(
                task_type="text-to-image", dataset_type="private", dataset_name="private images",
                dataset_split=images, metric_type=kind,
                metric_name=f"{name}, of {of}", metric_value=round(estimate.value, 4),
                metric_args={end: round(value, 4) for end, value in ends.items()} or None,
            )
        )  # fmt: skip

    for group in GROUPS:
        attack = subject.audit.chosen(group).title
        images = f"{GROUP_WORDS[group]} against unseen images"
        add(images, "roc_auc", f"AUC of membership inference by '{attack}'", subject.audit.numbers(group).auc)
    if subject.quality:
        held_out = subject.quality.against.held_out
        add("held-out images", "fid", "FID", held_out.fid)
        add("held-out images", "kid", "KID", held_out.kid)
    return results


def _settings(config: TrainConfig) -> Sequence[tuple[str, Any]]:
    plain = replace(TrainConfig(), objective=config.objective)
    shown = [name for name in SHOWN_SETTINGS if name != "mi_lambda" or config.objective in WITH_PROXY]
    always = ("objective", "mi_lambda", "rank", "lora_alpha", "lora_targets", "resolution", "learning_rate")
    foreign = () if config.adaptation == "lora" else LORA_OPTIONS
    values = ((name, getattr(config, name)) for name in shown if name not in foreign)
    told = [(name, value) for name, value in values if name in always or value != getattr(plain, name)]
    steered = config.measured_budget and config.objective in WITH_PROXY
    return [(n, f"{v}, then steered by --privacy_budget" if steered and n == "mi_lambda" else v) for n, v in told]


def _inline(text: str) -> str:
    """Safe in a code span and in a Python string of the card."""
    return " ".join(text.replace("`", "'").replace('"', "'").replace("\\", "/").split())
