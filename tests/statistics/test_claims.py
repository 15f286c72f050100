"""What several attacks prove together: chosen on aux, read once on test, corrected."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from smplora.attacks.fitting import FittedScores, OutOfFold
from smplora.audit.conclusion import ScoredAttack, conclude, score_arrays
from smplora.results.record import as_json
from smplora.statistics import many_attacks, summary
from smplora.statistics.claims import GROUPS
from smplora.statistics.epsilon import one_run_epsilon
from smplora.statistics.power import detectable_auc


def tried(rng: np.random.Generator, member: Any, shifts: list[tuple[float, float]]) -> list[ScoredAttack]:
    """Attacks with normal scores; members are shifted by so much on aux and on test."""
    found = []
    for number, (on_aux, on_test) in enumerate(shifts):
        aux, test = (rng.normal(size=member.size) + shift * member for shift in (on_aux, on_test))
        about = {"name": f"a{number}", "title": f"A{number}", "access": "grey box", "fitted_on": "aux"}
        found.append(ScoredAttack(about, FittedScores(test, 0.0, OutOfFold(aux, aux >= 0))))
    return found


MEMBER = np.arange(100) < 50


def concluded(seed: int, shifts: list[tuple[float, float]], **more: Any) -> dict[str, Any]:
    found = conclude(tried(np.random.default_rng(seed), MEMBER, shifts), MEMBER, MEMBER, seed=0, **more)
    content: dict[str, Any] = as_json(vars(found))
    return content


def test_the_winner_is_chosen_on_aux_and_read_on_test() -> None:
    content = concluded(0, [(0.0, 2.0), (1.5, 1.5), (0.2, 0.0)])
    test = content["strongest"]["test"]
    assert test["attack"] == "a1"  # a0 is better on test, which nobody may look at
    assert test["auc"]["value"] == content["attacks"][1]["test"]["auc"]["value"]
    assert test["p_corrected"] == 4 * content["attacks"][1]["test"]["p_value"]["p"]
    assert content["strongest"]["aux_members"]["attack"] == "a1"
    assert content["verdict"]["level"] == "red"
    assert content["dataset_inference"]["p"] < 1e-4


def test_an_attack_that_the_run_has_trained_on_aux_is_judged_on_test_alone() -> None:
    """It is perfect on aux, in-sample, and nothing on test: it is neither chosen nor claimed."""
    first, second = tried(np.random.default_rng(3), MEMBER, [(9.0, 0.0), (0.5, 0.5)])
    found = conclude([replace(first, saw_aux=True), second], MEMBER, MEMBER, seed=0, failed_gates=())
    content = as_json(vars(found))
    assert {content["strongest"][group]["attack"] for group in GROUPS} == {"a1"}
    assert content["strongest"]["aux_members"]["auc"]["value"] < 0.9
    assert [attack["aux_members"] is None for attack in content["attacks"]] == [True, False]
    assert content["epsilon"]["clopper_pearson"]["attack"] == "a1"
    arrays = score_arrays([replace(first, saw_aux=True), second], MEMBER, MEMBER)
    assert "a0/test" in arrays
    assert "a0/aux_out_of_fold" not in arrays


def test_methods_are_those_that_were_used() -> None:
    def cited(shifts: list[tuple[float, float]], **more: Any) -> set[str]:
        return {method["reference"] for method in concluded(0, shifts, **more)["methods"]}

    one = [(1.0, 1.0)]
    assert cited(one, coin=True) - cited(one) == {"Steinke et al. 2023"}
    assert cited(one, failed_gates=()) - cited(one) == {"Das et al. 2024"}
    assert cited([*one, *one]) - cited(one) == {"Westfall and Young 1993", "Hothorn et al. 2008"}


def test_a_reversed_winner_counts_in_its_own_direction() -> None:
    content = concluded(0, [(-1.5, -1.5), (0.0, 0.0)])
    assert (content["strongest"]["test"]["attack"], content["strongest"]["test"]["sign"]) == ("a0", -1)
    assert content["verdict"]["level"] == "red"
    assert content["dataset_inference"]["p"] < 1e-4
    assert content["epsilon"]["clopper_pearson"]["value"] > 0


def test_changing_test_labels_changes_no_choice() -> None:
    attacks = tried(np.random.default_rng(1), MEMBER, [(0.5, 0.5), (0.4, 1.0), (0.0, 0.3)])
    first, second = (
        as_json(vars(conclude(attacks, MEMBER, test, seed=0, coin=True)))
        for test in (MEMBER, np.random.default_rng(0).permutation(MEMBER))
    )
    for choice in (
        lambda c: c["strongest"]["test"]["attack"],
        lambda c: c["strongest"]["test"]["sign"],
        lambda c: c["epsilon"]["clopper_pearson"]["attack"],
        lambda c: c["epsilon"]["one_run"]["guesses"],
        lambda c: c["strongest"]["aux_members"],
    ):
        assert choice(first) == choice(second)
    counts = [c["epsilon"]["clopper_pearson"] for c in (first, second)]
    assert len({e["true_positives"] + e["false_positives"] for e in counts}) == 1


def test_one_run_needs_coins() -> None:
    assert concluded(0, [(1.5, 1.5)])["epsilon"]["one_run"] is None
    one_run = concluded(0, [(1.5, 1.5)], coin=True)["epsilon"]["one_run"]
    assert 0 < one_run["value"] < one_run["ceiling"] == one_run_epsilon(100, 100, 100)
    assert one_run["candidates"] == 100


def test_without_a_leak_claims_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """In at least 95 % of audits that find nothing to find (here: 6 attacks), no corrected p is below 0.05."""
    monkeypatch.setattr(many_attacks, "affordable_permutations", lambda samples: 399)
    monkeypatch.setattr(summary, "affordable_resamples", lambda samples: 10)
    runs, wrong = 60, 0
    for seed in range(runs):
        content = concluded(seed, [(0.0, 0.0)] * 6)
        strongest = content["strongest"]
        p = [strongest[g][k] for g in strongest for k in ("p_corrected", "smallest_p_corrected")]
        p += [strongest[g]["low_fpr"]["p_corrected"] for g in strongest]
        wrong += min(p) < 0.05
        assert content["verdict"]["level"] != "red"
    assert wrong <= 8  # P(more | 5 %) < 0.01


def test_numbers_of_one_attack_need_no_correction() -> None:
    content = concluded(3, [(0.3, 0.3)])
    assert content["strongest"]["aux_members"]["auc"]["level"] == pytest.approx(0.9875)
    for group in ("test", "aux_members"):
        p = content["attacks"][0][group]["p_value"]
        assert p["p"] == p["corrected"]
        counts = content["exposure"][group]
        assert sum(counts["members"]) == sum(counts["nonmembers"]) == 50
        assert len(counts["edges"]) == len(counts["members"]) + 1


def test_the_result_is_strict_json_and_repeatable() -> None:
    first, again = (concluded(5, [(0.4, 0.4), (0.0, 0.0)], coin=True, delta=1e-5) for _ in range(2))
    assert json.loads(json.dumps(first, allow_nan=False)) == again


def test_power_goes_with_the_level_of_the_claim() -> None:
    power = concluded(0, [(0.0, 0.0)] * 4)["power"]
    assert power["test"]["auc"] == detectable_auc(50, 50, 0.9875)
    assert power["aux_members"]["auc"] > power["test"]["auc"]
