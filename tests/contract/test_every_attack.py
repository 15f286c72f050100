"""Every registered attack through the same checks: planted leak found, no leak not found, conventions kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smplora.attacks import ATTACKS, error_map
from smplora.config import AuditConfig
from smplora.contracts import Access, Attack, Batch
from smplora.diffusion import LatentDiffusion
from smplora.metrics import auc, delong_interval
from smplora.registry import load
from smplora.scorers import Judged, judge, out_of_fold
from smplora.views import GreyBox
from toys import toy_batch, toy_model

SIZE = 60
MEMBER = np.arange(2 * SIZE) < SIZE


def attack_named(name: str) -> Attack:
    return load(ATTACKS, name, "attacks").from_config(AuditConfig(num_timesteps=4, noise_pairs=1, error_map_draws=4))


def cells(seed: int) -> tuple[Batch, Batch]:
    """Aux and test, members in the first half of each."""
    return toy_batch(2 * SIZE, seed), toy_batch(2 * SIZE, seed + 1)


def attacked(attack: Attack, model: LatentDiffusion, seed: int) -> Judged:
    aux, test = (attack.signals(GreyBox(model, b, seed)) for b in cells(seed))
    return judge(attack, aux, MEMBER, test, seed)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_memorises_is_found_out(name: str) -> None:
    aux, test = cells(seed=10)
    model = toy_model(torch.cat([aux.mean[:SIZE], test.mean[:SIZE]]))
    scored = attacked(attack_named(name), model, seed=10)
    assert auc(scored.test, MEMBER) > 0.95
    assert auc(scored.aux.scores, MEMBER) > 0.95


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_never_saw_the_members_gives_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval contains 0.5 in nearly all of independent repetitions, on test and on aux members."""
    monkeypatch.setattr(error_map, "EPOCHS", 10)
    repetitions = 8 if name == "error_map" else 30
    misses = 0
    for seed in range(100, 100 + 2 * repetitions, 2):
        scored = attacked(attack_named(name), toy_model(None), seed)
        for scores in (scored.test, scored.aux.scores):
            interval = delong_interval(scores, MEMBER).bounds()
            misses += not interval["low"] <= 0.5 <= interval["high"]
    assert misses <= max(1, 0.1 * 2 * repetitions)


@pytest.mark.parametrize("name", ATTACKS)
def test_permuted_labels_give_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an attack is told the wrong members, it finds neither the told ones out of fold, nor anything on test."""
    monkeypatch.setattr(error_map, "EPOCHS", 10)
    attack = attack_named(name)
    aux, test = cells(seed=10)
    model = toy_model(torch.cat([aux.mean[:SIZE], test.mean[:SIZE]]))
    aux_signals, test_signals = (attack.signals(GreyBox(model, b, 10)) for b in (aux, test))
    inside = 0
    repetitions = 10 if name == "error_map" else 20
    for seed in range(repetitions):
        told, asked = np.random.default_rng(seed).permuted(np.stack([MEMBER, MEMBER]), axis=1)
        scored = judge(attack, aux_signals, told, test_signals, seed)
        for scores, member in ((scored.aux.scores, told), (scored.test, asked)):
            interval = delong_interval(scores, member).bounds()
            inside += interval["low"] <= 0.5 <= interval["high"]
    assert inside >= 0.8 * 2 * repetitions


@pytest.mark.parametrize("name", ATTACKS)
def test_signals_do_not_depend_on_the_batch(name: str) -> None:
    attack, (batch, _) = attack_named(name), cells(seed=3)
    model = toy_model(batch.mean[:20])
    whole = attack.signals(GreyBox(model, batch, 0))
    parts = np.concatenate([attack.signals(GreyBox(model, b, 0)) for b in batch.split(7)])
    assert whole.shape[0] == len(batch)
    np.testing.assert_allclose(whole, parts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTACKS)
def test_one_test_image_does_not_change_anothers_score(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted on test: scores of a part of the test cell are those of the whole."""
    monkeypatch.setattr(error_map, "EPOCHS", 10)
    attack, (aux, test) = attack_named(name), cells(seed=5)
    model = toy_model(aux.mean[:SIZE])
    aux_signals, test_signals = (attack.signals(GreyBox(model, b, 0)) for b in (aux, test))
    whole = judge(attack, aux_signals, MEMBER, test_signals, 0)
    part = judge(attack, aux_signals, MEMBER, test_signals[::3], 0)
    np.testing.assert_allclose(part.test, whole.test[::3], rtol=1e-5, atol=1e-6)
    assert part.threshold == whole.threshold


@pytest.mark.parametrize("name", ATTACKS)
def test_the_reader_is_told_what_it_is(name: str) -> None:
    info = attack_named(name).info
    assert isinstance(info.access, Access)
    assert info.title
    assert info.reference
    assert info.bibtex.startswith("@")
    assert "year=" in info.bibtex


def test_the_papers_protocol_is_at_least_as_good_as_any_epoch() -> None:
    attack, (aux, test) = attack_named("error_map"), cells(seed=5)
    model = toy_model(torch.cat([aux.mean[:SIZE], test.mean[:SIZE]]))
    aux_signals, test_signals = (attack.signals(GreyBox(model, b, 0)) for b in (aux, test))
    optimistic = attack.paper_protocol(aux_signals, MEMBER, test_signals, MEMBER, 0)
    last = attack.scorer(0).fit(aux_signals, MEMBER)
    assert optimistic is not None
    assert optimistic["asr"] >= ((last.score(test_signals) > 0) == MEMBER).mean()
    assert "optimistic" in optimistic["label"]


def test_in_sample_scores_would_flatter_and_out_of_fold_scores_do_not() -> None:
    attack = attack_named("calibrated_loss")
    held, inside = [], []
    for seed in range(20):
        signals = np.random.default_rng(seed).normal(size=(60, 30))
        member = np.arange(60) < 30
        held.append(auc(out_of_fold(attack, signals, member, seed).scores, member))
        inside.append(auc(attack.scorer(seed).fit(signals, member).score(signals), member))
    assert np.mean(inside) > 0.8
    assert abs(np.mean(held) - 0.5) < 0.06


def test_aux_decisions_do_not_flatter() -> None:
    """Without a leak, decisions by thresholds from other folds are right half the time."""
    attack = attack_named("calibrated_loss")
    member = np.arange(60) < 30
    rates = [
        (out_of_fold(attack, np.random.default_rng(seed).normal(size=(60, 4)), member, seed).decisions == member).mean()
        for seed in range(60)
    ]
    assert abs(np.mean(rates) - 0.5) < 0.03
