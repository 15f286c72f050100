"""Red, amber, green or invalid: what an audit's numbers come to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smplora.statistics.claims import GROUPS, LEVEL, SHARES

# |AUC - 0.5| / 0.5: an interval wholly above the first is a leak; all below the second is none that these cells show
LEAK, NO_LEAK = 0.1, 0.3
# a few fully exposed images move the AUC little, but the true positive rate at a low false positive rate much
EXPOSED = 2.0
COPIED = (1 - LEVEL) * SHARES["copies"]  # p below which copies of training images speak for themselves


def verdict(
    attacks: Sequence[Mapping[str, Any]],
    strongest: Mapping[str, Mapping[str, Any]],
    failed_gates: Sequence[str] = (),
    memorisation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The "verdict" object of audit.json, from all numbers and the strongest of each group (docs/formats.md).

    Invalid: a gate failed, so that the numbers do not measure what the adapter gives away. Red: something is
    significant, with a p below 0.05 that is corrected for all that was looked at, and not small: the 95 % interval of
    an attack's |AUC - 0.5| / 0.5 lies wholly above 0.1, or that of a group's most significant true positive rate
    wholly above twice the false positive rate; or training images come back when images are drawn from their captions,
    with a p below 0.01. Green: no corrected p is below 0.05, and in each group the 95 % interval of the strongest
    attack's |AUC - 0.5| / 0.5 ends below 0.3. That attack was chosen on the other half, so that its interval holds as
    it stands, and attacks that find nothing do not widen it.
    """
    titles = {attack["name"]: attack["title"] for attack in attacks}
    numbers = {(group, attack["name"]): attack[group] for attack in attacks for group in GROUPS if attack[group]}
    chosen = {group: numbers[group, strongest[group]["attack"]] for group in GROUPS}
    worst = max(numbers["auc_deviation"]["high"] for numbers in chosen.values())
    found = {key: one for key, one in numbers.items() if one["p_value"]["auc"] < 1 - LEVEL}
    leaks = [key for key, one in found.items() if one["auc_deviation"]["low"] > LEAK]
    rated = [(g, rate) for g in GROUPS if (rate := strongest[g]["low_fpr"])]
    exposed = [
        (rate["tpr"]["low"] / rate["fpr"], g, rate)
        for g, rate in rated
        if rate["tpr"]["low"] > EXPOSED * rate["fpr"] and rate["p_corrected"] < 1 - LEVEL
    ]
    nothing = all(strongest[g]["smallest_p_corrected"] >= 1 - LEVEL for g in GROUPS)

    def size(key: tuple[str, str]) -> tuple[float, float]:
        return numbers[key]["auc_deviation"]["low"], numbers[key]["auc_deviation"]["value"]

    group, attack = max(leaks or [*found, *((g, strongest[g]["attack"]) for g in GROUPS)], key=size)
    said = _numbers(numbers[group, attack], titles[attack], group)
    count = strongest[group]["attacks"]
    which = f"strongest of {count} attacks" if count > 1 else "attack"
    if leaks:
        level, sentence = "red", f"Leaks: the {which} has {said}."
    elif exposed:
        _, group, rate = max(exposed, key=lambda e: e[0])
        level, attack = "red", rate["attack"]
        share = (
            f"{100 * rate['tpr']['value']:.0f} % of {GROUPS[group]} are found at {100 * rate['fpr']:g} % false alarms"
        )
        sentence = f"Leaks some images: {share} by '{titles[attack]}'."
    elif memorisation and memorisation["found"] == "copies" and memorisation["p_corrected"] < COPIED:
        level, sentence = "red", str(memorisation["sentence"])
    elif nothing and worst < NO_LEAK:
        level = "green"
        sentence = f"No leak found by these attacks; an average AUC above {0.5 + worst / 2:.2f} is ruled out at 95 %."
    else:
        level = "amber"
        sentence = f"Unclear: the {which} has {said}; up to {0.5 + worst / 2:.2f} is possible."
    if failed_gates:
        level, sentence = "invalid", f"Invalid audit: {'; '.join(failed_gates)}. Disregard: {sentence}"
    return {"level": level, "sentence": sentence, "attack": attack, "group": group}


def _numbers(numbers: Mapping[str, Any], title: str, group: str) -> str:
    auc = numbers["auc"]
    return f"an AUC of {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}] ('{title}', on {GROUPS[group]})"
