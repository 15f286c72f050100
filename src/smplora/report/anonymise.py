"""What a report may show to others: numbers and verdicts; no images, captions, names of files, folders, models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from smplora.config.audit import AuditConfig
from smplora.config.catalogue.objectives import TITLES
from smplora.config.train import TrainConfig
from smplora.results.subjects import Copies, ReportedAdapter, ReportedRun, flat

NUMBER = re.compile(r"-?[\d.]+(e-?\d+)?|true|false|null|None", re.IGNORECASE)
HARMLESS = ("objective", "adaptation", "optimizer", "lr_scheduler", "mixed_precision", "lora_targets", "split_protocol",
            "prediction_type", "drop_nearest", "synthetic_sampler", "tier", "attacks", "timesteps", "latents",
            "guidance", "signals")  # fmt: skip
TEXTS = {
    f.name for options in (TrainConfig, AuditConfig) for f in fields(options) if re.search(r"\bstr\b", str(f.type))
}


def anonymous(subjects: Sequence[ReportedAdapter]) -> tuple[ReportedAdapter, ...]:
    """The subjects without anything that could name or show an image: what is not known to be harmless is left out."""
    runs = {
        subject.run: ReportedRun(
            Path(f"run-{number}"),
            _harmless(subject.run.config),
            subject.run.environment,
            subject.run.curves,
            subject.run.budget,
        )
        for number, subject in enumerate({s.run: s for s in subjects}.values(), 1)
    }
    return tuple(_anonymous(subject, number, runs[subject.run]) for number, subject in enumerate(subjects, 1))


def _anonymous(subject: ReportedAdapter, number: int, run: ReportedRun) -> ReportedAdapter:
    audit, about, whole = subject.audit, subject.audit.subject, subject.folder == subject.run.folder
    title = TITLES.get(about.objective, "")
    step = "" if whole or about.step is None else f", stopped at step {about.step}"
    label = f"Adapter {number}" + (f" ({title}{step})" if title else "")
    about = replace(about, label=label, model="a base model")
    return ReportedAdapter(
        folder=run.folder if whole else Path(f"subject-{number}"),
        label=label,
        audit=replace(audit, subject=about, settings=_harmless(flat(audit.settings))),
        quality=subject.quality and replace(subject.quality, subject=about, captions=()),
        samples=(),
        real=(),
        exposed=None,
        copies=Copies(),
        run=run,
    )


def _harmless(settings: Mapping[str, str]) -> dict[str, str]:
    """Numbers, and what is known to be harmless. No seeds: with the images and the split's, members are known. No text
    either that happens to be a number, as the name of a folder may be."""
    last = {key: key.split(".")[-1] for key in settings}
    return {
        key: value
        for key, value in settings.items()
        if last[key] in HARMLESS
        or (NUMBER.fullmatch(value) and not last[key].endswith(("seed", "seeds")) and last[key] not in TEXTS)
    }
