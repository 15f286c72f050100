"""Copies of training images: distances against slow twins, tests against closed forms and simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, fisher_exact
from torch import Tensor

from smplora.audit.memorisation.captions import NOISES, compare_prompts, magnitudes
from smplora.audit.memorisation.copies import (
    compare,
    conclusion,
    cosine_distances,
    nearer_test,
)
from smplora.core.random_streams import generator
from smplora.data.likeness import adaptive_ratios, pixel_distances
from toys import SHAPE, ToyVAE, caption_of, toy_batch, toy_model


def pictures(count: int, seed: int, height: int = 8, width: int = 12) -> Tensor:
    return torch.randint(256, (count, 3, height, width), generator=generator(seed, "pictures")).byte()


def test_pixel_distances_equal_a_slow_twin() -> None:
    """Tile by tile, pair by pair, in the words of the paper."""
    one, other = pictures(3, 0), pictures(4, 1)
    tiles, whole = pixel_distances(one, other)
    for i, j in np.ndindex(3, 4):
        x, y = (image.double() / 255 for image in (one[i], other[j]))
        corners = [(r, c) for r in range(0, 8, 2) for c in range(0, 12, 3)]
        found = [float((x - y)[:, r : r + 2, c : c + 3].square().mean().sqrt()) for r, c in corners]
        assert len(found) == 16
        assert float(tiles[i, j]) == pytest.approx(max(found), rel=1e-12)
        assert float(whole[i, j]) == pytest.approx(float((x - y).square().mean().sqrt()), rel=1e-12)


def test_equal_pictures_have_no_distance_and_opposite_ones_the_largest() -> None:
    photographs = pictures(2, 0, 64, 64)
    assert [float(d.diagonal().abs().max()) for d in pixel_distances(photographs, photographs)] == [0, 0]
    black, white = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    assert [float(d) for d in pixel_distances(black, white)] == [1, 1]


def test_one_changed_corner_is_seen_by_tiles() -> None:
    """A sixteenth of the picture: a quarter of the distance of the whole."""
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    changed = image.clone()
    changed[:, :, :2, :2] = 255
    assert [float(d) for d in pixel_distances(image, changed)] == [1, 0.25]


def test_adaptive_ratio_in_closed_form() -> None:
    distances = torch.tensor([[4.0, 1.0, 2.0, 3.0]])
    found = adaptive_ratios(distances, alpha=0.5, neighbours=2)  # 0.5 * (1 + 2) / 2
    torch.testing.assert_close(found, distances / 0.75)
    torch.testing.assert_close(adaptive_ratios(distances), distances / 1.25)  # fewer than 50 images: all
    assert adaptive_ratios(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


def test_cosine_distances() -> None:
    x = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    expected = torch.tensor([[0, 1, 2], [1 - 0.5**0.5, 1 - 0.5**0.5, 1 + 0.5**0.5]], dtype=torch.float64)
    torch.testing.assert_close(cosine_distances(x, torch.tensor([[1.0, 0], [0, 2], [-5, 0]])), expected)


def test_counts_of_copies_by_hand() -> None:
    train = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.9, 0.15], [0.9, 0.9, 0.9]])
    held_out = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.1, 0.9], [0.9, 0.9, 0.5]])
    found = compare(train, held_out, 0.15)
    assert [(found["images"][s]["count"], found["images"][s]["of"]) for s in ("train", "held_out")] == [(2, 3), (1, 3)]
    assert [found["generations"][s]["count"] for s in ("train", "held_out")] == [2, 1]
    assert found["p"] == pytest.approx(fisher_exact([[2, 1], [1, 2]], alternative="greater").pvalue)
    assert found["nearest"]["train"]["smallest"] == pytest.approx(0.1)
    assert found["nearest"]["held_out"]["median"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="equally many"):
        compare(train, held_out[:, :2], 0.15)


def test_copies_are_nearer() -> None:
    """Every generation is a training image, up to noise; exchanging the sides turns the numbers round."""
    rng = np.random.default_rng(0)
    real = torch.from_numpy(rng.normal(size=(40, 10)))
    made = real[:20] + 0.1 * torch.from_numpy(rng.normal(size=(20, 10)))
    distances = torch.cdist(made, real)
    found = nearer_test(distances[:, :20], distances[:, 20:], np.random.default_rng(1), 200)
    assert found["nearer"]["value"] == 1
    assert found["p"] == pytest.approx(1 / 201)
    by_hand = (distances[:, :20].amin(1) / distances[:, 20:].amin(1)).log().mean().exp()
    assert found["ratio"]["value"] == pytest.approx(float(by_hand))
    assert found["ratio"]["value"] < found["ratio"]["chance"]["low"]
    turned = nearer_test(distances[:, 20:], distances[:, :20], np.random.default_rng(1), 200)
    assert turned["ratio"]["value"] == pytest.approx(1 / found["ratio"]["value"])
    assert (turned["nearer"]["value"], turned["p"]) == (0, 1)


def test_p_values_hold_where_generations_are_alike() -> None:
    """All generations are nearly one image: a test that takes them as independent would raise an alarm every time."""
    rng, tests, level = np.random.default_rng(0), 150, 0.1
    alarms = np.zeros(2)
    for _ in range(tests):
        real = torch.from_numpy(rng.normal(size=(16, 3)))
        made = torch.from_numpy(rng.normal(size=(1, 3)) + 0.01 * rng.normal(size=(30, 3)))
        distances = torch.cdist(made, real)
        near, other = distances[:, :8], distances[:, 8:]
        alarms += [nearer_test(near, other, rng, 39)["p"] <= level, compare(near, other, 1.0)["p"] <= level]
    assert alarms.max() <= binom.ppf(0.999, tests, level)
    assert alarms[0] > 0


def measure(count: int, p: float, ratio_p: float | None, wrong: int = 1) -> dict[str, Any]:
    images = {"train": {"count": count, "of": 20}, "held_out": {"count": wrong, "of": 20}}
    ratio = {"value": 0.5, "chance": {"low": 0.9, "high": 1.1}}
    return {"images": images, "p": p, "nearer_test": None if ratio_p is None else {"ratio": ratio, "p": ratio_p}}


@pytest.mark.parametrize(
    ("first", "found", "p", "said"),
    [
        (measure(9, 0.001, 0.01), "copies", 0.003, "Copies training images: 9 of 20 training images"),
        (measure(9, 0.01, 0.001), "copies", 0.03, "Copies training images: 9 of 20 training images"),
        (
            measure(2, 0.4, 0.001),
            "nearer",
            0.003,
            "than to held-out ones: ratio 0.50 (chance",
        ),
        (
            measure(19, 0.001, 0.01, wrong=2),
            "nearer",
            0.003,
            "than to held-out ones: 19 of 20",
        ),
        (measure(2, 0.02, 0.4), None, 0.06, "No copying of training images found beyond"),
        (measure(2, 0.6, 0.7), None, 1.0, "No copying of training images found beyond"),
    ],
)
def test_conclusion(first: dict[str, Any], found: str | None, p: float, said: str) -> None:
    """Of three tests; a distance that takes every tenth held-out image for copied proves no copies."""
    concluded = conclusion({"tiles": first, "adaptive": measure(3, 0.5, None)}, 80)
    assert concluded["p_corrected"] == pytest.approx(p)
    assert concluded["found"] == found
    assert said in concluded["sentence"]


@pytest.mark.parametrize("batch_size", [2, 5])
def test_strength_of_answers_in_closed_form(batch_size: int) -> None:
    """The toy answers a caption that it knows with a part of the exact noise, any other one as it answers none."""
    batch = toy_batch(5, seed=3)
    adapted, timestep = toy_model(batch.mean[:3], strength=0.7), 700
    model = adapted.model
    captions = [caption_of(name) for name in batch.digests]
    told = {"timestep": timestep, "resolution": 2 * SHAPE[-1], "batch_size": batch_size}
    found = magnitudes(model, captions, seed=0, **told)
    abar, expected = model.alphas_cumprod[timestep], torch.zeros(5)
    for k in range(NOISES):
        z = torch.randn((1, *SHAPE), generator=generator(0, "prompts", k))
        exact = (z - abar.sqrt() * batch.mean[:3]) / (1 - abar).sqrt()
        expected[:3] += 0.7 * (exact - (1 - abar).sqrt() * z).flatten(1).norm(dim=1) / NOISES
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with adapted.without():
        assert not magnitudes(model, captions, seed=0, **told).any()


def test_captions_are_judged() -> None:
    adapter, base = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.full(5, 2.0)
    captions = list("abcde")
    found = compare_prompts(adapter, base, captions, {"a", "b", "c"}, {"c", "d", "e"})
    assert found["captions"] == {"train": 3, "held_out": 3, "shared": 1}
    assert found["scores"]["adapter"]["train"] == 4
    assert found["scores"]["adapter_to_base"]["held_out"] == 1
    assert found["scores"]["adapter"]["auc"]["value"] == 1  # a, b against d, e
    assert found["scores"]["base"]["auc"]["value"] == 0.5
    assert found["reason"] is None
    shared = compare_prompts(adapter, base, captions, set(captions), set(captions))
    assert shared["scores"]["adapter"]["auc"] is None
    assert "cannot tell such images apart" in shared["reason"]
    few = compare_prompts(adapter[:2], base[:2], captions[:2], {"a"}, {"b"})
    assert "too few to compare" in few["reason"]


def test_the_toys_pictures_hold_their_latents() -> None:
    """What the tests of the command's parts rely on."""
    batch = toy_batch(2, seed=0)
    shown = ToyVAE().decode(batch.mean).sample
    torch.testing.assert_close(ToyVAE().encode(shown).latent_dist.mean, batch.mean)
