"""What was audited and evaluated before, and whether it still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.core.errors import UserError
from smplora.core.files import read_json
from smplora.data.split import MANIFEST
from smplora.runs.subject import find_subject


def kept_result(config: AuditConfig | EvaluateConfig, name: str) -> dict[str, Any] | None:
    """What was written of this adapter, whatever the settings; None for adapters that are not runs."""
    try:
        subject = find_subject(config.adapter or "")
        folder = Path(config.output_dir) if config.output_dir else subject.folder / name
        content = dict(read_json(folder / f"{name}.json"))
        same = content.get("subject", {}).get("adapter_sha256") == subject.adapter_sha256
    except (OSError, ValueError, UserError):
        return None
    return content if same else None


def sealed(config: AuditConfig | EvaluateConfig) -> str | None:
    """The seal of the split that an adapter is looked at with; None where there is none to be read."""
    manifest = Path(config.split_manifest or find_subject(config.adapter or "").run / MANIFEST)
    try:
        return str(read_json(manifest)["seal"])
    except (OSError, ValueError, KeyError):
        return None
