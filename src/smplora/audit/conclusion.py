"""From attacks' signals on the cells to what an audit says: numbers on both groups of members, and the verdict. Pure.

Whatever is fitted is fitted on aux: scalers, signs, classifiers, thresholds (the last from out-of-fold scores). The
test cells are scored once. Aux members are judged too, out of fold: they are private images like the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smplora.attacks.base import Attack
from smplora.attacks.fitting import FittedScores, Learned, learn
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
    fitted: FittedScores
    paper_protocol: dict[str, Any] | None = None
    saw_aux: bool = False  # see AttackInfo: it is judged on test alone

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
    attacks: Mapping[str, Attack], signals: Mapping[tuple[str, str], Floats], aux_member: Bools, seed: int
) -> dict[str, Learned]:
    """Fit every attack on aux.

    Args:
        signals: {(attack, cell): [n, ...]} of the aux cells; no others are looked at.
        seed: of folds and classifiers.
    """
    return {
        name: learn(attack, signals_of_half(signals, name, "aux"), aux_member, seed) for name, attack in attacks.items()
    }


def score_attacks(
    attacks: Mapping[str, Attack],
    learned: Mapping[str, Learned],
    signals: Mapping[tuple[str, str], Floats],
    aux_member: Bools,
    test_member: Bools,
    seed: int,
) -> list[ScoredAttack]:
    """Score the test cells with every attack.

    Args:
        signals: {(attack, cell): [n, ...]} of all four cells.
        seed: of the networks of the papers' protocols.
    """
    scored = []
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
        scored.append(ScoredAttack(about, learned[name].score(test), optimistic, attack.info.saw_aux))
    return scored


def strongest_first(attacks: Mapping[str, Attack], learned: Mapping[str, Learned], aux_member: Bools) -> list[str]:
    """Names by how far the AUC on aux, out of fold, is from 0.5; without those that saw aux in training."""
    honest = [name for name, attack in attacks.items() if not attack.info.saw_aux]
    return sorted(honest, key=lambda name: -abs(auc(learned[name].aux.scores, aux_member) - 0.5))


def conclude(
    scored_attacks: Sequence[ScoredAttack],
    aux_member: Bools,
    test_member: Bools,
    *,
    seed: int,
    coin: bool = False,
    delta: float = 0.0,
    failed_gates: Sequence[str] | None = None,
    memorisation: Memorisation | None = None,
) -> Conclusion:
    """Everything in audit.json that follows from scores.

    Args:
        scored_attacks: the attacks with their scores; one at least must not have seen aux in training.
        seed: of permutations and bootstrap.
        coin: whether membership was drawn by independent fair coins.
        delta: of the (epsilon, delta) in question.
        failed_gates: why the audit is invalid, if it is; None: no gates were run.
        memorisation: what the search for copies found, if there was one.
    """
    groups = {
        "test": claims.Scored({one.name: one.fitted.test for one in scored_attacks}, test_member),
        "aux_members": claims.Scored(
            {one.name: one.fitted.aux.scores for one in scored_attacks if not one.saw_aux}, aux_member
        ),
    }
    aux, test = groups["aux_members"], groups["test"]
    rngs = {group: np.random.default_rng(stream_seed(seed, "evidence", group)) for group in groups}
    p_values = {group: claims.tests(scored, rngs[group]) for group, scored in groups.items()}
    strongest = {
        group: claims.strongest(group, aux, scored, p_values[group], rngs[group]) for group, scored in groups.items()
    }

    def numbers(one: ScoredAttack, group: str, decisions: Bools) -> dict[str, Any]:
        scored = groups[group]
        rng = np.random.default_rng(stream_seed(seed, "bootstrap", group, one.name))
        content = summary(scored.scores[one.name], scored.is_member, decisions, rng)
        return {**content, "p_value": p_values[group][one.name]}

    attacks: list[dict[str, Any]] = [
        {
            **one.about,
            "test": numbers(one, "test", one.fitted.test >= one.fitted.threshold),
            "aux_members": None if one.saw_aux else numbers(one, "aux_members", one.fitted.aux.decisions),
            "paper_protocol": one.paper_protocol,
        }
        for one in scored_attacks
    ]
    chosen = strongest["test"]["attack"]
    sign = strongest["test"]["sign"]
    copies = as_json(memorisation) if memorisation else None
    return Conclusion(
        attacks=tuple(from_plain(records.AttackResult, one) for one in attacks),
        strongest={group: from_plain(Strongest, strongest[group]) for group in GROUPS},
        epsilon=from_plain(Epsilon, claims.epsilon(aux, test, delta, coin)),
        dataset_inference=DatasetInference(chosen, dataset_inference_p_value(sign * test.scores[chosen], test_member)),
        power={g: from_plain(Power, claims.power(groups[g], strongest[g]["auc"]["level"])) for g in GROUPS},
        exposure={g: from_plain(Exposure, claims.exposure(chosen, sign, groups[g])) for g in GROUPS},
        verdict=from_plain(Verdict, verdict(attacks, strongest, failed_gates or (), copies)),
        methods=tuple(
            from_plain(Method, method)
            for method in methods_used(attacks=len(scored_attacks), one_run=coin, gates=failed_gates is not None)
        ),
    )


def score_arrays(scored_attacks: Sequence[ScoredAttack], aux_member: Bools, test_member: Bools) -> dict[str, Any]:
    """The arrays of scores.npz: both groups' labels and every attack's scores."""
    arrays: dict[str, Any] = {"aux_member": aux_member, "test_member": test_member}
    for one in scored_attacks:
        arrays[f"{one.name}/test"] = one.fitted.test
        if not one.saw_aux:
            arrays[f"{one.name}/aux_out_of_fold"] = one.fitted.aux.scores
    return arrays
