"""Noising, targets and error maps against diffusers and a slow twin; the views' draws."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from smplora.attacks.views import GreyBox
from smplora.models.batch import Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from toys import toy_batch, toy_model

BATCH = toy_batch(5, seed=3)
DRAW = Draw(torch.tensor([0, 10, 500, 900, 999]), torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(1)))


def model_with(prediction_type: str) -> LatentDiffusion:
    model = toy_model(None).model
    model.scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    )
    return model


def test_add_noise_is_diffusers() -> None:
    model = model_with("epsilon")
    theirs = model.scheduler.add_noise(BATCH.mean, DRAW.noise, DRAW.timesteps)
    assert torch.allclose(model.add_noise(BATCH.mean, DRAW), theirs, atol=1e-6)


def test_v_target_is_diffusers() -> None:
    model = model_with("v_prediction")
    theirs = model.scheduler.get_velocity(BATCH.mean, DRAW.noise, DRAW.timesteps)
    assert torch.allclose(model.target(BATCH.mean, DRAW), theirs, atol=1e-6)


def test_error_maps_one_by_one() -> None:
    model = toy_model(BATCH.mean[:3]).model
    together = model.error_maps(BATCH, DRAW)
    for i in range(5):
        z = model.add_noise(BATCH.mean[i : i + 1], Draw(DRAW.timesteps[i : i + 1], DRAW.noise[i : i + 1]))
        prediction = model.denoiser(
            z, DRAW.timesteps[i : i + 1], BATCH[i : i + 1].conditioning["encoder_hidden_states"]
        ).sample
        assert torch.allclose(together[i], (DRAW.noise[i] - prediction[0]) ** 2, atol=1e-6)
    assert torch.allclose(adaptation_loss(together), together.mean((1, 2, 3)))


def test_posterior_is_sampled_only_when_asked() -> None:
    model = toy_model(None).model
    wide = toy_batch(5, seed=3)
    wide = type(wide)(wide.mean, torch.ones_like(wide.std), wide.conditioning, wide.digests)
    mode = model.error_maps(wide, DRAW)
    assert torch.equal(mode, model.error_maps(BATCH, DRAW))
    assert not torch.equal(mode, model.error_maps(wide, Draw(DRAW.timesteps, DRAW.noise, torch.ones_like(wide.mean))))


def test_draws_do_not_depend_on_the_batch() -> None:
    model = toy_model(BATCH.mean[:3])
    whole = GreyBox(model, BATCH, seed=0)
    for name, t in (("a", None), ("a", 300), ("-a", 300)):
        parts = torch.cat([GreyBox(model, b, seed=0).error_maps(name, t) for b in BATCH.split(2)])
        assert torch.allclose(whole.error_maps(name, t), parts, atol=1e-6)


def test_draws_depend_on_seed_name_and_sample() -> None:
    view = GreyBox(toy_model(None), BATCH, seed=0)
    maps = view.error_maps("a", 500)
    assert not torch.equal(maps, view.error_maps("b", 500))
    assert not torch.equal(maps, GreyBox(toy_model(None), BATCH, seed=1).error_maps("a", 500))
    noise = view._noise("a")
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(view._noise("-a"), -noise)


def test_base_and_adapted_model_see_the_same_draw() -> None:
    adapted = toy_model(BATCH.mean)
    view = GreyBox(adapted, BATCH, seed=0)
    with adapted.without():
        base = GreyBox(adapted, BATCH, seed=0).error_maps("a", 500)
    assert torch.equal(view.error_maps("a", 500, adapted=False), base)
    assert view.error_maps("a", 500).mean() < base.mean()
    assert adapted.model.denoiser.adapted


@pytest.mark.parametrize("rows", [slice(1, 3), [4, 0]])
def test_batch_rows(rows: slice | list[int]) -> None:
    part = BATCH[rows]
    assert torch.equal(part.mean, BATCH.mean[rows])
    assert part.digests == (("3-1", "3-2") if isinstance(rows, slice) else ("3-4", "3-0"))
