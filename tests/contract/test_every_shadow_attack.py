"""Attacks with shadow adapters through the views of toy models: what test_every_attack.py asks of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smplora.attacks.base import Access
from smplora.attacks.fitting import learn, out_of_fold
from smplora.attacks.load import load_attacks
from smplora.attacks.shadow_comparison import ShadowAttack, Shadows, near_normal
from smplora.attacks.views import VIEWS
from smplora.audit.shadow_plan import divide
from smplora.config.audit import AuditConfig
from smplora.config.catalogue.attacks import SHADOW, SHADOW_SIGNALS
from smplora.core.errors import ConfigError
from smplora.models.adapted import Adapted
from smplora.models.batch import Batch
from smplora.statistics.curves import auc
from smplora.statistics.intervals import auc_interval
from toys import toy_batch, toy_model, toy_pictures

SIZE, NUMBER = 30, 4
MEMBER = np.arange(2 * SIZE) < SIZE
OWN_SCORER = [name for name in SHADOW if name != "gsa2_shadows"]  # its scorer is that of gsa1_shadows


def attack_named(name: str, signal: str = "calibrated_loss") -> ShadowAttack:
    counts = AuditConfig(num_timesteps=3, noise_pairs=1, variations=2, pfami_crops=1, shadow_signal=signal)
    attack = load_attacks([name], counts)[name]
    assert isinstance(attack, ShadowAttack)
    return attack


def view_of(attack: ShadowAttack, model: Adapted, batch: Batch) -> Any:
    return VIEWS[attack.info.access](model, batch, 0, toy_pictures(batch))


def shadows_of(attack: ShadowAttack, *batches: Batch) -> Shadows:
    """Toy models that memorised halves of all images."""
    everything = {d: (b, i) for b in batches for i, d in enumerate(b.digests)}
    sizes = dict.fromkeys(("aux_member", "test_member", "aux_nonmember", "test_nonmember"), len(everything) // 4)
    trained_on = []
    for number in range(NUMBER):
        split = divide(list(everything), sizes, 0, number // 2)[number % 2]
        trained_on.append({*split["aux_member"], *split["test_member"]})
    answers: dict[str, list[Any]] = {digest: [] for digest in everything}
    for images in trained_on:
        model = toy_model(torch.stack([everything[d][0].mean[everything[d][1]] for d in sorted(images)]))
        for batch in batches:
            rows = near_normal(attack.shadow_signal, attack.compared.signals(view_of(attack, model, batch)))
            for digest, row in zip(batch.digests, rows, strict=True):
                answers[digest].append(row)
    is_in = {d: np.array([d in images for images in trained_on]) for d in everything}
    return Shadows({d: np.stack(rows) for d, rows in answers.items()}, is_in)


@pytest.mark.parametrize(
    ("name", "signal"),
    [
        *((name, "calibrated_loss") for name in SHADOW),
        *(("lira_offline", signal) for signal in ("loss", "secmi+low_pass", "sima", "clid", "pfami")),
    ],
)
def test_a_model_that_memorises_is_found_out(name: str, signal: str) -> None:
    """In the promised direction, whatever is compared; and batches do not matter."""
    aux, test = toy_batch(2 * SIZE, 10), toy_batch(2 * SIZE, 11)
    attack = attack_named(name, signal)
    attack = attack.among(shadows_of(attack, aux, test))
    model = toy_model(torch.cat([aux.mean[:SIZE], test.mean[:SIZE]]))
    signals = [attack.signals(view_of(attack, model, batch)) for batch in (aux, test)]
    assert auc(attack.scorer(0).fit(signals[0], MEMBER).score(signals[1]), MEMBER) > 0.95
    assert auc(out_of_fold(attack, signals[0], MEMBER, 0), MEMBER) > 0.95
    parts = np.concatenate([attack.signals(view_of(attack, model, b)) for b in test.split(17)])
    np.testing.assert_allclose(parts, signals[1], rtol=1e-3, atol=1e-4 * np.abs(parts).max())


@pytest.mark.parametrize("name", OWN_SCORER)
def test_a_model_that_never_saw_the_members_gives_nothing(name: str) -> None:
    """Though the shadows leak: the interval contains 0.5 in at least 93 of 100 draws of four cells out of a pool."""
    attack, pool = attack_named(name), toy_batch(4 * SIZE, 302)
    attack = attack.among(shadows_of(attack, pool))
    signals = attack.signals(view_of(attack, toy_model(None), pool))
    member, hits = np.arange(40) < 20, 0
    for seed in range(100):
        aux, test = np.random.default_rng(seed).permutation(len(pool))[:80].reshape(2, 40)
        interval = auc_interval(attack.scorer(seed).fit(signals[aux], member).score(signals[test]), member).bounds()
        hits += interval["low"] <= 0.5 <= interval["high"]
    assert hits >= 93


@pytest.mark.parametrize("name", OWN_SCORER)
def test_permuted_labels_give_nothing_and_test_is_read_once(name: str) -> None:
    aux, test = toy_batch(2 * SIZE, 10), toy_batch(2 * SIZE, 11)
    attack = attack_named(name)
    attack = attack.among(shadows_of(attack, aux, test))
    model = toy_model(torch.cat([aux.mean[:SIZE], test.mean[:SIZE]]))
    aux_signals, test_signals = (attack.signals(view_of(attack, model, batch)) for batch in (aux, test))
    inside = 0
    for seed in range(20):
        told = np.random.default_rng(seed).permuted(MEMBER)
        interval = auc_interval(learn(attack, aux_signals, told, seed).held, told).bounds()
        inside += interval["low"] <= 0.5 <= interval["high"]
    assert inside >= 16
    whole, part = (learn(attack, aux_signals, MEMBER, 0).read(rows) for rows in (test_signals, test_signals[::3]))
    np.testing.assert_allclose(part.scores, whole.scores[::3], rtol=1e-6)
    assert part.threshold == whole.threshold


def test_attacks_have_the_access_and_the_papers_of_what_they_compare() -> None:
    attack = attack_named("lira", "gradient_alignment")
    assert attack.info.access is Access.WHITE_BOX
    assert attack_named("rmia").info.access is Access.GREY_BOX
    assert "carlini2022membership" in attack.info.bibtex
    assert "watson2022importance" in attack_named("rmia").info.bibtex
    assert "shadow" in attack.info.fitted_on
    carried = attack_named("gsa1_shadows", "secmi").info
    assert (carried.access, carried.title) == (Access.WHITE_BOX, "GSA1 trained on shadow adapters")


@pytest.mark.parametrize("name", ["lira", "lira_offline"])
def test_the_base_models_loss_cancels(name: str) -> None:
    """Each image is compared with itself, so that calibrating changes nothing."""
    batch, scores = toy_batch(2 * SIZE, 10), []
    for signal in ("loss", "calibrated_loss"):
        attack = attack_named(name, signal)
        attack = attack.among(shadows_of(attack, batch))
        signals = attack.signals(view_of(attack, toy_model(batch.mean[:SIZE]), batch))
        scores.append(attack.scorer(0).fit(signals, MEMBER).score(signals))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6, atol=1e-6)


def test_without_shadows_it_is_said() -> None:
    attack = attack_named("lira")
    with pytest.raises(ConfigError, match="--shadows"):
        attack.signals(view_of(attack, toy_model(None), toy_batch(2, 0)))


def test_what_was_compared_tells_caches_apart() -> None:
    attack, batch = attack_named("lira"), toy_batch(4, 0)
    shadows = shadows_of(attack, batch)
    other = Shadows(shadows.signals, {digest: ~row for digest, row in shadows.is_in.items()})
    assert attack.among(shadows).fingerprint != attack.among(other).fingerprint
    assert attack.among(shadows).fingerprint == attack.among(shadows_of(attack, batch)).fingerprint


def test_the_guide_names_every_signal() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "auditing.md").read_text()
    section = guide.split("## Shadow adapters")[1].split("\n## ")[0]
    assert not [name for name in SHADOW_SIGNALS if f"`{name}`" not in section]
