"""Whether an audit that was written before still holds."""

from __future__ import annotations

from smplora.audit.audit import same_audit
from smplora.config.audit import AuditConfig
from smplora.results.audit import FORMAT, Audit
from smplora.runs.results import previous_result, sealed


def previous_audit(config: AuditConfig) -> Audit | None:
    """The audit that ``audit`` would write anew, if an earlier one still holds."""
    before = previous_result(config, "audit", Audit, FORMAT)
    same = before is not None and before.split.seal == sealed(config) and same_audit(before, config)
    return before if same else None


def audit_done(config: AuditConfig) -> bool:
    """Whether this audit is there to be read."""
    return previous_audit(config) is not None
