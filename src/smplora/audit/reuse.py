"""Audits only what was not audited yet."""

from __future__ import annotations

from typing import Any

from smplora.audit.audit import audit, same_audit
from smplora.config.audit import AuditConfig
from smplora.results.records import FORMAT as AUDIT_FORMAT
from smplora.runs.results import _kept, _seal


def audit_once(config: AuditConfig) -> str:
    """Audit, unless that was done; returns the verdict for people."""
    content = kept_audit(config) or audit(config, progress=False)
    return f"{content['subject']['label']}: {content['verdict']['sentence']}"


def audit_done(config: AuditConfig) -> bool:
    """Whether this audit is there to be read."""
    return kept_audit(config) is not None


def kept_audit(config: AuditConfig) -> dict[str, Any] | None:
    """The audit.json that ``audit`` would write anew, if an earlier one still holds."""
    content = _kept(config, "audit")
    if content is None or content.get("format") != AUDIT_FORMAT:
        return None
    same = content["split"]["seal"] == _seal(config)
    return content if same and same_audit(content, config) else None
