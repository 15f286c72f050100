"""The game as an object: the numbers of its parts, gradients only where they belong, exact checkpoints."""

from __future__ import annotations

import math

import pytest
import torch

from smplora import SMPLoRAGame
from smplora.core.errors import ConfigError
from smplora.models.proxy import ProxyAttackModel, ascend, log_membership
from smplora.objectives.smp_lora import SMPLoRA

SHAPE = (2, 3, 3)


def maps(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def game(**options: object) -> SMPLoRAGame:
    torch.manual_seed(3)
    return SMPLoRAGame(SHAPE, **{"mi_lambda": 0.7, "proxy_learning_rate": 1e-2, **options})  # type: ignore[arg-type]


def test_it_is_the_sum_of_its_parts() -> None:
    played = game()
    torch.manual_seed(3)
    proxy = ProxyAttackModel(18)
    optimizer = torch.optim.Adam(proxy.parameters(), lr=1e-2, weight_decay=1e-4, fused=True)
    for k in range(3):
        inside, outside, batch = maps(4, 3 * k), maps(5, 3 * k + 1), maps(6, 3 * k + 2)
        torch.manual_seed(k)
        seen = played.update(inside, outside)
        torch.manual_seed(k)
        expected = ascend(proxy, optimizer, torch.cat([inside, outside]), torch.zeros(9), torch.arange(9) < 4)
        assert seen == expected
        log_h = log_membership(proxy, batch, torch.zeros(6))
        by_hand = SMPLoRA(0.7, 1e-5)(batch.flatten(1).mean(1), log_h).mean()
        assert played.loss(batch) == by_hand


def test_gradients_reach_the_maps_and_not_the_proxy() -> None:
    played, errors = game(), maps(4, 0).requires_grad_(True)
    played.loss(errors).backward()
    assert errors.grad is not None
    assert all(p.grad is None for p in played.proxy.parameters())
    known = maps(4, 1).requires_grad_(True)
    played.update(known, maps(4, 2))
    assert known.grad is None


def test_weights_are_of_the_adaptation_loss() -> None:
    batch, weights = maps(4, 0), torch.tensor([0.0, 1.0, 2.0, 3.0])
    played = game(objective="lora")
    assert played.loss(batch, weights=weights) == pytest.approx(float((batch.flatten(1).mean(1) * weights).mean()))
    assert played.update(batch, batch) is None


def test_a_restored_game_goes_on_bit_for_bit() -> None:
    first, second = game(), game()
    first.update(maps(4, 0), maps(4, 1))
    second.load_state_dict(first.state_dict())
    for played in (first, second):
        torch.manual_seed(9)
        played.update(maps(4, 2), maps(4, 3))
    assert first.loss(maps(5, 4)) == second.loss(maps(5, 4))


def test_a_proxy_that_sees_timesteps_asks_for_them() -> None:
    played = game(proxy_sees_timestep=True)
    assert played.loss(maps(4, 0), torch.full((4,), 10)) != played.loss(maps(4, 0), torch.full((4,), 900))
    with pytest.raises(ValueError, match="sees the timestep"):
        played.loss(maps(4, 0))


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        game(objective="smplora", mi_lambda=-1.0, proxy_learning_rate=0.0)
    assert "did you mean 'smp_lora'?" in str(error.value)
    assert "--mi_lambda got -1.0" in str(error.value)
    assert "--proxy_learning_rate got 0.0" in str(error.value)
    for name in ("mi_lambda", "smp_delta", "proxy_learning_rate"):
        with pytest.raises(ConfigError, match=f"--{name} got inf"):
            game(**{name: math.inf})
