"""The distribution test against a slow twin, and on an adapter that knows a set and no image of it."""

from __future__ import annotations

import math

import numpy as np

from smplora.attacks.methods.distribution import Witness
from smplora.core.arrays import Floats
from smplora.statistics.curves import auc

MEMBER = np.arange(120) < 60


def cells(seed: int, shift: float) -> tuple[Floats, Floats]:
    """Two halves, members ``shift`` apart from others; whatever is generated, for anybody's caption, lies like a third
    draw of members, so that no single image is known."""
    rng = np.random.default_rng(seed)

    def half() -> Floats:
        apart = np.array([shift, 0, 0, 0])
        images = rng.normal(size=(120, 4)) + MEMBER[:, None] * apart
        return np.stack([images, rng.normal(size=(120, 4)) + apart], 1)

    return half(), half()


def test_the_witness_is_that_of_loops() -> None:
    aux, test = cells(0, 1.0)
    fitted = Witness().fit(aux, MEMBER)
    held_out = [row[0] for row, member in zip(aux, MEMBER, strict=True) if not member]
    distances = sorted(math.dist(row[1], other) for row in aux for other in held_out)
    median = (distances[len(distances) // 2] + distances[len(distances) // 2 - 1]) / 2

    def kernel(one: Floats, other: Floats) -> float:
        return math.exp(-(math.dist(one, other) ** 2) / (2 * (fitted.width * median) ** 2))

    for row, score in zip(test[::17], fitted.score(test)[::17], strict=True):
        near = sum(kernel(row[0], other[1]) for other in aux) / len(aux)
        far = sum(kernel(row[0], other) for other in held_out) / len(held_out)
        assert math.isclose(score, near - far, rel_tol=1e-9)


def test_a_set_is_found_though_no_image_is_known() -> None:
    found = [auc(Witness().fit(aux, MEMBER).score(test), MEMBER) for aux, test in (cells(s, 1.0) for s in range(5))]
    assert min(found) > 0.65


def test_where_members_are_like_others_it_finds_nothing() -> None:
    """Over 200 draws the mean AUC is 0.5: its standard error is 0.004."""
    found = [auc(Witness().fit(aux, MEMBER).score(test), MEMBER) for aux, test in (cells(s, 0.0) for s in range(200))]
    assert abs(np.mean(found) - 0.5) < 0.016
