"""Evaluates only what was not evaluated yet."""

from __future__ import annotations

from typing import Any

from smplora.config.evaluate import EvaluateConfig
from smplora.quality.evaluate import FORMAT as QUALITY_FORMAT
from smplora.quality.evaluate import evaluate, same_evaluation
from smplora.runs.results import _kept, _seal


def evaluate_once(config: EvaluateConfig) -> str | None:
    """Evaluate, unless that was done. Says nothing: the numbers stand beside those of the audit."""
    if kept_quality(config) is None:
        evaluate(config, progress=False)
    return None


def evaluate_done(config: EvaluateConfig) -> bool:
    """Whether this evaluation is there to be read."""
    return kept_quality(config) is not None


def kept_quality(config: EvaluateConfig) -> dict[str, Any] | None:
    """The quality.json that ``evaluate`` would write anew, if an earlier one still holds."""
    content = _kept(config, "quality")
    if content is None or content.get("format") != QUALITY_FORMAT:
        return None
    same = content["seal"] == _seal(config)
    return content if same and same_evaluation(content, config) else None
