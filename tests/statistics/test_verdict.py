"""Red, amber, green or invalid."""

from __future__ import annotations

from typing import Any

import pytest

from smplora.core.wording import p_text
from smplora.statistics.verdict import verdict


def group(low: float, value: float, high: float, p: float = 0.5, rate: tuple[float, float] | None = None) -> Any:
    """(numbers, strongest) of one group with one attack; ``rate``: lower bound of the TPR at 5 % FPR, its p."""
    ends = sorted(abs(x - 0.5) * 2 for x in (low, high))
    deviation = {
        "value": abs(value - 0.5) * 2,
        "low": 0.0 if low <= 0.5 <= high else ends[0],
        "high": ends[1],
    }
    low_fpr = rate and {
        "attack": "a",
        "fpr": 0.05,
        "tpr": {"value": rate[0] + 0.05, "low": rate[0], "high": rate[0] + 0.1},
        "p_corrected": rate[1],
    }
    smallest = min([p, *([rate[1]] if rate else [])])
    auc = {"value": value, "low": low, "high": high}
    numbers = {"auc": auc, "auc_deviation": deviation, "p_value": {"p": p, "auc": p, "corrected": smallest}}
    return numbers, {"attack": "a", "attacks": 3, "low_fpr": low_fpr, "smallest_p_corrected": smallest}


def judged(test: Any, aux: Any, failed: tuple[str, ...] = ()) -> dict[str, Any]:
    attacks = [{"name": "a", "title": "A", "test": test[0], "aux_members": aux[0]}]
    return verdict(attacks, {"test": test[1], "aux_members": aux[1]}, failed)


NOTHING = group(0.4, 0.5, 0.6)


@pytest.mark.parametrize(
    ("test", "aux", "level", "where"),
    [
        (group(0.8, 0.9, 0.95, 0.001), NOTHING, "red", "test"),
        (NOTHING, group(0.8, 0.9, 0.95, 0.001), "red", "aux_members"),
        (group(0.05, 0.1, 0.2, 0.001), NOTHING, "red", "test"),  # confidently wrong is leakage too
        (group(0.8, 0.9, 0.95, 0.06), NOTHING, "amber", "test"),  # large, perhaps by chance: so much was looked at
        (group(0.45, 0.5, 0.6), NOTHING, "green", None),
        (group(0.3, 0.5, 0.7), NOTHING, "amber", None),  # too few images to rule out 0.7
        (group(0.51, 0.55, 0.6, 0.01), NOTHING, "amber", "test"),
        (NOTHING, group(0.4, 0.5, 0.6, rate=(0.11, 0.01)), "red", "aux_members"),  # a few fully exposed
        (NOTHING, group(0.4, 0.5, 0.6, rate=(0.11, 0.06)), "green", None),  # chance, having looked at so many rates
        (group(0.4, 0.5, 0.6, rate=(0.06, 0.04)), NOTHING, "amber", None),
    ],
)
def test_verdict(test: Any, aux: Any, level: str, where: str | None) -> None:
    result = judged(test, aux)
    assert result["level"] == level
    assert where in (None, result["group"])


def test_another_attack_counts_by_its_own_p() -> None:
    numbers, best = group(0.45, 0.5, 0.6)
    other = group(0.52, 0.55, 0.6, 0.04)[0]
    attacks = [
        {"name": name, "title": name, "test": one, "aux_members": None if name == "b" else numbers}
        for name, one in (("a", numbers), ("b", other))
    ]
    strongest = {"test": {**best, "smallest_p_corrected": 0.04}, "aux_members": best}
    found = verdict(attacks, strongest)
    assert (found["level"], found["attack"]) == ("amber", "b"), "significant, but small: no leak, and no green"
    attacks[1]["test"] = group(0.6, 0.7, 0.8, 0.04)[0]
    assert verdict(attacks, strongest)["level"] == "red"
    wide = {"name": "c", "title": "c", "test": group(0.3, 0.5, 0.7)[0], "aux_members": None}
    calm = {"test": best, "aux_members": best}
    assert verdict([attacks[0], wide], calm)["level"] == "green", "an attack that finds nothing changes nothing"


def test_the_sentence_is_for_everybody() -> None:
    sentence = judged(group(0.8, 0.9, 0.95, 0.0004), NOTHING)["sentence"]
    assert "the strongest of 3 attacks has an AUC of 0.90 [0.80, 0.95] ('A', on " in sentence
    unclear = judged(group(0.4, 0.6, 0.8, 0.3), NOTHING)["sentence"]
    assert unclear.startswith("Unclear: the strongest of 3 attacks has an AUC of 0.60 [0.40, 0.80]")
    assert unclear.endswith("up to 0.80 is possible.")
    assert not any("corrected" in one for one in (sentence, unclear)), "p values stand in the tables"
    assert [p_text(p) for p in (0.0009, 0.0321, 0.3)] == ["< 0.001", "0.032", "0.30"]


def test_a_failed_gate_makes_everything_invalid() -> None:
    result = judged(group(0.8, 0.9, 0.95, 0.001), NOTHING, ("images alone tell members: AUC 0.90",))
    assert result["level"] == "invalid"
    assert result["sentence"].startswith("Invalid audit: images alone tell members: AUC 0.90. Disregard: Leaks")


@pytest.mark.parametrize(
    ("found", "p", "level"), [("copies", 0.001, "red"), ("copies", 0.02, "green"), ("nearer", 0.001, "green")]
)
def test_copies_of_training_images_are_a_leak(found: str, p: float, level: str) -> None:
    test, aux = group(0.45, 0.5, 0.55), group(0.45, 0.5, 0.55)
    attacks = [{"name": "a", "title": "A", "test": test[0], "aux_members": aux[0]}]
    strongest = {"test": test[1], "aux_members": aux[1]}
    memorisation = {"found": found, "p_corrected": p, "sentence": "Copies training images."}
    assert verdict(attacks, strongest)["level"] == "green"
    said = verdict(attacks, strongest, memorisation=memorisation)
    assert said["level"] == level
    assert (said["sentence"] == "Copies training images.") == (level == "red")
