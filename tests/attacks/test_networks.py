"""The ResNets of SecMI and PFAMI against the authors' own, and where the networks of attacks are fitted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smplora.attacks import classifiers
from smplora.attacks.classifiers import Recipe, ResNet
from smplora.attacks.load import load_attacks
from smplora.attacks.methods import error_map, pfami, secmi
from smplora.config.audit import AuditConfig
from smplora.core.device import reproducible

CPU = torch.device("cpu")
CONTRAST = torch.tensor([1, 1.5, 0.7, 2, 0.4, 1.2])[:, None, None, None]
MEMBER = torch.arange(6) < 3


def scrambled(*shape: int) -> Tensor:
    """Numbers in [-1, 1) without a generator, whose numbers may change with the library."""
    i = torch.arange(math.prod(shape))
    return (((i * i * 7919 + i * 104729) % 100003) / 100003 * 2 - 1).reshape(shape)


def trained(recipe: Recipe, images: Tensor, epochs: int) -> ResNet:
    """From weights by formula, with the images in the order in which they come."""
    scorer = ResNet(0, recipe, CPU)
    scorer.spread = 1.0
    scorer.network = scorer.fresh(images.shape[1])
    with torch.no_grad():
        for tensor in scorer.network.parameters():
            if tensor.ndim > 1:
                tensor.copy_(scrambled(*tensor.shape) * math.sqrt(3 / tensor[0].numel()))
        scorer.network.head.bias.zero_()
    scorer.descend(images, MEMBER, [torch.arange(6)] * epochs)
    return scorer


def test_secmis_network_learns_what_the_authors_learns() -> None:
    """Golden: nn_train and MIDataset of mia_evals/secmia.py and ResNet18(num_channels=3, num_classes=1) of
    mia_evals/resnet.py (jinhaoduan/SecMI at 41354c9) on the CPU: weights by the formula above in the order of
    parameters(), the linear bias zero; SGD as in nns_attack; one epoch of a DataLoader that does not shuffle, in
    batches of 4; then eval(). Not bit for bit: sums of convolutions depend on the number of threads. After some more
    steps in batches of two that difference decides what is learned.
    """
    images = scrambled(6, 3, 32, 32).abs() * CONTRAST
    scorer = trained(replace(secmi.RECIPE, batch=4), images, 1)
    assert sum(tensor.numel() for tensor in scorer.network.parameters()) == 11_169_345
    expected = [-0.30067, -1.30665, 0.00043, -2.46532, 0.03964, -0.68742]
    np.testing.assert_allclose(scorer.score(images.numpy()), expected, atol=1e-3)


def test_pfamis_network_learns_what_the_authors_learns() -> None:
    """Golden: the loop of attack_model_training and ResNet18(num_channels=1, num_classes=2) of attack/ of
    wjfu99/MIA-Gen at f80df33 on the CPU: weights as above, members labelled 0; 20 steps; then eval(), and minus the
    second output, since the authors rank non-members by it. Only parameters with a gradient count: two stages are
    never used. Twenty steps magnify how a processor rounds: on two kinds the scores differ by 1.3 %.
    """
    images = scrambled(6, 1, 10, 10) * CONTRAST
    scorer = trained(pfami.RECIPE, images, 20)
    assert sum(tensor.numel() for tensor in scorer.network.parameters()) == 674_498
    expected = [-0.75335, -6.18922, 1.48645, -23.79982, -2.50886, -10.87841]
    np.testing.assert_allclose(scorer.score(images.numpy()), expected, rtol=3e-2)


def test_the_settings_are_those_of_the_authors_code() -> None:
    assert (secmi.RECIPE.epochs, secmi.RECIPE.batch, secmi.RECIPE.regression) == (15, 128, True)
    assert (pfami.RECIPE.epochs, pfami.RECIPE.batch, pfami.RECIPE.regression) == (110, None, False)


@pytest.mark.parametrize("edges", [(1, 1), (8, 8), (6, 12), (64, 64)])
def test_maps_of_any_size_are_seen(edges: tuple[int, int]) -> None:
    """The authors' network is for 32 pixels alone."""
    recipe = replace(secmi.RECIPE, epochs=1)
    signals = np.random.default_rng(0).random((4, 2, *edges)).astype(np.float32)
    scores = ResNet(0, recipe, CPU).fit(signals, MEMBER[1:5].numpy()).score(signals)
    assert np.isfinite(scores).all()


def test_a_fit_follows_from_the_seed_and_leaves_other_random_numbers_alone() -> None:
    recipe = replace(pfami.RECIPE, epochs=2)
    signals, member = np.random.default_rng(0).random((6, 1, 10, 10)).astype(np.float32), MEMBER.numpy()
    before = torch.get_rng_state()
    scores = [ResNet(seed, recipe, CPU).fit(signals, member).score(signals) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_errors_are_seen_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are, the epsilon of batch normalisation would swallow them; a power of two changes no other bit."""
    monkeypatch.setattr(classifiers, "WIDTHS", (4, 4))
    signals, member = np.random.default_rng(0).random((6, 1, 10, 10)), MEMBER.numpy()
    recipe = replace(pfami.RECIPE, epochs=2)
    scores = [ResNet(0, recipe, CPU).fit(x, member).score(x) for x in (signals, signals * 2.0**-30)]
    np.testing.assert_array_equal(scores[0], scores[1])


def test_random_numbers_and_convolutions_of_a_gpu_are_kept_apart_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: what torch is asked for."""
    asked: list[Any] = []
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: asked.append(devices) or fork(devices=[]))
    with reproducible(0, torch.device("cuda", 1)):
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    with reproducible(0, CPU):
        pass
    assert asked == [[torch.device("cuda", 1)], []]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("error_map", error_map),
        ("error_map_single", error_map),
        ("error_map_timestep", error_map),
        ("secmi_network", secmi),
        ("pfami_network", pfami),
    ],
)
def test_networks_are_fitted_on_the_device_of_the_audited_model(
    name: str, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--device`` reaches the scorer; every tensor that the network meets was moved to what it names."""
    met: list[torch.device] = []
    elsewhere = torch.device("meta")
    monkeypatch.setattr(module, "choose_device", lambda option: {"there": elsewhere}[option])
    attack = load_attacks([name], AuditConfig(device="there"))[name]
    to = Tensor.to

    def moved(self: Tensor, *where: Any, **more: Any) -> Tensor:
        if where and where[0] == elsewhere:
            met.append(elsewhere)
            return to(self, CPU, **more)
        return to(self, *where, **more)

    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, where: met.append(where) or self)
    signals = np.random.default_rng(0).random((6, 2, 10, 10) if module is not error_map else (6, 2, 3, 4, 4))
    monkeypatch.setattr(error_map, "EPOCHS", 1)
    monkeypatch.setattr(classifiers, "WIDTHS", (4, 4, 4, 4))
    scores = attack.scorer(0).fit(signals.astype(np.float32), MEMBER.numpy()).score(signals.astype(np.float32))
    assert scores.shape == (6,)
    assert len(met) > 2
    assert set(met) == {elsewhere}
