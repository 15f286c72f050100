"""What is measured while training: known leaks are seen, absent ones are not, and nothing is disturbed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from smplora.models.diffusion import adaptation_loss
from smplora.statistics.intervals import auc_interval
from smplora.training.running_attack import RunningAttack
from toys import toy_batch, toy_model

MEMBER, NONMEMBER, HELD_OUT = toy_batch(12, 1), toy_batch(12, 2), toy_batch(9, 3)


class Judge(nn.Module):
    """A proxy that judges by the mean error: the smaller, the more a member."""

    def forward(self, error_maps: Tensor, timesteps: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(error_maps)), -error_maps.flatten(1).mean(1)], 1)


def gauge(memories: Tensor | None, **changes: object) -> RunningAttack:
    settings: dict[str, object] = {"seed": 5, "batch_size": 5}
    return RunningAttack(toy_model(memories), MEMBER, NONMEMBER, HELD_OUT, **{**settings, **changes})


def test_a_planted_leak_is_seen() -> None:
    """Memories of the members halve their error: log 4 of loss calibrated by the base model, 0 for everybody else."""
    reading = gauge(MEMBER.mean).measure()
    assert reading.auc is not None
    assert reading.auc.value == 1
    assert reading.member_loss < 0.3 * reading.held_out_loss
    assert reading.row()["gap"] == pytest.approx(reading.held_out_loss - reading.member_loss)


def test_an_adapter_that_helps_all_alike_is_chance() -> None:
    reading = gauge(None).measure()
    assert reading.auc is not None
    assert reading.auc.low < 0.5 < reading.auc.high
    assert reading.proxy_auc is None


def test_before_the_first_step_there_is_nothing_to_tell() -> None:
    """An adapter that does nothing: the losses are the base model's, every score is 0, the AUC is exactly one half."""
    idle = gauge(None)
    idle.adapted.model.denoiser.disable_adapters()
    base, now = idle.of_base_model(), idle.measure()
    assert (base.held_out_loss, base.member_loss) == (now.held_out_loss, now.member_loss)
    assert base.auc is None
    assert now.auc is not None
    assert now.auc.value == 0.5


def test_the_numbers_are_those_of_one_pass_by_hand() -> None:
    from smplora.attacks.views import GreyBox

    model = toy_model(MEMBER.mean)
    measured = RunningAttack(model, MEMBER, NONMEMBER, None, seed=5, batch_size=5, proxy=Judge())
    scores, answers, losses = [], [], []
    for cell in (MEMBER, NONMEMBER):
        view = GreyBox(model, cell, 5)
        adapted, base = (
            torch.stack([adaptation_loss(view.error_maps(f"at {t}", t, adapted=a)) for t in measured.timesteps], 1)
            for a in (True, False)
        )
        scores.append((base.double().log() - adapted.double().log()).mean(1))
        answers.append(-adapted.mean(1))
        losses.append(adapted)
    reading = measured.measure()
    labels = (torch.arange(24) < 12).numpy()
    assert reading.auc == auc_interval(torch.cat(scores).numpy(), labels)
    assert reading.proxy_auc is not None
    assert reading.proxy_auc.value == pytest.approx(auc_interval(torch.cat(answers).numpy(), labels).value)
    assert reading.member_loss == pytest.approx(float(losses[0].mean()))
    assert reading.held_out_loss == pytest.approx(float(losses[1].mean()))  # without reference: aux non-members


def test_the_batch_size_does_not_matter() -> None:
    one, many = (gauge(MEMBER.mean, batch_size=size).measure() for size in (1, 100))
    assert one.auc == many.auc
    assert one.held_out_loss == pytest.approx(many.held_out_loss)


def test_measuring_leaves_no_trace() -> None:
    adapted, judge = toy_model(MEMBER.mean), Judge()
    model = adapted.model
    model.denoiser.dropout = nn.Dropout(0.5)
    weight = next(model.denoiser.parameters()).requires_grad_(True)
    model.denoiser.train()
    before = torch.get_rng_state()
    RunningAttack(adapted, MEMBER, NONMEMBER, HELD_OUT, seed=0, batch_size=4, proxy=judge).measure()
    assert torch.equal(torch.get_rng_state(), before)
    assert model.denoiser.training
    assert model.denoiser.dropout.training
    assert judge.training
    assert weight.grad is None
    assert weight.requires_grad


def test_a_model_that_blew_up_has_no_numbers() -> None:
    broken = gauge(MEMBER.mean)
    broken.adapted.model.denoiser.strength = float("nan")
    row = broken.measure().row()
    assert row["auc"] is None
    assert row["member_loss"] is None
