"""Predictors of a property against slow twins; a planted property is found, noise is not; which images are used."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from smplora.audit.property_inference.judge import IMAGES, SHARES, Said, judge, whole_cells
from smplora.audit.property_inference.predictors import (
    PENALTY,
    Dsire,
    LossRegression,
    SpectrumRegression,
    majority,
    ridge_weights,
    stacked,
)
from smplora.audit.property_inference.references import Pool, Sides, share_size, sides_of, size_grid
from smplora.audit.property_inference.wording import answer, conclusion
from smplora.config.properties import PropertiesConfig
from smplora.core.errors import SplitError
from smplora.data.pool import Sample
from smplora.models.spectra import DOWN, UPDATE

GRID = [20, 40, 80, 160]
LABELS = [float(size) for size in GRID for _ in range(3)]


def planted(labels: list[float], strength: float, seed: int, layers: int = 9) -> dict[tuple[str, str], Any]:
    """Singular values that fall with the label, as those of LoRAs do, in noise."""
    rng = np.random.default_rng(seed)
    logs = np.log(np.array(labels))[:, None]
    return {
        (f"layer {k}", UPDATE): np.exp(-strength * logs - np.arange(4) + 0.1 * rng.normal(size=(len(labels), 4)))
        for k in range(layers)
    }


def test_dsire_against_a_loop() -> None:
    table = planted([*LABELS, 60.0], 0.3, 0)
    labels, known, asked = np.array([*LABELS, 0]), np.array([0, 2, 3, 5, 6, 8, 11]), 12
    votes = []
    for values in table.values():
        distances = [np.linalg.norm(values[k] - values[asked]) for k in known]
        votes.append(labels[known[int(np.argmin(distances))]])
    predictor = Dsire(table)
    assert len({*votes}) > 1
    assert predictor.read(predictor.row(known, asked)[None], labels)[0] == Counter(votes).most_common(1)[0][0]


def test_a_majority_takes_the_first_of_equals() -> None:
    votes = np.random.default_rng(0).integers(0, 4, (50, 3, 6)).astype(float)
    expected = [[Counter(row.tolist()).most_common(1)[0][0] for row in rows] for rows in votes]
    assert (majority(votes) == expected).all()


def test_ridge_against_another_implementation() -> None:
    rng = np.random.default_rng(0)
    known, asked, labels = rng.normal(3, 2, (7, 20)), rng.normal(3, 2, 20), rng.normal(size=7)
    known[:, 4] = 1.5  # tells nothing
    kept = known.std(0) > 0
    scale = known[:, kept].std(0) * np.sqrt(kept.sum())
    twin = Ridge(alpha=7 * PENALTY).fit((known[:, kept] - known[:, kept].mean(0)) / scale, labels)
    expected = twin.predict(((asked[kept] - known[:, kept].mean(0)) / scale)[None])[0]
    assert ridge_weights(known, asked, PENALTY) @ labels == pytest.approx(expected, rel=1e-9)
    assert ridge_weights(np.ones((4, 3)), np.ones(3), PENALTY).tolist() == [0.25] * 4


def test_the_line_through_losses_is_least_squares() -> None:
    differences = np.random.default_rng(0).normal(size=9)
    labels, known = np.linspace(0, 1, 9), np.arange(8)
    predictor = LossRegression(differences)
    twin = LinearRegression().fit(differences[:8, None], labels[:8])
    found = predictor.read(predictor.row(known, 8)[None], labels)
    assert found == pytest.approx(twin.predict(differences[8:, None]), rel=1e-4)


def test_only_updates_are_regressed_on() -> None:
    table = planted(LABELS, 0.3, 0, layers=2)
    more = {**table, ("layer 0", DOWN): np.random.default_rng(1).normal(size=(12, 4))}
    assert (SpectrumRegression(more).features == SpectrumRegression(table).features).all()
    assert len(Dsire(more).row(np.arange(11), 11)) == 3


def judged(table: dict[tuple[str, str], Any], seed: int = 0) -> tuple[list[Said], float, float]:
    return judge([SpectrumRegression(table), Dsire(table)], LABELS, 60.0, IMAGES, seed)


def test_a_planted_size_is_recovered() -> None:
    said, without, p = judged(planted([*LABELS, 60.0], 0.5, 0))
    regression, dsire = said
    assert 45 < regression.value < 80
    assert regression.low < 60 < (regression.high or np.inf)
    assert regression.off == pytest.approx(max(regression.value / 60, 60 / regression.value))
    assert dsire.value in GRID
    assert (dsire.low, dsire.high) in (
        pytest.approx((28.28, 56.57), abs=0.01),
        pytest.approx((56.57, 113.14), abs=0.01),
    )
    assert max(one.error for one in said) < 1.5 < without
    assert without == pytest.approx(2.0), (
        "the middle of 20, 40, 80 and 160 is off by the factors 2 and 2^(3/2), 2^(1/2)"
    )
    assert p <= 0.002
    assert all(one.level == 12 / 13 for one in said)


def test_noise_tells_nothing_and_its_p_is_uniform() -> None:
    """The corrected p of 120 tables of noise; and the interval holds a truth that is drawn as the references are."""
    rng = np.random.default_rng(3)
    ps, held = [], []
    for seed in range(120):
        truth = float(rng.choice(GRID))
        table = planted([*LABELS, truth], 0.0, seed, layers=5)
        said, _, p = judge([SpectrumRegression(table), Dsire(table)], LABELS, truth, IMAGES, seed)
        ps.append(p)
        held.append([one.low <= truth <= (one.high or np.inf) for one in said])
    for level in (0.1, 0.5):
        assert abs(np.mean(np.array(ps) <= level) - level) < 3.5 * np.sqrt(level * (1 - level) / 120)
    assert (np.mean(held, 0) >= 12 / 13 - 0.05).all()


def test_intervals_hold_where_there_is_something_to_tell() -> None:
    rng, held = np.random.default_rng(4), []
    for seed in range(120):
        truth = float(rng.choice(GRID))
        table = planted([*LABELS, truth], 0.1, seed, layers=5)
        said, _, _ = judge([SpectrumRegression(table), Dsire(table)], LABELS, truth, IMAGES, seed)
        held.append([one.low <= truth <= (one.high or np.inf) for one in said])
    assert (np.mean(held, 0) >= 12 / 13 - 0.05).all()


def test_beyond_the_references_intervals_are_open() -> None:
    said, _, p = judged(planted([*LABELS, 1000.0], 0.5, 0))
    assert [one.high for one in said] == [None, None]
    assert said[0].value == pytest.approx(160)
    assert 'can only say "at least"' in conclusion(said, 1000, 160, p, counts=True)
    assert "at least" in answer("dsire", said[1], 1000, 2.0, counts=True)
    (line,), _, _ = judge([LossRegression(np.arange(9.0))], [k / 8 for k in range(8)], 1.0, SHARES, 0)
    assert (line.value, line.high) == (7 / 8, 1.0)


def test_words() -> None:
    said = Said(237.4, 150.2, 401.0, 12 / 13, 1.31, 1.2, 0.004, ())
    assert answer("spectrum_regression", said, 200, 2.06, counts=True) == (
        "From its weights, by a regression: about 237 training images (92 %: 150 to 401; true: 200). On adapters "
        "with known answers it is off by a factor of 1.3 on average, an attacker without the adapter by a factor of "
        "2.1 (p 0.004)."
    )
    share = Said(0.31, 0.0, 1.0, 0.95, 0.08, 0.1, 0.2, ())
    shown = answer("loss_regression", share, 0.3, 0.27, counts=False)
    assert "about 31 % of the training images have the value (95 %: no limit, it could" in shown
    assert conclusion([share], 0.3, 0.9, 0.2, counts=False).startswith("It is not shown that the adapter tells which")
    assert conclusion([said], 200, 400, 0.004, counts=True).startswith("The adapter tells how many images")


def pool(size: int, nonmembers: float = 0.0) -> Pool:
    return Pool(tuple(Sample(f"{k:03d}.png", "", f"{k:03d}") for k in range(size)), nonmembers, 0.5)


def test_grids_end_where_the_attackers_images_do() -> None:
    assert size_grid(PropertiesConfig(), pool(640)) == [20, 40, 80, 160, 320, 640]
    assert size_grid(PropertiesConfig(), pool(96, nonmembers=0.5))[-1] == 64, "a proxy needs the others"
    assert size_grid(PropertiesConfig(sizes=[5, 9]), pool(9)) == [5, 9]
    for config, images, said in (
        (PropertiesConfig(sizes=[5, 10]), 9, "9 at most"),
        (PropertiesConfig(), 7, "8 or more"),
    ):
        with pytest.raises(SplitError, match=said):
            size_grid(config, pool(images))


def test_images_that_are_asked_are_never_trained_on() -> None:
    values = {f"{k:03d}.png": "five" if k % 3 == 0 else "six" for k in range(90)}
    sides = sides_of(pool(100), values, "five", 0)
    for number, wanted in enumerate((True, False)):
        asked, trained = sides.asked[number], sides.trained[number]
        assert not {*asked} & {*trained}
        assert {(values[s.file] == "five") for s in (*asked, *trained)} == {wanted}
        assert len(asked) == len({*asked, *trained}) // 4
    assert sides != sides_of(pool(100), values, "five", 1)
    assert share_size([0.1, 0.9], sides, pool(100), 20) == 20
    assert share_size([0.1, 0.9], sides, pool(100), 60) == 25, "23 fives are trained on, nine tenths of 25"
    with pytest.raises(SplitError, match="7 images with it"):
        sides_of(pool(21), values, "five", 0)
    with pytest.raises(SplitError, match="too few images for --shares"):
        share_size([0.0, 1.0], Sides(sides.asked, (sides.trained[0][:3], sides.trained[1])), pool(100), 20)


def test_spectra_of_other_layers_do_not_fit() -> None:
    with pytest.raises(ValueError, match="other layers"):
        stacked([{("a", UPDATE): np.ones(2)}, {("b", UPDATE): np.ones(2)}])
    assert stacked([{("a", UPDATE): np.ones(2)}] * 3)["a", UPDATE].shape == (3, 2)


def test_an_answer_that_is_a_label_stands_for_what_is_nearest_to_it() -> None:
    labels = np.array([1.0, 3, 3, 7])
    assert whole_cells(3.0, 3.0, labels) == (2, 5)
    assert whole_cells(2.5, 5.5, labels) == (2, 7)
    assert whole_cells(-4.0, 1.0, labels) == (1, 2)
