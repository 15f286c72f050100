"""The proxy, its gain and who gets gradients from whom."""

from __future__ import annotations

import math

import pytest
import torch

from smplora.models.proxy import CHANCE_GAIN, ProxyAttackModel, ascend, log_membership, mi_gain

MAPS, T = torch.rand(6, 2, 3, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) * 100
MEMBER = torch.tensor([True, True, True, False, False, False])


def test_gain_by_hand() -> None:
    h = torch.tensor([0.9, 0.8, 0.3])
    log_h = torch.stack([(1 - h).log(), h.log()], 1)
    gain = mi_gain(log_h, torch.tensor([True, True, False]))
    assert gain.item() == pytest.approx(((math.log(0.9) + math.log(0.8)) / 2 + math.log(0.7)) / 2)


def test_gain_at_chance() -> None:
    assert mi_gain(torch.full((6, 2), math.log(0.5)), MEMBER).item() == pytest.approx(CHANCE_GAIN)


def test_the_two_outputs_are_probabilities() -> None:
    assert torch.allclose(ProxyAttackModel(18)(MAPS, T).exp().sum(1), torch.ones(6))


def test_gain_rises_on_separable_errors() -> None:
    torch.manual_seed(0)
    proxy = ProxyAttackModel(18)
    optimizer = torch.optim.Adam(proxy.parameters(), lr=1e-3)
    maps = MAPS + 2 * (~MEMBER).float().view(-1, 1, 1, 1)
    gains = [ascend(proxy, optimizer, maps, T, MEMBER).mi_gain.item() for _ in range(200)]
    assert gains[0] < -0.6
    assert gains[-1] > -0.1


def test_the_proxys_step_leaves_the_adapters_gradients_untouched() -> None:
    adapter = torch.ones(1, requires_grad=True)
    adapter.grad = torch.tensor([7.0])
    proxy = ProxyAttackModel(18)
    ascend(proxy, torch.optim.Adam(proxy.parameters()), MAPS * adapter, T, MEMBER)
    assert adapter.grad.item() == 7.0


def test_the_adapters_step_leaves_the_proxys_gradients_untouched() -> None:
    adapter = torch.ones(1, requires_grad=True)
    proxy = ProxyAttackModel(18)
    for parameter in proxy.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    log_membership(proxy, MAPS * adapter, T).mean().backward()
    assert adapter.grad is not None
    assert adapter.grad.abs().item() > 0
    assert all((p.grad == 3.0).all() for p in proxy.parameters())
    assert all(p.requires_grad for p in proxy.parameters())


def test_membership_is_judged_without_dropout() -> None:
    proxy = ProxyAttackModel(18).train()
    assert torch.equal(log_membership(proxy, MAPS, T), log_membership(proxy, MAPS, T))
    assert proxy.training


def test_scalar_input_sees_the_mean_alone() -> None:
    proxy = ProxyAttackModel(18, inputs="loss").eval()
    shuffled = MAPS.flatten(1)[:, torch.randperm(18)].view_as(MAPS)
    assert torch.allclose(proxy(MAPS, T), proxy(shuffled, T), atol=1e-6)
    assert not torch.allclose(proxy(MAPS, T), proxy(MAPS * 2, T), atol=1e-6)


@pytest.mark.parametrize("told", [True, False])
def test_timestep_is_seen_when_told(told: bool) -> None:
    proxy = ProxyAttackModel(18, sees_timestep=told).eval()
    assert torch.equal(proxy(MAPS, T), proxy(MAPS, T * 0)) is not told
