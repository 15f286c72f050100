"""From attacks' signals on the cells to what an audit says: numbers on both groups of members, and the verdict. Pure.

Whatever is fitted (scalers, signs, classifiers, thresholds) is fitted on one half, aux or test, and read once on the
other. So both groups of members are judged by one rule, and differ only in what the proxy of a defence has seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smplora.attacks.base import Attack
from smplora.attacks.fitting import Learned, Reading, learn
from smplora.core.arrays import Bools, Floats
from smplora.core.random_streams import stream_seed
from smplora.results import attack as records
from smplora.results.attack import GROUPS, Group
from smplora.results.audit import DatasetInference, Epsilon, Exposure, Method, Power, Strongest, Verdict
from smplora.results.memorisation import Memorisation
from smplora.results.record import as_json, from_plain
from smplora.statistics import claims
from smplora.statistics.citations import methods_used
from smplora.statistics.curves import auc
from smplora.statistics.power import dataset_inference_p_value
from smplora.statistics.summary import summary
from smplora.statistics.verdict import verdict


@dataclass(frozen=True)
class ScoredAttack:
    """One attack: what a reader must know of it, and its scores on both groups."""

    about: dict[str, Any]  # fields of ``results.attack.AttackResult``
    test: Reading  # fitted on aux
    aux: Reading | None  # fitted on test; None: it saw aux in training (AttackInfo) and is judged on test alone
    paper_protocol: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """As in ``--attacks``."""
        return str(self.about["name"])


@dataclass(frozen=True)
class Conclusion:
    """What follows from scores: these fields of ``results.audit.Audit``."""

    attacks: tuple[records.AttackResult, ...]
    strongest: dict[Group, Strongest]
    epsilon: Epsilon
    dataset_inference: DatasetInference
    power: dict[Group, Power]
    exposure: dict[Group, Exposure]
    verdict: Verdict
    methods: tuple[Method, ...]


def labels(sizes: Mapping[str, int], kind: str) -> Bools:
    """Members first: [n] bool for ``kind`` "aux" or "test"."""
    return np.arange(sizes[f"{kind}_member"] + sizes[f"{kind}_nonmember"]) < sizes[f"{kind}_member"]


def signals_of_half(signals: Mapping[tuple[str, str], Floats], attack: str, half: str) -> Floats:
    """An attack's signals on the cells of ``half`` "aux" or "test", members first: [n, ...]."""
    return np.concatenate([signals[attack, f"{half}_member"], signals[attack, f"{half}_nonmember"]])


def learn_attacks(
    attacks: Mapping[str, Attack], signals: Mapping[tuple[str, str], Floats], half: str, is_member: Bools, seed: int
) -> dict[str, Learned]:
    """Fit every attack on a half, "aux" or "test"; on test only those that did not see aux in training.

    Args:
        signals: {(attack, cell): [n, ...]} of the cells of that half; no others are looked at.
        is_member: [n] of that half.
        seed: of folds and classifiers.
    """
    return {
        name: learn(attack, signals_of_half(signals, name, half), is_member, seed)
        for name, attack in attacks.items()
        if half == "aux" or not attack.info.saw_aux
    }


def score_attacks(
    attacks: Mapping[str, Attack],
    learned: Mapping[str, Learned],
    signals: Mapping[tuple[str, str], Floats],
    aux_member: Bools,
    test_member: Bools,
    seed: int,
) -> list[ScoredAttack]:
    """Read test with every attack, as it was fitted on aux; then fit it on test and read aux.

    Args:
        learned: every attack as fitted on aux.
        signals: {(attack, cell): [n, ...]} of all four cells.
        seed: of folds, classifiers and the networks of the papers' protocols.
    """
    scored, crossed = [], learn_attacks(attacks, signals, "test", test_member, seed)
    for name, attack in attacks.items():
        aux, test = (signals_of_half(signals, name, kind) for kind in ("aux", "test"))
        about = {
            "name": name,
            "title": attack.info.title,
            "access": attack.info.access.value,
            "reference": attack.info.reference,
            "bibtex": attack.info.bibtex,
            "fitted_on": attack.info.fitted_on,
        }
        optimistic = attack.paper_protocol(aux, aux_member, test, test_member, seed)
        readings = learned[name].read(test), crossed[name].read(aux) if name in crossed else None
        scored.append(ScoredAttack(about, *readings, optimistic))
    return scored


def strongest_first(attacks: Mapping[str, Attack], learned: Mapping[str, Learned], aux_member: Bools) -> list[str]:
    """Names by the AUC on aux, out of fold, in the direction found there; without those that saw aux in training."""
    honest = [name for name, attack in attacks.items() if not attack.info.saw_aux]
    return sorted(honest, key=lambda name: -auc(learned[name].held, aux_member))


def conclude(
    scored_attacks: Sequence[ScoredAttack],
    aux_member: Bools,
    test_member: Bools,
    *,
    seed: int,
    core: Collection[str] = (),
    coin: bool = False,
    delta: float = 0.0,
    failed_gates: Sequence[str] | None = None,
    memorisation: Memorisation | None = None,
    canaries: bool = False,
    permutations: int | None = None,
) -> Conclusion:
    """Everything in audit.json that follows from scores.

    Args:
        scored_attacks: the attacks with their scores; one at least must not have seen aux in training.
        seed: of permutations.
        core: attacks that every tier runs, and that have most of the weight.
        coin: whether membership was drawn by independent fair coins.
        delta: of the (epsilon, delta) in question.
        failed_gates: why the audit is invalid, if it is; None: no gates were run.
        memorisation: what the search for copies found, if there was one.
        canaries: whether canaries were asked, which rests on other sources.
        permutations: of the labels; default: thousands (``many_attacks.affordable_permutations``).
    """
    crossed = {one.name: one.aux for one in scored_attacks if one.aux}
    tested = {one.name: one.test for one in scored_attacks}
    groups = {
        "test": claims.Scored(
            {name: reading.scores for name, reading in tested.items()},
            test_member,
            {name: tested[name].held for name in crossed},
            aux_member,
            frozenset(core),
        ),
        "aux_members": claims.Scored(
            {name: reading.scores for name, reading in crossed.items()},
            aux_member,
            {name: reading.held for name, reading in crossed.items()},
            test_member,
            frozenset(core),
        ),
    }
    test = groups["test"]
    found = {
        group: claims.prove(scored, np.random.default_rng(stream_seed(seed, "evidence", group)), permutations)
        for group, scored in groups.items()
    }
    strongest = {group: claims.strongest(group, scored, found[group]) for group, scored in groups.items()}
    for group, readings in (("test", tested), ("aux_members", crossed)):
        strongest[group]["sign"] = readings[strongest[group]["attack"]].sign

    def numbers(name: str, group: str, reading: Reading) -> dict[str, Any]:
        content = summary(reading.scores, groups[group].is_member, reading.decisions)
        of_attack = found[group]
        p = {"p": of_attack.alone[name], "auc": of_attack.auc[name], "corrected": of_attack.smallest(name)}
        return {**content, "sign": reading.sign, "p_value": p}

    attacks: list[dict[str, Any]] = [
        {
            **one.about,
            "test": numbers(one.name, "test", one.test),
            "aux_members": numbers(one.name, "aux_members", one.aux) if one.aux else None,
            "paper_protocol": one.paper_protocol,
        }
        for one in scored_attacks
    ]
    chosen = strongest["test"]["attack"]
    copies = as_json(memorisation) if memorisation else None
    return Conclusion(
        attacks=tuple(from_plain(records.AttackResult, one) for one in attacks),
        strongest={group: from_plain(Strongest, strongest[group]) for group in GROUPS},
        epsilon=from_plain(Epsilon, claims.epsilon(test, delta, coin)),
        dataset_inference=DatasetInference(chosen, dataset_inference_p_value(test.scores[chosen], test_member)),
        power={g: from_plain(Power, claims.power(groups[g])) for g in GROUPS},
        exposure={g: from_plain(Exposure, claims.exposure(chosen, groups[g])) for g in GROUPS},
        verdict=from_plain(Verdict, verdict(attacks, strongest, failed_gates or (), copies)),
        methods=tuple(
            from_plain(Method, method)
            for method in methods_used(one_run=coin or canaries, gates=failed_gates is not None)
        ),
    )


def score_arrays(scored_attacks: Sequence[ScoredAttack], aux_member: Bools, test_member: Bools) -> dict[str, Any]:
    """The arrays of scores.npz: both groups' labels and every attack's scores, each fitted on the other half."""
    arrays: dict[str, Any] = {"aux_member": aux_member, "test_member": test_member}
    for one in scored_attacks:
        arrays[f"{one.name}/test"] = one.test.scores
        if one.aux:
            arrays[f"{one.name}/aux"] = one.aux.scores
    return arrays
