"""Train, audit and evaluate only what was not done yet, for this very adapter, split and settings."""

from __future__ import annotations

from typing import Any

from smplora.audit import audit, same_audit
from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.evaluate import FORMAT as QUALITY_FORMAT
from smplora.evaluate import evaluate, same_evaluation
from smplora.results.records import FORMAT as AUDIT_FORMAT
from smplora.runs.results import _kept, _seal


def audit_once(config: AuditConfig) -> str:
    """Audit, unless that was done; returns the verdict for people."""
    content = kept_audit(config) or audit(config, progress=False)
    return f"{content['subject']['label']}: {content['verdict']['sentence']}"


def evaluate_once(config: EvaluateConfig) -> str | None:
    """Evaluate, unless that was done. Says nothing: the numbers stand beside those of the audit."""
    if kept_quality(config) is None:
        evaluate(config, progress=False)
    return None


def audit_done(config: AuditConfig) -> bool:
    """Whether this audit is there to be read."""
    return kept_audit(config) is not None


def evaluate_done(config: EvaluateConfig) -> bool:
    """Whether this evaluation is there to be read."""
    return kept_quality(config) is not None


def kept_audit(config: AuditConfig) -> dict[str, Any] | None:
    """The audit.json that ``audit`` would write anew, if an earlier one still holds."""
    content = _kept(config, "audit")
    if content is None or content.get("format") != AUDIT_FORMAT:
        return None
    same = content["split"]["seal"] == _seal(config)
    return content if same and same_audit(content, config) else None


def kept_quality(config: EvaluateConfig) -> dict[str, Any] | None:
    """The quality.json that ``evaluate`` would write anew, if an earlier one still holds."""
    content = _kept(config, "quality")
    if content is None or content.get("format") != QUALITY_FORMAT:
        return None
    same = content["seal"] == _seal(config)
    return content if same and same_evaluation(content, config) else None
