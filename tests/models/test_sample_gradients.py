"""Per-sample gradients of a batch against one backward pass per image and draw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from smplora.adapters.lora import LoRAAdaptation
from smplora.attacks.methods.gradient_alignment import GradientAlignmentAttack
from smplora.attacks.methods.self_influence import SelfInfluence
from smplora.attacks.views import GRADIENT_NUMBERS, WhiteBox
from smplora.core.errors import ConfigError
from smplora.core.random_streams import generator
from smplora.models.adapted import Adapted
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.models.load import load_model
from smplora.models.sample_gradients import (
    BUCKETS,
    Gradients,
    adapted_layers,
    count_sketch,
    sample_gradients,
)
from smplora.models.text import configured
from smplora.statistics.curves import auc
from toys import toy_batch, toy_model

DRAWS, STEPS = ("one", "two", "three"), (99, 499, 999)


def one_by_one(adapted: Adapted, batch: Batch, layers: list[Any], ups: list[Any], deltas: list[Tensor]) -> Any:
    """Autograd's gradients of the weights, one image and one draw at a time."""
    each = np.zeros((len(batch), len(DRAWS), len(layers)))
    mean = np.zeros((len(batch), len(layers)))
    along = np.zeros((len(batch), len(DRAWS), len(deltas)))
    sketch = np.zeros((len(batch), BUCKETS))
    model = adapted.model
    base = adapted_layers(*adapted.components)[2]
    weights = [layer.weight.requires_grad_() for layer in layers]
    base_weights = [layer.weight.requires_grad_() for layer in base]
    for i in range(len(batch)):
        total = [torch.zeros_like(w) for w in weights]
        for k, (name, t) in enumerate(zip(DRAWS, STEPS, strict=True)):
            shape = batch.mean.shape[1:]
            noise = torch.randn(shape, generator=generator(0, batch.digests[i], name, "noise"))[None]
            loss = adaptation_loss(model.error_maps(batch[i : i + 1], Draw(torch.tensor([t]), noise))).sum()
            found = torch.autograd.grad(loss, [*weights, *base_weights], allow_unused=True)
            own = [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=False)]
            each[i, k] = [float(g.double().norm()) for g in own]
            total = [a + g for a, g in zip(total, own, strict=True)]
            along[i, k] = [float((g * d).sum()) for g, d in zip(found[len(weights) :], deltas, strict=True)]
        mean[i] = [float(g.double().norm()) / len(DRAWS) for g in total]
        sketch[i] = sum(count_sketch(g.flatten(1)[None] / len(DRAWS), salt)[0] for salt, g in enumerate(total))
    for weight in (*weights, *base_weights):
        weight.requires_grad_(False)
    return each, mean, along, sketch


def compare(adapted: Adapted, batch: Batch) -> None:
    parts = adapted.components
    down, up, base = adapted_layers(*parts)
    tuned = [m for part in parts for m in part.modules() if hasattr(m, "lora_A")]
    deltas = [m.get_delta_weight("default").detach() for m in tuned]
    assert len(down) == len(up) == len(base) == len(tuned) > 0
    for of, layers in (("adapter", [*down, *up]), ("base", base)):
        found = WhiteBox(adapted, batch, 0).gradients(DRAWS, STEPS, of)
        single = WhiteBox(adapted, batch, 0).gradients(DRAWS[:1], STEPS[:1], of)
        torch.testing.assert_close(single.norms, found.norms[:, :1], rtol=1e-5, atol=1e-5 * float(found.norms.max()))
        slow_ones = one_by_one(adapted, batch, layers, up, deltas)
        for mine, slow in zip(
            (found.norms, found.norms_of_mean, found.along_update, found.sketch), slow_ones, strict=True
        ):
            np.testing.assert_allclose(mine.numpy(), slow, rtol=1e-5, atol=1e-5 * np.abs(slow).max())


def test_toy() -> None:
    batch = toy_batch(4, seed=2)
    compare(toy_model(batch.mean[:2]), batch)


@pytest.mark.parametrize("text_encoder", [False, True])
def test_bundled_model(text_encoder: bool) -> None:
    """All kinds of linear layers of a U-Net, and of a text encoder that reads captions in two passages."""
    model = load_model("tiny", torch.device("cpu"))
    torch.manual_seed(0)
    adaptation = LoRAAdaptation(rank=3, lora_targets="all", train_text_encoder=text_encoder)
    trained = adaptation.attach(model)
    for parameters in trained.values():
        for parameter in parameters:
            parameter.data.normal_(std=0.05)
            parameter.requires_grad_(False)
    if text_encoder:
        model.text = configured(model.text, 1, 150)
    mean = torch.randn((3, model.vae.config.latent_channels, 8, 8))
    told = model.encode_captions(["a handwritten five", "a handwritten six", "seven"], 32)
    compare(Adapted(model, adaptation), Batch(mean, torch.zeros_like(mean), told, ("a", "b", "c")))


@pytest.mark.parametrize("count", [7, 8])
def test_dora(count: int) -> None:
    """Before the samples its layers see unit matrices, of 64 and more rows, which are no samples, even where their rows
    could be those of 8."""
    model = load_model("tiny", torch.device("cpu"))
    torch.manual_seed(0)
    adaptation = LoRAAdaptation(rank=3, lora_targets="all", use_dora=True)
    adaptation.attach(model)
    model.denoiser.requires_grad_(False)
    down, up, _ = adapted_layers(model.denoiser)
    for layer in (*down, *up):
        layer.weight.data.normal_(std=0.05)
    mean = torch.randn((count, model.vae.config.latent_channels, 8, 8))
    batch = Batch(mean, torch.zeros_like(mean), model.encode_captions(["seven"] * count, 32), tuple("abcdefgh"[:count]))
    found = WhiteBox(Adapted(model, adaptation), batch, 0).gradients(DRAWS[:1], STEPS[:1], "adapter").norms[:, 0]
    weights = [layer.weight.requires_grad_() for layer in (*down, *up)]
    for i in (0, 6):
        noise = torch.randn(mean.shape[1:], generator=generator(0, batch.digests[i], DRAWS[0], "noise"))[None]
        loss = adaptation_loss(model.error_maps(batch[i : i + 1], Draw(torch.tensor(STEPS[:1]), noise))).sum()
        slow = torch.stack([g.norm() for g in torch.autograd.grad(loss, weights)])
        torch.testing.assert_close(found[i], slow, rtol=1e-4, atol=1e-5 * float(slow.max()))


def test_what_dora_added_is_the_merged_weight_minus_the_base_models() -> None:
    """Autograd's gradient of the merged model's weights, one image at a time, times what peft merged into them."""
    model = load_model("tiny", torch.device("cpu"))
    torch.manual_seed(0)
    adaptation = LoRAAdaptation(rank=3, lora_targets="all", use_dora=True)
    adaptation.attach(model)
    tuned: list[Any] = [m for m in model.denoiser.modules() if hasattr(m, "lora_magnitude_vector")]
    for layer in tuned:
        for part in (layer.lora_A, layer.lora_B):
            part["default"].weight.data.normal_(std=0.05)
        magnitude = layer.lora_magnitude_vector["default"].weight
        magnitude.data *= 1 + 0.2 * torch.rand(magnitude.shape)
    model.denoiser.requires_grad_(False)
    mean = torch.randn((2, model.vae.config.latent_channels, 8, 8))
    batch = Batch(mean, torch.zeros_like(mean), model.encode_captions(["seven", "six"], 32), ("a", "b"))
    found = WhiteBox(Adapted(model, adaptation), batch, 0).gradients(DRAWS[:1], STEPS[:1], "adapter").along_update[:, 0]
    weights = [layer.base_layer.weight for layer in tuned]
    before = [weight.clone() for weight in weights]
    for layer in tuned:
        layer.merge()
    for i, name in enumerate(batch.digests):
        noise = torch.randn(mean.shape[1:], generator=generator(0, name, DRAWS[0], "noise"))[None]
        for weight in weights:
            weight.requires_grad_()
        loss = adaptation_loss(model.error_maps(batch[i : i + 1], Draw(torch.tensor(STEPS[:1]), noise))).sum()
        slopes = torch.autograd.grad(loss, weights)
        slow = [(g * (w - b)).sum() for g, w, b in zip(slopes, weights, before, strict=True)]
        torch.testing.assert_close(
            found[i], torch.stack(slow).detach(), rtol=1e-4, atol=1e-4 * float(found.abs().max())
        )


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 1)])
def test_convolutions(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, kernel, stride, padding), nn.SiLU(), nn.Conv2d(5, 2, 1))
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"], init_lora_weights=False), network)
    network.requires_grad_(False)
    images, layer = torch.randn(4, 3, 8, 8), network[0].lora_A["default"]
    up = network[0].lora_B["default"]
    found = sample_gradients(lambda k: network(images).square().sum((1, 2, 3)), 4, 1, [layer], {up: None})
    layer.weight.requires_grad_()
    slow = [torch.autograd.grad(network(x[None]).square().sum(), layer.weight)[0].norm() for x in images]
    torch.testing.assert_close(found.norms[:, 0, 0], torch.stack(slow), rtol=1e-5, atol=0)


def test_sketches_add_numbers_up_and_keep_inner_products() -> None:
    rng = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 1, 20, 30, generator=rng)
    rng = torch.Generator().manual_seed(7)
    buckets, signs = (torch.randint(n, (600,), generator=rng).tolist() for n in (BUCKETS, 2))
    slow = [0.0] * BUCKETS
    for number, bucket, sign in zip(one.flatten().tolist(), buckets, signs, strict=True):
        slow[bucket] += number if sign else -number
    torch.testing.assert_close(count_sketch(one, 7)[0], torch.tensor(slow))
    mixed = one + other  # <one, mixed> is far from 0
    found = [float((count_sketch(one, salt) * count_sketch(mixed, salt)).sum()) for salt in range(200)]
    true = float((one * mixed).sum())
    error = (2 / BUCKETS / 200) ** 0.5 * float(one.norm() * mixed.norm())
    assert abs(np.mean(found) - true) < 4 * error < true / 10


def test_self_influence_is_that_of_loops() -> None:
    rng = np.random.default_rng(0)
    aux, test = rng.normal(size=(30, 6)) * [9, 3, 1, 1, 1, 0.1], rng.normal(size=(5, 6))
    second = sum(np.outer(g, g) for g in aux) / 30
    ridged = second + np.trace(second) / 6 * np.eye(6)
    slow = [-g @ np.linalg.solve(ridged, g) for g in test]
    for told in (np.arange(30) < 15, np.arange(30) % 2 == 0):
        np.testing.assert_allclose(SelfInfluence().fit(aux, told).score(test), slow)


def test_little_memory_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = toy_batch(5, seed=2)
    model = toy_model(batch.mean[:2])
    whole = WhiteBox(model, batch, 0).gradients(DRAWS, STEPS, "adapter")
    assert GRADIENT_NUMBERS > 1
    monkeypatch.setattr("smplora.attacks.views.GRADIENT_NUMBERS", 40)  # two images of 16 numbers
    parts = WhiteBox(model, batch, 0).gradients(DRAWS, STEPS, "adapter")
    for name in Gradients.__dataclass_fields__:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-7)


def test_an_adapter_without_low_rank_layers_is_refused() -> None:
    model = toy_model(None)
    model.model.denoiser.mix = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match="no layer was trained"):
        WhiteBox(model, toy_batch(2, 0), 0).gradients(DRAWS, STEPS, "adapter")


class Register(nn.Module):
    """Knows its images by number: eps = (z - sqrt(abar) M e_i) / sqrt(1 - abar), M = B A learned in part by training:
    column i is half of image i for members, 0 for others."""

    def __init__(self, images: Tensor, members: int, abar: Tensor) -> None:
        super().__init__()
        self.abar, self.table = abar, nn.Linear(len(images), images[0].numel(), bias=False)
        rank = images[0].numel()
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=["table"]), self)
        self.requires_grad_(False)
        self.table.base_layer.weight.zero_()
        self.table.lora_A["default"].weight.copy_(images.flatten(1).T * (torch.arange(len(images)) < members) / 2)
        self.table.lora_B["default"].weight.copy_(torch.eye(rank))

    def forward(self, z: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        abar = self.abar[t].view(-1, 1, 1, 1)
        known = self.table(encoder_hidden_states)[:, 0].view(z.shape)
        return SimpleNamespace(sample=(z - abar.sqrt() * known) / (1 - abar).sqrt())


def test_gradients_of_members_point_against_the_update() -> None:
    """<gradient, dW> is -c ||x||^2 / 4 for members, half learned, with c > 0, and 0 for others."""
    images = toy_batch(20, seed=0).mean
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    model = LatentDiffusion(None, None, Register(images, 10, scheduler.alphas_cumprod), scheduler, "register", "digest")
    numbers = torch.eye(20)[:, None]
    batch = Batch(images, torch.zeros_like(images), {"encoder_hidden_states": numbers}, tuple(map(str, range(20))))
    attack = GradientAlignmentAttack()
    signals = attack.signals(WhiteBox(Adapted(model, LoRAAdaptation()), batch, 0))
    member = np.arange(20) < 10
    assert auc(attack.scorer(0).fit(signals, member).score(signals), member) == 1.0
    np.testing.assert_allclose(signals[~member], 0, atol=1e-5 * np.abs(signals).max())
    abar = model.alphas_cumprod[99]
    expected = 2 * abar / (1 - abar) * images[:10].square().flatten(1).mean(1) / 4
    np.testing.assert_allclose(signals[member, 0], expected.numpy(), rtol=1e-3)
