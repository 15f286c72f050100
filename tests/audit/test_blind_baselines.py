"""Validity gates, the pure part: shifts are found, honest splits pass."""

from __future__ import annotations

import numpy as np
import pytest

from smplora.attacks.base import Access, Attack, AttackInfo, Scorer
from smplora.attacks.scorers import Logistic
from smplora.audit.blind_baselines import (
    NEAR,
    STATISTICS,
    blind_check,
    compare,
    guess_blindly,
    near_duplicate_check,
    near_duplicates,
    permutation_check,
    phrases,
    picture_statistics,
)
from smplora.audit.gates import failures, gates
from smplora.statistics.curves import auc

MEMBER = np.arange(120) < 60
LOOKS = 4


class Vector(Attack):
    info = AttackInfo("Vector", Access.GREY_BOX, "", "")

    def scorer(self, seed: int) -> Scorer:
        return Logistic()


def test_honest_splits_rarely_fail() -> None:
    failed = 0
    for seed in range(60):
        scores = guess_blindly(np.random.default_rng(seed).normal(size=(120, 12)), MEMBER, seed)
        failed += not blind_check("x", "x", scores, MEMBER, LOOKS).passed
    assert failed <= 2  # expected: 60 times ALARM / LOOKS = 0.3


def test_a_shift_fails_and_is_said_with_its_numbers() -> None:
    features = np.random.default_rng(0).normal(size=(120, 12)) + 0.8 * MEMBER[:, None] * (np.arange(12) == 3)
    scores = guess_blindly(features, MEMBER, 0)
    weak = blind_check("image_statistics", "image statistics", scores, MEMBER, LOOKS)
    features[:, 3] += 1.5 * MEMBER
    scores = guess_blindly(features, MEMBER, 0)
    check = blind_check("image_statistics", "image statistics", scores, MEMBER, LOOKS)
    assert check.passed is False
    assert check.auc is not None
    assert weak.auc is not None
    assert check.auc.value == auc(scores, MEMBER) > weak.auc.value
    assert check.sentence.startswith("image statistics alone can tell members from non-members: AUC 0.9")
    assert gates([check], []).passed is False
    assert failures([check]) == [check.sentence]


def test_worse_than_chance_out_of_fold_means_nothing() -> None:
    assert blind_check("x", "x", -1.0 * MEMBER, MEMBER, LOOKS).passed is True


def test_captions_that_differ_in_style_fail_and_captions_that_do_not_pass() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    alike = [" ".join(rng.choice(words, 6)) for _ in MEMBER]
    assert blind_check("c", "c", guess_blindly(alike, MEMBER, 0), MEMBER, LOOKS).passed
    styled = [f"a photo of {text}" if member else text for text, member in zip(alike, MEMBER, strict=True)]
    assert not blind_check("c", "c", guess_blindly(styled, MEMBER, 0), MEMBER, LOOKS).passed


def test_shuffled_labels_find_nothing_even_where_members_leak() -> None:
    signals = np.random.default_rng(0).normal(size=(120, 4)) + 2.0 * MEMBER[:, None]
    check = permutation_check("shuffled_labels", Vector(), signals, MEMBER, 0)
    assert check.passed
    assert check.auc is not None
    assert abs(check.auc.value - 0.5) < 0.06


def test_a_scorer_that_knows_the_labels_beforehand_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: out-of-fold scores that are the labels themselves."""
    from smplora.audit import blind_baselines

    monkeypatch.setattr(blind_baselines, "out_of_fold", lambda a, s, member, seed: 1.0 * member)
    check = permutation_check("shuffled_labels", Vector(), np.zeros((120, 2)), MEMBER, 0)
    assert check.passed is False
    assert "still finds members" in check.sentence


def test_statistics_by_hand() -> None:
    flat = np.zeros((3, 8, 8))
    flat[0] = 0.5
    values = dict(zip(STATISTICS, picture_statistics(flat, (200, 100)), strict=True))
    assert (values["red"], values["green"], values["contrast"], values["sharpness"]) == (0.5, 0, 0, 0)
    assert values["saturation"] == 0.5
    assert values["aspect ratio"] == pytest.approx(np.log(2))
    stripes = np.zeros((3, 8, 8))
    stripes[:, :, ::2] = 1.0
    values = dict(zip(STATISTICS, picture_statistics(stripes, (8, 8)), strict=True))
    assert (values["sharpness"], values["red"], values["contrast"]) == (1.0, 0.5, 0.5)
    assert values["fine texture"] == 0.5


def test_one_number_that_differs_fails_and_is_named() -> None:
    rng = np.random.default_rng(0)
    statistics = rng.normal(size=(120, len(STATISTICS)))
    found = compare(statistics, STATISTICS, MEMBER, np.random.default_rng(1))
    check = blind_check("s", "statistics", guess_blindly(statistics, MEMBER, 0), MEMBER, LOOKS, found)
    assert check.passed
    assert "would have been seen in 80 % of cases" in check.sentence
    statistics[:, 11] += 0.9 * MEMBER
    found = compare(statistics, STATISTICS, MEMBER, np.random.default_rng(1))
    scores = guess_blindly(statistics, MEMBER, 0)
    assert blind_check("s", "statistics", scores, MEMBER, LOOKS).passed, "a classifier of many numbers overlooks it"
    check = blind_check("s", "statistics", scores, MEMBER, LOOKS, found)
    assert check.passed is False
    assert "statistics alone can tell members from non-members: AUC" in check.sentence
    assert "members and non-members differ in original size" in check.sentence


def test_a_prefix_on_a_fifth_of_the_captions_and_shifted_crops_are_seen() -> None:
    captions = [f"{'a photo of ' * (k < 15)}a {k % 7}" for k in range(120)]
    table, names = phrases(captions)
    first = compare(table, ["a phrase"] * len(names), MEMBER, np.random.default_rng(0))[0]
    assert first.p < 0.0025
    assert names[first.column] == "a photo"
    assert compare(*phrases([f"a {k % 7}" for k in range(120)]), MEMBER, np.random.default_rng(0))[0].p > 0.02
    assert phrases([f"word{k}" for k in range(120)])[1] == []
    pictures = np.zeros((120, 3, 32, 32))
    places = np.random.default_rng(0).integers(10, 14, (120, 2))
    for picture, (down, across), member in zip(pictures, places, MEMBER, strict=True):
        picture[:, down : down + 8, across + 2 * member : across + 2 * member + 8] = 1
    statistics = np.stack([picture_statistics(picture, (32, 32)) for picture in pictures])
    assert compare(statistics, STATISTICS, MEMBER, np.random.default_rng(0))[0].p < 0.0025


@pytest.mark.parametrize("shift", [0.0, 0.47])
def test_what_would_have_been_seen_is(shift: float) -> None:
    """A number shifted to the AUC that a pass speaks of fails in about 80 % of cases, and hardly ever where it is
    not."""
    rng, failed = np.random.default_rng(0), 0
    for seed in range(20):
        columns = rng.normal(size=(400, 12))
        columns[:200, 0] += shift
        member = np.arange(400) < 200
        found = compare(columns, [str(k) for k in range(12)], member, np.random.default_rng(seed))
        failed += not blind_check("s", "s", np.zeros(400), member, LOOKS, found).passed
    check = blind_check("s", "s", np.zeros(400), np.arange(400) < 200, LOOKS, found)
    if shift:
        assert failed >= 12
    else:
        assert failed <= 1
        assert "(of one number 0.63) would" in check.sentence  # normal shift 0.47: AUC 0.63


def test_near_duplicates_are_counted_between_cells() -> None:
    rng = np.random.default_rng(0)
    cells = {name: rng.random((20, 768)) for name in ("aux_member", "aux_nonmember", "test_member")}
    assert near_duplicates(cells) == {}
    cells["test_member"][3] = cells["aux_nonmember"][7] + 0.01
    cells["aux_member"][1] = cells["aux_member"][0]  # within a cell: no matter
    assert near_duplicates(cells) == {"aux_nonmember and test_member": [(7, 3)]}
    check = near_duplicate_check(near_duplicates(cells))
    assert check.passed is False
    assert "1 in aux_nonmember and test_member; leave out one" in check.sentence
    del cells["test_member"]
    assert near_duplicate_check(near_duplicates(cells)).passed


def test_near_duplicates_are_those_of_a_loop_over_all_pairs() -> None:
    rng = np.random.default_rng(1)
    one, other = 0.5 + rng.normal(size=(60, 12)) * 0.025, 0.5 + rng.normal(size=(50, 12)) * 0.025
    near = [(i, j) for i in range(60) for j in range(50) if np.sqrt(((one[i] - other[j]) ** 2).mean()) < NEAR]
    assert 100 < len(near) < 2900
    assert near_duplicates({"a": one, "b": other}) == {"a and b": near}


def test_nothing_checked_is_not_passed() -> None:
    assert gates([], ["only scores"]).passed is None
