"""Attacks against slow, obvious twins: one image at a time, formulas written out, the toy's denoiser called as is."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.image import StructuralSimilarityIndexMeasure

from smplora.attacks.load import load_attacks
from smplora.attacks.low_pass import low_pass
from smplora.attacks.methods.rediffuse import similarity
from smplora.attacks.views import VIEWS, GreyBox
from smplora.config.audit import AuditConfig
from smplora.core.random_streams import generator, stream_seed
from smplora.models.batch import Batch
from smplora.models.diffusion import LatentDiffusion
from smplora.models.encoders.digits import load_digit_features
from toys import KNOWN, caption_of, toy_batch, toy_model, toy_pictures

BATCH = toy_batch(5, seed=7)
MODEL = toy_model(BATCH.mean[:2])
SEED = 4
ABAR = [float(a) for a in MODEL.model.alphas_cumprod.double()]
NOTHING = torch.zeros(BATCH.mean.shape[1:])


def measured(name: str, **options: Any) -> np.ndarray:
    attack = load_attacks([name], AuditConfig(**options))[name]
    view = VIEWS[attack.info.access](MODEL, BATCH, SEED, toy_pictures(BATCH))
    return attack.signals(view)


def told(z: Tensor, t: int, caption: Tensor) -> Tensor:
    """The predicted noise at z, for one image [c, h, w]."""
    with torch.no_grad():
        return MODEL.model.denoiser(z[None], torch.tensor([t]), caption.flatten()[None, None]).sample[0]


def noise(i: int, name: str) -> Tensor:
    return torch.randn(BATCH.mean.shape[1:], generator=generator(SEED, BATCH.digests[i], name, "noise"))


def noised(x: Tensor, t: int, eps: Tensor) -> Tensor:
    return math.sqrt(ABAR[t]) * x + math.sqrt(1 - ABAR[t]) * eps


def loss(x: Tensor, t: int, eps: Tensor, caption: Tensor) -> float:
    return float((told(noised(x, t, eps), t, caption) - eps).square().mean())


def moved(z: Tensor, t: int, to: int, caption: Tensor) -> Tensor:
    eps = told(z, t, caption)
    return noised((z - math.sqrt(1 - ABAR[t]) * eps) / math.sqrt(ABAR[t]), to, eps)


def single_loss(x: Tensor, i: int) -> list[float]:
    return [-loss(x, 100, noise(i, "pair0"), x)]


def secmi(x: Tensor, i: int) -> list[float]:
    z = x
    for t in range(0, 140, 10):
        z = moved(z, t, t + 10, x)
    back = moved(moved(z, 140, 150, x), 150, 140, x)
    return [-float((back - z).square().sum())]


def pia(x: Tensor, i: int, normalised: bool = False) -> list[float]:
    start = told(x, 0, x)
    if normalised:
        start = start * math.sqrt(2 / math.pi) / float(start.abs().sum() / start.numel())
    return [-float((start - told(noised(x, t, start), t, x)).abs().pow(4).sum()) for t in (50, 100, 150, 200, 300)]


def pian(x: Tensor, i: int) -> list[float]:
    return pia(x, i, normalised=True)


def sima(x: Tensor, i: int) -> list[float]:
    return [-sum(abs(float(e)) ** 4 for e in told(x, t, x).flatten()) for t in range(0, 200, 10)]


def pfami(x: Tensor, i: int) -> list[list[float]]:
    """One crop of 0.825 of 8 pixels: 7, from the upper left corner."""
    picture = MODEL.model.vae.decode(x[None] / 4).sample
    crop = torch.nn.functional.interpolate(picture[..., :7, :7], 8, mode="bilinear", antialias=True)
    near, eps = MODEL.model.encode_images(crop)[0][0], noise(i, "pair0")
    own = [loss(x, t, eps, x) for t in range(0, 500, 50)]
    return [[(loss(near, t, eps, x) - o) / o for t, o in zip(range(0, 500, 50), own, strict=True)]]


def pfami_calibrated(x: Tensor, i: int) -> list[list[float]]:
    """The same minus what the base model says."""
    adapted = pfami(x, i)[0]
    with MODEL.without():
        base = pfami(x, i)[0]
    return [[a - b for a, b in zip(adapted, base, strict=True)]]


GRID = (50, 114, 178, 242, 307, 371, 435, 500)


def losses_at(x: Tensor, i: int) -> list[float]:
    """-l_ada at each timestep, both signs of two noises."""
    noises = [sign * noise(i, f"pair{k}") for k in (0, 1) for sign in (1, -1)]
    return [-float(np.mean([loss(x, t, eps, x) for eps in noises])) for t in GRID]


def rises(x: Tensor, i: int) -> list[float]:
    """log of the base model's loss over the adapted one's."""
    with MODEL.without():
        base = losses_at(x, i)
    return [math.log(b / a) for b, a in zip(base, losses_at(x, i), strict=True)]


def sima_mc(x: Tensor, i: int) -> list[float]:
    found = []
    for t in GRID:
        noises = [sign * noise(i, f"pair{k}") for k in (0, 1) for sign in (1, -1)]
        mean = sum(told(noised(x, t, eps), t, x) for eps in noises) / 4
        found.append(-sum(float(e) ** 4 for e in mean.flatten()))
    return found


def sima_mc_calibrated(x: Tensor, i: int) -> list[float]:
    found = []
    for t in GRID:
        noises = [sign * noise(i, f"pair{k}") for k in (0, 1) for sign in (1, -1)]
        means = []
        for base in (True, False):
            with MODEL.without(base):
                means.append(sum(told(noised(x, t, eps), t, x) for eps in noises) / 4)
        sizes = [sum(float(e) ** 4 for e in mean.flatten()) for mean in means]
        found.append(math.log(sizes[0]) - math.log(sizes[1]))
    return found


def odds(x: Tensor, t: int, eps: Tensor) -> float:
    """The toy's proxy, written out."""
    return 2 - 4 * loss(x, t, eps, x)


def proxy(x: Tensor, i: int) -> list[float]:
    digest, found = BATCH.digests[i], []
    for k in range(10):
        t = int(torch.randint(1000, (), generator=generator(SEED, digest, f"map{k}", "timestep")))
        found.append(odds(x, t, noise(i, f"map{k}")))
    return found


def proxy_calibrated(x: Tensor, i: int) -> list[float]:
    found = []
    for t in GRID:
        noises = [sign * noise(i, f"pair{k}") for k in (0, 1) for sign in (1, -1)]
        adapted = [odds(x, t, eps) for eps in noises]
        with MODEL.without():
            base = [odds(x, t, eps) for eps in noises]
        found.append(float(np.mean(adapted) - np.mean(base)))
    return found


def clid(x: Tensor, i: int) -> list[float]:
    """Of 'a toy named 7-0' no part names the image."""
    losses = {
        name: np.mean([loss(x, t, noise(i, f"clid{k}"), c) for k, t in enumerate((440, 450, 460))])
        for name, c in (("full", x), ("reduced", NOTHING))
    }
    return [losses["reduced"] - losses["full"]] * 4 + [-losses["full"]]


def rediffuse(x: Tensor, i: int) -> list[float]:
    back = [moved(noised(x, 50, noise(i, f"variation{k}")), 50, 0, x) for k in range(3)]
    own, other = (MODEL.model.decode(z[None])[0] for z in (x, sum(back) / 3))

    def grey(image: Tensor) -> Any:
        return np.asarray(Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).convert("L"), float)

    a, b = grey(own), grey(other)
    c1, c2 = ((k * (b.max() - b.min())) ** 2 for k in (0.01, 0.03))
    windows = []
    for top in range(a.shape[0] - 6):
        for left in range(a.shape[1] - 6):
            p, q = (image[top : top + 7, left : left + 7].ravel() for image in (a, b))
            both = np.cov(p, q)
            light = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
            windows.append(light * (2 * both[0, 1] + c2) / (both[0, 0] + both[1, 1] + c2))
    return [float(np.mean(windows))]


def test_grey_similarity_is_that_of_scikit_image() -> None:
    """Golden: structural_similarity(a, b, data_range=b.max() - b.min()) of scikit-image 0.26.0 on these images."""
    rng, found = np.random.default_rng(0), []
    for size in (16, 24):
        a = rng.integers(0, 256, (size, size), dtype=np.uint8)
        b = np.clip(a.astype(int) + rng.integers(-40, 41, (size, size)), 0, 255)
        found.append(float(similarity(torch.from_numpy(a)[None], torch.from_numpy(b)[None])[0]))
    assert found == pytest.approx([0.950920151890984, 0.9563003252520856], abs=1e-12)


def rediffuse_images(x: Tensor, i: int) -> list[float]:
    recovered = []
    for k in range(3):
        z = noised(x, 199, noise(i, f"variation{k}"))
        for t, to in ((199, 149), (149, 100), (100, 50), (50, 0)):
            z = moved(z, t, to, x)
        recovered.append(MODEL.model.decode(z[None]))
    similarity = StructuralSimilarityIndexMeasure(data_range=1.0)
    return [float(similarity(sum(recovered) / 3, MODEL.model.decode(x[None])))]


def noise_probe(x: Tensor, i: int) -> list[float]:
    z = x
    with MODEL.without():
        for t, to in pairwise(int(t) for t in np.linspace(0, 999, 101).round()):
            z = moved(z, t, to, x)
    for t, to in pairwise(int(t) for t in np.linspace(999, 0, 51).round()):
        eps = 3.5 * told(z, t, x) - 2.5 * told(z, t, NOTHING)
        z = noised((z - math.sqrt(1 - ABAR[t]) * eps) / math.sqrt(ABAR[t]), to, eps)
    return [-float((MODEL.model.decode(z[None]) - MODEL.model.decode(x[None])).square().sum().sqrt())]


def generated(i: int, k: int) -> Tensor:
    """By diffusers' DDIM from the image's own seed."""
    seed = stream_seed(SEED, BATCH.digests[i], f"image{k}", "generate")
    caption = [caption_of(BATCH.digests[i])]
    return MODEL.model.generate(caption, [seed], resolution=8, num_inference_steps=30, guidance_scale=7.5)


def reconstruction(x: Tensor, i: int) -> list[float]:
    extractor, similar = load_digit_features(), []
    own = extractor.patches(MODEL.model.decode(x[None]))[0]
    for k in range(3):
        other = extractor.patches(generated(i, k))[0]
        cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(own, other, strict=True)]
        similar.append(sum(cosines) / len(cosines))
    return similar


def semantic_distance(x: Tensor, i: int) -> list[float]:
    extractor = load_digit_features()
    return [-float(torch.dist(extractor(MODEL.model.decode(x[None])), extractor(generated(i, 0))))]


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("loss_single", single_loss),
        ("secmi", secmi),
        ("pia", pia),
        ("pian", pian),
        ("sima", sima),
        ("sima_mc", sima_mc),
        ("sima_mc_calibrated", sima_mc_calibrated),
        ("pfami", pfami),
        ("pfami_calibrated", pfami_calibrated),
        ("loss_vector", losses_at),
        ("loss_two_sided", losses_at),
        ("calibrated_two_sided", rises),
        ("proxy", proxy),
        ("proxy_calibrated", proxy_calibrated),
        ("clid", clid),
        ("rediffuse", rediffuse),
        ("rediffuse_images", rediffuse_images),
        ("noise_probe", noise_probe),
        ("reconstruction", reconstruction),
        ("semantic_distance", semantic_distance),
    ],
)
def test_signals_are_those_of_a_slow_twin(name: str, twin: Callable[[Tensor, int], Any]) -> None:
    expected = np.array([twin(x, i) for i, x in enumerate(BATCH.mean)])
    found = measured(name, variations=3)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5 * np.abs(expected).max())


def test_low_pass_is_a_box_in_frequency_space() -> None:
    """Against the definition, frequency by frequency, with the published 5 of 64."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(16, 16))
    half = 1  # 5 of 64 is 1.25 of 16
    n, total = 16, np.zeros((16, 16), dtype=complex)
    where = np.arange(n)
    for u in range(n):
        for v in range(n):
            wave = np.exp(-2j * cmath.pi * (u * where[:, None] + v * where[None, :]) / n)
            inside = all((f + n // 2) % n in range(n // 2 - half, n // 2 + half) for f in (u, v))
            total += (image * wave).sum() * wave.conj() / n**2 * (1 if inside else 0.2)
    found = low_pass(torch.from_numpy(image)[None, None])[0, 0]
    np.testing.assert_allclose(found.numpy(), total.real, atol=1e-6)


def test_the_published_box_on_sd_latents() -> None:
    """64 by 64: frequencies -5 to 4 in each direction stay."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(low_pass(torch.fft.ifft2(torch.ones(1, 1, 64, 64)).real)).real[0, 0])
    whole = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifft2(torch.ones(1, 1, 64, 64)).real).real[0, 0])
    kept = (spectrum / whole > 0.9).nonzero()
    assert kept.min() >= 27
    assert kept.max() <= 37


def test_answers_are_remembered_by_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks that share a memory pay once for the same question; another caption, model or latent is another."""
    asked: list[int] = []
    predict = LatentDiffusion.predict

    def counted(self: LatentDiffusion, *arguments: Any) -> Tensor:
        asked.append(1)
        return predict(self, *arguments)

    monkeypatch.setattr(LatentDiffusion, "predict", counted)
    view = GreyBox(MODEL, BATCH, SEED, toy_pictures(BATCH))
    first = view.predict(BATCH.mean, 50)
    assert torch.equal(view.predict(BATCH.mean.clone(), 50), first)
    assert len(asked) == 1
    for other in (
        lambda: view.predict(BATCH.mean, 51),
        lambda: view.predict(BATCH.mean + 1e-3, 50),
        lambda: view.predict(BATCH.mean, 50, adapted=False),
        lambda: view.predict(BATCH.mean, 50, captions=[""] * 5),
    ):
        before = len(asked)
        assert not torch.equal(other(), first)
        assert len(asked) == before + 1
    with MODEL.without():
        assert torch.equal(MODEL.model.predict(BATCH.mean, torch.full((5,), 50), BATCH.conditioning),
                           view.predict(BATCH.mean, 50, adapted=False))  # fmt: skip


def test_attacks_share_the_first_answer_and_low_pass_asks_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    predict = LatentDiffusion.predict

    def counted(self: LatentDiffusion, *arguments: Any) -> Tensor:
        asked.append(1)
        return predict(self, *arguments)

    monkeypatch.setattr(LatentDiffusion, "predict", counted)
    view = GreyBox(MODEL, BATCH, SEED, toy_pictures(BATCH))
    costs = []
    for name in ("pia", "pian", "secmi", "secmi_network", "secmi+low_pass", "pia+low_pass"):
        before = len(asked)
        load_attacks([name], AuditConfig())[name].signals(view)
        costs.append(len(asked) - before)
    assert costs == [6, 5, 15, 0, 0, 0]  # PIA's first answer is SecMI's


def test_v_prediction_is_converted_to_noise() -> None:
    """A model that knows v exactly is asked for noise."""
    model = toy_model(None).model
    model.scheduler.register_to_config(prediction_type="v_prediction")
    x, eps, t = BATCH.mean, torch.randn(BATCH.mean.shape, generator=torch.Generator().manual_seed(1)), 300
    abar = model.alphas_cumprod[t]
    v = abar.sqrt() * eps - (1 - abar).sqrt() * x
    z = abar.sqrt() * x + (1 - abar).sqrt() * eps
    torch.testing.assert_close(model.predicted_noise(v, z, torch.full((5,), t)), eps)


def test_other_captions_change_what_is_asked() -> None:
    view = GreyBox(MODEL, BATCH, SEED, toy_pictures(BATCH))
    own = view.error_maps("a", 300)
    assert torch.equal(view.error_maps("a", 300, captions=[caption_of(d) for d in BATCH.digests]), own)
    assert not torch.equal(view.error_maps("a", 300, captions=["unknown"] * 5), own)
    assert set(map(caption_of, BATCH.digests)) <= KNOWN.keys()


def test_batches_without_pictures_serve_attacks_that_need_none() -> None:
    view = GreyBox(MODEL, Batch(BATCH.mean, BATCH.std, BATCH.conditioning, BATCH.digests), SEED)
    assert view.error_maps("a", 300).shape == BATCH.mean.shape
    with pytest.raises(TypeError):
        _ = view.pixels
