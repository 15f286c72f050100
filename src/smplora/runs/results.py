"""What was audited and evaluated before, and whether it still holds."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.core.errors import UserError
from smplora.core.reading import read_json
from smplora.data.split import MANIFEST
from smplora.results.audit import Audit
from smplora.results.quality import Quality
from smplora.results.record import read
from smplora.runs.subject import find_subject

Result = TypeVar("Result", Audit, Quality)


def previous_result(
    config: AuditConfig | EvaluateConfig, name: str, kind: type[Result], expected: str
) -> Result | None:
    """What was written of this adapter, whatever the settings; None for adapters that are not runs, and where it cannot
    be read or is of another format."""
    try:
        subject = find_subject(config.adapter or "")
        folder = Path(config.output_dir) if config.output_dir else subject.folder / name
        before = read(folder / f"{name}.json", kind, f"run 'smplora {name}'", expected)
        return before if before.subject.adapter_sha256 == subject.adapter_sha256 else None
    except (OSError, UserError):
        return None


def sealed(config: AuditConfig | EvaluateConfig) -> str | None:
    """The seal of the split that an adapter is looked at with; None where there is none to be read."""
    manifest = Path(config.split_manifest or find_subject(config.adapter or "").run / MANIFEST)
    try:
        return str(read_json(manifest)["seal"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
