"""Red, amber or green: what an audit's numbers come to. Pure."""

from __future__ import annotations

from typing import Any

# |AUC - 0.5| / 0.5: an interval wholly above the first is a leak; all below the second is none that these cells show
LEAK, NO_LEAK = 0.1, 0.3
# a few fully exposed images move the AUC little, but the true positive rate at a low false positive rate much
EXPOSED = 2.0
GROUPS = {
    "test": "members that no attack or proxy has trained on",
    "aux_members": "members that attacks and proxies train on",
}


def verdict(attacks: list[dict[str, Any]]) -> dict[str, Any]:
    """The "verdict" object of audit.json, from the attacks' numbers (docs/formats.md) on both groups of members.

    Red: an interval of |AUC - 0.5| / 0.5 lies wholly above 0.1, or the interval of a resolvable true positive rate
    wholly above twice its false positive rate. Green: every interval of |AUC - 0.5| / 0.5 contains 0 and ends below
    0.3, and no resolvable true positive rate lies wholly above its false positive rate.
    """
    found = [(attack[group], attack, group) for attack in attacks for group in GROUPS]
    numbers, attack, group = max(found, key=lambda f: (f[0]["auc_deviation"]["low"], f[0]["auc_deviation"]["value"]))
    worst = max(f[0]["auc_deviation"]["high"] for f in found)
    auc = numbers["auc"]
    who = f"by '{attack['title']}' on {GROUPS[group]}"
    strongest = f"AUC {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}] {who}"
    rates = [
        (rate["low"] / float(fpr), rate, float(fpr), a, g)
        for n, a, g in found
        for fpr, rate in n["tpr_at_fpr"].items()
        if rate["resolvable"]
    ]
    none: tuple[float, dict[str, Any], float, dict[str, Any], str] = (0.0, {}, 0.0, attack, group)
    times, rate, fpr, exposing, exposed = max(rates, key=lambda r: r[0], default=none)
    if numbers["auc_deviation"]["low"] > LEAK:
        level, sentence = "red", f"Leaks: {strongest}."
    elif times > EXPOSED:
        level, attack, group = "red", exposing, exposed
        share = f"{100 * rate['value']:.0f} % of {GROUPS[group]} are found at {100 * fpr:g} % false alarms"
        sentence = f"Leaks some images: {share} by '{attack['title']}'."
    elif numbers["auc_deviation"]["low"] == 0 and worst < NO_LEAK and times <= 1:
        level = "green"
        sentence = f"No leak found by these attacks; an average AUC above {0.5 + worst / 2:.2f} is ruled out at 95 %."
    else:
        level, sentence = "amber", f"Unclear: strongest is {strongest}; an AUC of {0.5 + worst / 2:.2f} is possible."
    return {"level": level, "sentence": sentence, "attack": attack["name"], "group": group}
