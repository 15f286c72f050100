"""Whether an evaluation that was written before still holds."""

from __future__ import annotations

from smplora.config.evaluate import EvaluateConfig
from smplora.quality.evaluate import same_evaluation
from smplora.results.quality import FORMAT, Quality
from smplora.runs.results import previous_result, sealed


def previous_quality(config: EvaluateConfig) -> Quality | None:
    """The quality that ``evaluate`` would write anew, if an earlier one still holds."""
    before = previous_result(config, "quality", Quality, FORMAT)
    same = before is not None and before.seal == sealed(config) and same_evaluation(before, config)
    return before if same else None


def evaluate_done(config: EvaluateConfig) -> bool:
    """Whether this evaluation is there to be read."""
    return previous_quality(config) is not None
