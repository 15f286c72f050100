"""Whether an audit that was written before still holds."""

from __future__ import annotations

from typing import Any

from smplora.audit.audit import same_audit
from smplora.config.audit import AuditConfig
from smplora.results.records import FORMAT
from smplora.runs.results import kept_result, sealed


def kept_audit(config: AuditConfig) -> dict[str, Any] | None:
    """The audit.json that ``audit`` would write anew, if an earlier one still holds."""
    content = kept_result(config, "audit")
    if content is None or content.get("format") != FORMAT:
        return None
    same = content["split"]["seal"] == sealed(config)
    return content if same and same_audit(content, config) else None


def audit_done(config: AuditConfig) -> bool:
    """Whether this audit is there to be read."""
    return kept_audit(config) is not None
