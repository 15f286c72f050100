"""What to do now: the sentences below the light of a report."""

from __future__ import annotations

from collections.abc import Sequence

from smplora.report.limitations import shadows_were_trained
from smplora.report.wording import most_exposed_first
from smplora.results.subjects import ReportedAdapter


def advice(subjects: Sequence[ReportedAdapter]) -> list[str]:
    """By the worst of the lights, most pressing first; commands stand between backticks."""
    worst = most_exposed_first(subjects)[0]
    level, about = worst.audit.verdict.level, worst.audit.subject
    name = worst.label if about.adapter_sha256 else "what these scores are of"
    shadows = (
        "Attackers who train adapters of their own find more: `smplora audit RUN --shadows 8` asks them."
        if not all(map(shadows_were_trained, subjects))
        else ""
    )
    unseen = [s.label for s in subjects if s.audit.verdict.level == "green"] if level == "red" else []
    said = {
        "invalid": [
            "Do not use these numbers: they measure something else than what the adapter gives away.",
            "Mend what the checks below name as failed, and audit again.",
        ],
        "red": [
            f"Do not publish {name} if it matters who or what is in its training images.",
            *([f"{', '.join(unseen)}: no leak was found. That one, perhaps."] if unseen else []),
            ""
            if not all(s.run.config for s in subjects)
            else "Less is given away by `--objective synth_lora --drop_nearest balanced`, by fewer steps and by more "
            "images; a guarantee is given by `--objective dp_lora` alone. Audit what comes out in the same way.",
        ],
        "amber": [
            f"Treat {name} as if it gave its images away: these images are too few, or the leak too small, to tell.",
            "More images tell: larger folders, or a training with a larger `--aux_size`.",
            shadows,
        ],
        "green": [
            shadows,
            "See that the pictures are good: an adapter that learned nothing gives nothing away."
            if any(s.quality is None for s in subjects)
            else "",
            "Then `smplora train --final RUN` trains on all images, and `smplora export` writes what may be published."
            if all(s.run.config for s in subjects)
            else "",
        ],
    }
    return [sentence for sentence in said[level] if sentence]
