"""Whether an evaluation that was written before still holds."""

from __future__ import annotations

from typing import Any

from smplora.config.evaluate import EvaluateConfig
from smplora.quality.evaluate import FORMAT, same_evaluation
from smplora.runs.results import kept_result, sealed


def kept_quality(config: EvaluateConfig) -> dict[str, Any] | None:
    """The quality.json that ``evaluate`` would write anew, if an earlier one still holds."""
    content = kept_result(config, "quality")
    if content is None or content.get("format") != FORMAT:
        return None
    same = content["seal"] == sealed(config)
    return content if same and same_evaluation(content, config) else None


def evaluate_done(config: EvaluateConfig) -> bool:
    """Whether this evaluation is there to be read."""
    return kept_quality(config) is not None
