"""What a report may show to others: numbers and verdicts; no images, captions, names of files, folders, models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from smplora.config.catalogue.objectives import TITLES
from smplora.results.subjects import Copies, ReportedAdapter, ReportedRun, flat

NUMBER = re.compile(r"-?[\d.]+(e-?\d+)?|true|false|null|None", re.IGNORECASE)
HARMLESS = ("objective", "adaptation", "optimizer", "lr_scheduler", "mixed_precision", "lora_targets", "split_protocol",
            "prediction_type", "tier", "attacks", "timesteps", "latents", "guidance", "signals")  # fmt: skip


def anonymous(subjects: Sequence[ReportedAdapter]) -> tuple[ReportedAdapter, ...]:
    """The subjects without anything that could name or show an image: what is not known to be harmless is left out."""
    runs = {
        subject.run: ReportedRun(
            Path(f"run-{number}"), _harmless(subject.run.config), subject.run.environment, subject.run.curves
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
    return {key: value for key, value in settings.items() if NUMBER.fullmatch(value) or key.split(".")[-1] in HARMLESS}
