"""The objectives against hand-computed values and the paper's gradient."""

from __future__ import annotations

import pytest
import torch

from smplora.objectives.lora import LoRA
from smplora.objectives.mp_lora import MPLoRA
from smplora.objectives.smp_lora import SMPLoRA

LOSS = torch.tensor([0.2, 0.4], dtype=torch.float64)
LOG_H = torch.tensor([-1.0, -3.0], dtype=torch.float64)


def test_lora_is_the_adaptation_loss() -> None:
    assert LoRA()(LOSS, LOG_H).tolist() == [0.2, 0.4]


def test_mp_lora_adds_lambda_times_the_gain() -> None:
    assert MPLoRA(0.5)(LOSS, LOG_H).tolist() == pytest.approx([0.2 - 0.5, 0.4 - 1.5])


def test_smp_lora_divides_by_one_minus_lambda_gain_plus_delta() -> None:
    assert SMPLoRA(0.5, 0.01)(LOSS, LOG_H).tolist() == pytest.approx([0.2 / (1 + 0.5 + 0.01), 0.4 / (1 + 1.5 + 0.01)])


def test_smp_lora_ratio_of_batch_means() -> None:
    mean = SMPLoRA(0.5, 0.01, "batch_mean")(LOSS, LOG_H).mean()
    assert mean.item() == pytest.approx(0.3 / (1 + 0.5 * 2 + 0.01))


def test_the_two_ratios_agree_at_batch_size_one() -> None:
    one = SMPLoRA(0.3)(LOSS[:1], LOG_H[:1])
    assert torch.equal(one, SMPLoRA(0.3, smp_ratio="batch_mean")(LOSS[:1], LOG_H[:1]))


def toy_terms(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss and a log-probability of each of five samples, both smooth functions of the same weights."""
    x = torch.linspace(-1, 2, 5, dtype=torch.float64)[:, None]
    y = (x * weights).tanh().sum(1)
    return (y - x[:, 0]).square() + 0.1, torch.nn.functional.logsigmoid(2 * y - 1)


def gradient(value: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, weights, retain_graph=True)[0]


@pytest.mark.parametrize("ratio", ["per_sample", "batch_mean"])
def test_gradient_identity_of_smp_lora(ratio: str) -> None:
    """grad = (1/D) grad L + (lambda L / D^2) grad G, per sample or for the batch means, to float64 precision."""
    weights = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    loss, gain = toy_terms(weights)
    lam, delta = 0.7, 1e-5
    actual = gradient(SMPLoRA(lam, delta, ratio)(loss, gain).mean(), weights)
    if ratio == "batch_mean":
        loss, gain = loss.mean()[None], gain.mean()[None]
    expected = torch.stack(
        [
            gradient(one, weights) / (1 - lam * g.detach() + delta)
            + lam * one.detach() / (1 - lam * g.detach() + delta) ** 2 * gradient(g, weights)
            for one, g in zip(loss, gain, strict=True)
        ]
    ).mean(0)
    assert torch.allclose(actual, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("objective", [MPLoRA(0.0), SMPLoRA(0.0, 0.0), SMPLoRA(0.0, 0.0, "batch_mean")])
def test_lambda_zero_gives_the_gradients_of_lora_exactly(objective: MPLoRA | SMPLoRA) -> None:
    weights = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    loss, gain = toy_terms(weights)
    plain = gradient(LoRA()(loss, gain).mean(), weights)
    assert torch.equal(gradient(objective(loss, gain).mean(), weights), plain)
