"""Red, amber or green."""

from __future__ import annotations

from typing import Any

import pytest

from smplora.verdict import verdict


def rate(low: float, resolvable: bool = True) -> dict[str, Any]:
    return {"value": low + 0.05, "low": low, "high": low + 0.1, "resolvable": resolvable}


def numbers(low: float, value: float, high: float, tpr: dict[str, Any] | None = None) -> dict[str, Any]:
    deviations = sorted(abs(x - 0.5) * 2 for x in (low, high))
    return {
        "tpr_at_fpr": {"0.001": rate(0.9, resolvable=False), "0.05": tpr or rate(0.01)},
        "auc": {"value": value, "low": low, "high": high},
        "auc_deviation": {
            "value": abs(value - 0.5) * 2,
            "low": 0.0 if low <= 0.5 <= high else deviations[0],
            "high": deviations[1],
        },
    }


@pytest.mark.parametrize(
    ("test", "aux_members", "level", "group"),
    [
        (numbers(0.8, 0.9, 0.95), numbers(0.4, 0.5, 0.6), "red", "test"),
        (numbers(0.4, 0.5, 0.6), numbers(0.8, 0.9, 0.95), "red", "aux_members"),
        (numbers(0.05, 0.1, 0.2), numbers(0.4, 0.5, 0.6), "red", "test"),  # confidently wrong is leakage too
        (numbers(0.45, 0.5, 0.6), numbers(0.4, 0.5, 0.6), "green", None),
        (numbers(0.3, 0.5, 0.7), numbers(0.4, 0.5, 0.6), "amber", None),  # too few images to rule out 0.7
        (numbers(0.51, 0.55, 0.6), numbers(0.4, 0.5, 0.6), "amber", "test"),
        (numbers(0.4, 0.5, 0.6), numbers(0.4, 0.5, 0.6, rate(0.11)), "red", "aux_members"),  # a few fully exposed
        (numbers(0.4, 0.5, 0.6, rate(0.06)), numbers(0.4, 0.5, 0.6), "amber", None),
    ],
)
def test_verdict(test: dict[str, Any], aux_members: dict[str, Any], level: str, group: str | None) -> None:
    result = verdict([{"name": "a", "title": "A", "test": test, "aux_members": aux_members}])
    assert result["level"] == level
    assert group in (None, result["group"])
