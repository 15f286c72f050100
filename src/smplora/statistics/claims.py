"""What several attacks together prove, corrected for having looked at all of them. Pure.

An audit may be wrong in 5 % of the cases where nothing leaks, whatever the number of attacks. The 5 % are shared: 40 %
of them for each group of members, 20 % for copies of training images. (Shares, and no permutation of both groups at
once, since their results hang together in a way that no permutation knows: what is read on one half was fitted on the
other.)

In a group, one permutation maximum (``family_test``) goes over all attacks and statistics: the AUC, and the true
positive rate at each false positive rate that the group can resolve. What is there to be found is guessed on the other
half, before this one is looked at: 40 % of the weight goes to AUCs and 40 % to rates in proportion to 1 / p^2 there,
the rest to all alike. The attacks of the quick tier, which every tier runs, have 75 % of the weight wherever they are
not alone, so that a larger tier multiplies their corrected p by 4 / 3 at most. The interval is that of the attack with
the best AUC on the other half, at a level that does not depend on the number of attacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from smplora.core.arrays import Bools, Floats
from smplora.statistics.epsilon import (
    best_guess_rule,
    count_guesses,
    epsilon_bound,
    epsilon_ceiling,
    epsilon_threshold,
    one_run_epsilon,
)
from smplora.statistics.f_dp import gaussian_epsilon, one_run_mu
from smplora.statistics.intervals import auc_deviation, auc_interval
from smplora.statistics.many_attacks import family_test, surprise
from smplora.statistics.power import POWER, detectable_auc
from smplora.statistics.rates import resolvable, tpr_at_fpr
from smplora.statistics.summary import REPORTED_FPRS

LEVEL = 0.95
SHARES = {"test": 0.4, "aux_members": 0.4, "copies": 0.2}  # of 1 - LEVEL
GROUPS = {
    "test": "members that no proxy has seen",
    "aux_members": "members that proxies are trained on",
}
GUESSED = 0.4  # of a group's weight: to AUCs, and as much to rates, by what the other half shows
CORE = 0.75  # of a group's weight: to attacks of the quick tier, where others ran too
CLAIM_LEVEL = 1 - (1 - LEVEL) * SHARES["test"] * GUESSED  # of the chosen attack's AUC
HISTOGRAM_BINS = 24
CHOSEN_ON = {
    "test": "aux, out of fold; then read once on test",
    "aux_members": "test, out of fold; then read once on aux",
}


@dataclass(frozen=True)
class Scored:
    """Every attack's scores on one group of members, and what chooses among attacks: their scores on the other half.

    All are turned so that higher means member, by what the other half showed.
    """

    scores: dict[str, Floats]  # [n] by attack
    is_member: Bools  # [n]
    held: dict[str, Floats]  # [m] by attack: the other half, out of fold; only of attacks that may be chosen
    held_member: Bools  # [m]
    core: frozenset[str] = frozenset()  # attacks that every tier runs

    @property
    def sizes(self) -> tuple[int, int]:
        """Members and non-members."""
        return _sizes(self.is_member)

    @cached_property
    def evidence(self) -> dict[str, Floats]:
        """-log p of the AUC and of each of ``fprs`` on the other half: [1 + rates] by attack that may be chosen."""
        return {name: surprise(scores, self.held_member, self.fprs) for name, scores in self.held.items()}

    @property
    def fprs(self) -> tuple[float, ...]:
        """The false positive rates that this group can resolve."""
        return tuple(fpr for fpr in REPORTED_FPRS if resolvable(fpr, self.sizes[1]))


@dataclass(frozen=True)
class Found:
    """What a group's attacks prove: two-sided p of each attack's AUC, alone, and p of everything, corrected for all
    attacks, statistics and groups."""

    alone: dict[str, float]
    auc: dict[str, float]
    rates: dict[tuple[str, float], float]  # by attack and false positive rate

    def smallest(self, name: str) -> float:
        """The corrected p of what says most about one attack."""
        return min([self.auc[name], *(p for (attack, _), p in self.rates.items() if attack == name)])


def choose(scored: Scored) -> str:
    """The attack with the most evidence on the other half: 1 / p of its AUC there times its part of the weight; the
    first of equals."""
    parts, evidence = _parts(scored), scored.evidence
    part_of = {name: part / len(names) for part, names in parts for name in names}
    return max(scored.held, key=lambda name: np.log(part_of[name]) + evidence[name][0])


def weights(scored: Scored) -> Floats:
    """Of attacks (rows) and statistics, summing to 1: see above. Attacks that may not be chosen have their part of what
    goes to all alike."""
    names, evidence = list(scored.scores), scored.evidence
    kinds = [slice(0, 1), slice(1, None)] if scored.fprs else [slice(0, 1)]  # AUCs, rates
    shares = np.zeros((len(names), 1 + len(scored.fprs)))
    for part, members in _parts(scored):
        rows = [names.index(name) for name in members]
        shares[rows] += part * (1 - GUESSED * len(kinds)) / (len(rows) * shares.shape[1])
        likely = [names.index(name) for name in members if name in evidence] or rows
        found = np.stack([2 * evidence.get(names[row], np.zeros(shares.shape[1])) for row in likely])
        for columns in kinds:
            guess = np.exp(found[:, columns] - found[:, columns].max())
            shares[likely, columns] += part * GUESSED * guess / guess.sum()
    return shares


def _parts(scored: Scored) -> list[tuple[float, list[str]]]:
    """Attacks of the quick tier and others, with what they have of the weight."""
    core, others = ([n for n in scored.scores if (n in scored.core) == kind] for kind in (True, False))
    return [(CORE, core), (1 - CORE, others)] if core and others else [(1.0, core or others)]


def prove(scored: Scored, rng: np.random.Generator, permutations: int | None = None) -> Found:
    """One permutation maximum over all attacks and statistics of a group."""
    names, fprs = list(scored.scores), scored.fprs
    result = family_test(
        list(scored.scores.values()),
        scored.is_member,
        rng,
        fprs=fprs,
        weights=weights(scored),
        permutations=permutations,
    )
    corrected = np.minimum(1.0, result.corrected / SHARES["test"]).tolist()
    return Found(
        {name: float(p) for name, p in zip(names, result.p[:, 0], strict=True)},
        {name: row[0] for name, row in zip(names, corrected, strict=True)},
        {(name, f): p for name, row in zip(names, corrected, strict=True) for f, p in zip(fprs, row[1:], strict=True)},
    )


def strongest(group: str, scored: Scored, found: Found) -> dict[str, Any]:
    """The "strongest" object of audit.json for one group (docs/formats.md), but for "sign"."""
    name = choose(scored)
    area = auc_interval(scored.scores[name], scored.is_member, CLAIM_LEVEL)
    return {
        "attack": name,
        "attacks": len(scored.held),
        "chosen_on": CHOSEN_ON[group],
        "auc": {**area.as_dict(), "level": CLAIM_LEVEL},
        "auc_deviation": auc_deviation(area).bounds(),
        "p_corrected": found.auc[name],
        "smallest_p_corrected": min(found.smallest(one) for one in scored.scores),
        "low_fpr": _low_fpr(scored, found),
    }


def _low_fpr(scored: Scored, found: Found) -> dict[str, Any] | None:
    """Of the significant true positive rates the one whose interval is farthest above its false positive rate; where
    none is, the most significant. Over all attacks and resolvable rates."""
    if not found.rates:
        return None
    significant = [cell for cell, p in found.rates.items() if p < 1 - LEVEL]
    cells = significant or [min(found.rates, key=lambda cell: found.rates[cell])]
    rates = {(name, fpr): tpr_at_fpr(scored.scores[name], scored.is_member, fpr) for name, fpr in cells}
    name, fpr = max(rates, key=lambda cell: rates[cell].low / cell[1])
    rate = rates[name, fpr]
    return {
        "attack": name,
        "fpr": fpr,
        "tpr": {"value": rate.value, "low": rate.low, "high": rate.high},
        "p_corrected": found.rates[name, fpr],
    }


def epsilon(test: Scored, delta: float, coin: bool) -> dict[str, Any]:
    """The "epsilon" object of audit.json: attack, sign, threshold and guesses chosen on aux, counted on test.

    Args:
        delta: of the (epsilon, delta) in question.
        coin: whether members were drawn by independent fair coins, which the one-run bound needs.
    """
    aux_members, aux_others = _sizes(test.held_member)
    members, others = test.sizes
    options = []
    for name, scores in test.held.items():
        threshold = epsilon_threshold(scores, test.held_member, delta)
        hits, alarms = _accused(scores, test.held_member, threshold)
        bound = epsilon_bound(hits, aux_members, alarms, aux_others, delta)
        options.append((bound, hits / aux_members - alarms / aux_others, name, threshold))
    _, _, name, threshold = max(options, key=lambda option: option[:2])
    hits, alarms = _accused(test.scores[name], test.is_member, threshold)
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
        "one_run": one_run(test, delta) if coin else None,
    }


def _sizes(is_member: Bools) -> tuple[int, int]:
    members = int(is_member.sum())
    return members, len(is_member) - members


def _accused(scores: Floats, member: Bools, threshold: float) -> tuple[int, int]:
    accused = scores >= threshold
    return int(accused[member].sum()), int(accused[~member].sum())


def one_run(test: Scored, delta: float) -> dict[str, Any]:
    """What guesses on test prove, where fair coins decided who is a member; attack and shares of guesses are chosen on
    the other half. See ``epsilon.one_run_epsilon`` and ``f_dp.one_run_mu``."""
    options = []
    for name, scores in test.held.items():
        rule = best_guess_rule(scores, test.held_member, delta)
        guesses, right = count_guesses(scores, test.held_member, rule)
        bound = one_run_epsilon(guesses, right, len(scores), delta)
        options.append((bound, (2 * right - guesses) / max(guesses, 1) ** 0.5, name, rule))
    _, _, name, rule = max(options, key=lambda option: option[:2])
    guesses, right = count_guesses(test.scores[name], test.is_member, rule)
    candidates = len(test.is_member)
    return {
        "attack": name,
        "value": one_run_epsilon(guesses, right, candidates, delta),
        "ceiling": one_run_epsilon(candidates, candidates, candidates, delta),
        "guesses": guesses,
        "right": right,
        "candidates": candidates,
        "mu": (mu := one_run_mu(guesses, right, candidates)),
        "gaussian_epsilon": gaussian_epsilon(mu, delta) if delta else None,
    }


def power(scored: Scored) -> dict[str, Any]:
    """The "power" object of one group: the smallest AUC that its claim would have found."""
    members, others = scored.sizes
    return {
        "n_members": members,
        "n_nonmembers": others,
        "level": CLAIM_LEVEL,
        "power": POWER,
        "auc": detectable_auc(members, others, CLAIM_LEVEL),
    }


def exposure(name: str, scored: Scored) -> dict[str, Any]:
    """The "exposure" object of one group: how an attack's scores lie, as counts per bin."""
    scores = scored.scores[name]
    edges = np.histogram_bin_edges(scores, HISTOGRAM_BINS)
    return {
        "attack": name,
        "edges": edges.tolist(),
        "members": np.histogram(scores[scored.is_member], edges)[0].tolist(),
        "nonmembers": np.histogram(scores[~scored.is_member], edges)[0].tolist(),
    }
