"""What several attacks together prove, corrected for having looked at all of them. Pure.

An audit makes four claims about an adapter: how far the AUC is from 0.5, and how many members are found at few false
alarms, each on test and on aux members. Each gets a quarter of the 5 % (Bonferroni). Within a claim, on test the attack
is chosen on aux and read once, so that nothing needs correcting; on aux it is chosen where it is read, so that the
interval holds for all attacks at once and the p is that of the best of them (``many_attacks``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from smplora.core.arrays import Bools, Floats
from smplora.statistics.curves import auc
from smplora.statistics.epsilon import (
    best_guess_rule,
    count_guesses,
    epsilon_bound,
    epsilon_ceiling,
    epsilon_threshold,
    one_run_epsilon,
)
from smplora.statistics.intervals import auc_deviation, delong_interval
from smplora.statistics.many_attacks import family_test, low_fpr_p_value, simultaneous_level
from smplora.statistics.power import POWER, detectable_auc
from smplora.statistics.rates import tpr_at_fpr
from smplora.statistics.summary import REPORTED_FPRS

CLAIMS = 4
LEVEL = 0.95
CLAIM_LEVEL = 1 - (1 - LEVEL) / CLAIMS
HISTOGRAM_BINS = 24
GROUPS = {
    "test": "members that no attack has trained on",
    "aux_members": "members that attacks and proxies train on",
}
CHOSEN_ON = {
    "test": "aux, out of fold; then read once on test",
    "aux_members": "aux, out of fold, where it is read",
}


@dataclass(frozen=True)
class Scored:
    """Every attack's scores on one group: ``scores`` {attack: [n]} with membership [n]."""

    scores: dict[str, Floats]
    is_member: Bools

    @property
    def sizes(self) -> tuple[int, int]:
        """Members and non-members."""
        members = int(self.is_member.sum())
        return members, len(self.is_member) - members


def choose(aux: Scored) -> str:
    """The attack whose AUC on aux, out of fold, is farthest from 0.5; the first of equals."""
    return max(aux.scores, key=lambda name: abs(auc(aux.scores[name], aux.is_member) - 0.5))


def sign_of(name: str, aux: Scored) -> int:
    """Whether high scores mean member (1) or non-member (-1), judged on aux."""
    return 1 if auc(aux.scores[name], aux.is_member) >= 0.5 else -1


def tests(scored: Scored, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """{attack: {"p", "corrected"}}: each attack alone, and corrected for all attacks on this group."""
    results = family_test(list(scored.scores.values()), scored.is_member, rng)
    return {
        name: {"p": p, "corrected": corrected}
        for name, p, corrected in zip(scored.scores, results.p, results.corrected, strict=True)
    }


def strongest(
    group: str, aux: Scored, scored: Scored, p_values: dict[str, dict[str, float]], rng: np.random.Generator
) -> dict[str, Any]:
    """The "strongest" object of audit.json for one group (docs/formats.md)."""
    name, everything = choose(aux), list(scored.scores.values())
    here = scored.scores[name]
    once = group == "test"
    level = CLAIM_LEVEL if once else simultaneous_level(everything, scored.is_member, rng, CLAIM_LEVEL)
    area = delong_interval(here, scored.is_member, level)
    return {
        "attack": name,
        "sign": sign_of(name, aux),
        "attacks": len(aux.scores),
        "chosen_on": CHOSEN_ON[group],
        "auc": {**area.as_dict(), "level": level},
        "auc_deviation": auc_deviation(area).bounds(),
        "p_corrected": min(1.0, CLAIMS * p_values[name]["p" if once else "corrected"]),
        "smallest_p_corrected": min(1.0, CLAIMS * min(p["corrected"] for p in p_values.values())),
        "low_fpr": _low_fpr(scored),
    }


def _low_fpr(scored: Scored) -> dict[str, Any] | None:
    """The most significant true positive rate at a resolvable false positive rate, over all attacks and rates."""
    claims = []
    for name, scores in scored.scores.items():
        for fpr in REPORTED_FPRS:
            rate = tpr_at_fpr(scores, scored.is_member, fpr)
            if rate.resolvable:
                claims.append((low_fpr_p_value(scores, scored.is_member, fpr), name, rate))
    if not claims:
        return None
    p, name, rate = min(claims, key=lambda f: f[0])
    return {
        "attack": name,
        "fpr": rate.fpr,
        "tpr": {"value": rate.value, "low": rate.low, "high": rate.high},
        "p_corrected": min(1.0, CLAIMS * len(claims) * p),
    }


def epsilon(aux: Scored, test: Scored, delta: float, coin: bool) -> dict[str, Any]:
    """The "epsilon" object of audit.json: attack, sign, threshold and guesses chosen on aux, counted on test.

    Args:
        delta: of the (epsilon, delta) in question.
        coin: whether members were drawn by independent fair coins, which the one-run bound needs.
    """
    aux_members, aux_others = aux.sizes
    members, others = test.sizes
    options = []
    for name, scores in aux.scores.items():
        signed = sign_of(name, aux) * scores
        threshold = epsilon_threshold(signed, aux.is_member, delta)
        hits, alarms = _accused(signed, aux.is_member, threshold)
        bound = epsilon_bound(hits, aux_members, alarms, aux_others, delta)
        options.append((bound, hits / aux_members - alarms / aux_others, name, threshold))
    _, _, name, threshold = max(options, key=lambda option: option[:2])
    sign = sign_of(name, aux)
    hits, alarms = _accused(sign * test.scores[name], test.is_member, threshold)
    return {
        "delta": delta,
        "level": LEVEL,
        "clopper_pearson": {
            "attack": name,
            "value": epsilon_bound(hits, members, alarms, others, delta),
            "ceiling": epsilon_ceiling(members, others, delta),
            "true_positives": hits,
            "false_positives": alarms,
        },
        "one_run": _one_run(aux, test, delta) if coin else None,
    }


def _accused(scores: Floats, member: Bools, threshold: float) -> tuple[int, int]:
    accused = scores >= threshold
    return int(accused[member].sum()), int(accused[~member].sum())


def _one_run(aux: Scored, test: Scored, delta: float) -> dict[str, Any]:
    options = []
    for name, scores in aux.scores.items():
        signed = sign_of(name, aux) * scores
        rule = best_guess_rule(signed, aux.is_member, delta)
        guesses, right = count_guesses(signed, aux.is_member, rule)
        bound = one_run_epsilon(guesses, right, len(signed), delta)
        options.append((bound, (2 * right - guesses) / max(guesses, 1) ** 0.5, name, rule))
    _, _, name, rule = max(options, key=lambda option: option[:2])
    guesses, right = count_guesses(sign_of(name, aux) * test.scores[name], test.is_member, rule)
    candidates = len(test.is_member)
    return {
        "attack": name,
        "value": one_run_epsilon(guesses, right, candidates, delta),
        "ceiling": one_run_epsilon(candidates, candidates, candidates, delta),
        "guesses": guesses,
        "right": right,
        "candidates": candidates,
    }


def power(scored: Scored, level: float) -> dict[str, Any]:
    """The "power" object of one group: the smallest AUC that a test at ``level`` would have found."""
    members, others = scored.sizes
    return {
        "n_members": members,
        "n_nonmembers": others,
        "level": level,
        "power": POWER,
        "auc": detectable_auc(members, others, level),
    }


def exposure(name: str, sign: int, scored: Scored) -> dict[str, Any]:
    """The "exposure" object of one group: how the chosen attack's scores (sign applied) lie, as counts per bin."""
    scores = sign * scored.scores[name]
    edges = np.histogram_bin_edges(scores, HISTOGRAM_BINS)
    return {
        "attack": name,
        "edges": edges.tolist(),
        "members": np.histogram(scores[scored.is_member], edges)[0].tolist(),
        "nonmembers": np.histogram(scores[~scored.is_member], edges)[0].tolist(),
    }
