"""How many images each cell of a split gets, and, with coins, which."""

from __future__ import annotations

import numpy as np

from smplora.config.data import SplitOptions
from smplora.core.errors import SplitError

LARGEST_DEFAULT_CELL = 100
ENOUGH_FOR_FID, LARGEST_BEFORE_FID = 70, 43  # reference images; images in a cell beside fewer
SMALLEST_CELL, FEWEST_IMAGES = 2, 20


def default_cell(pool: int) -> int:
    """Images in each cell where nothing is asked for: a fifth of the pool, at most ``LARGEST_DEFAULT_CELL``. Cells
    larger than ``LARGEST_BEFORE_FID`` leave as many held-out images as FID needs: more than the bundled network has
    features."""
    fifth = min(LARGEST_DEFAULT_CELL, max(SMALLEST_CELL, pool // 5))
    return min(fifth, max(LARGEST_BEFORE_FID, (pool - ENOUGH_FOR_FID) // 4))


def fixed(pool: int, options: SplitOptions) -> list[str]:
    """Names of cells, one for each of ``pool`` images in random order, of the sizes asked for.

    Raises:
        SplitError: too few images; the message says how many are needed.
    """
    if options.aux_size is None and pool < FEWEST_IMAGES:
        raise SplitError(
            f"there are {pool} images; allowed: {FEWEST_IMAGES} or more, since an audit of fewer says nothing (some "
            f"hundreds are better); to train all the same give --aux_size {SMALLEST_CELL}"
        )
    aux = options.aux_size or default_cell(pool)
    test = options.test_size or aux
    nonmembers = options.test_nonmember_size or test
    needed = 2 * aux + test + nonmembers + (options.reference_size or 0)
    if needed > pool:
        raise SplitError(
            f"cells are larger than the pool: 2 x --aux_size {aux} + --test_size {test} + as many non-members or "
            f"--test_nonmember_size ({nonmembers}) + --reference_size {options.reference_size or 0} = {needed}, but "
            f"there are {pool} images; add images or lower the sizes"
        )
    reference = pool - needed if options.reference_size is None else options.reference_size
    names = (
        ["aux_member"] * aux
        + ["test_member"] * test
        + ["aux_nonmember"] * aux
        + ["test_nonmember"] * nonmembers
        + ["reference"] * reference
    )
    return names + ["unused"] * (pool - len(names))


def coin(pool: int, options: SplitOptions, rng: np.random.Generator) -> list[str]:
    """As ``fixed``; for each image two fair coins decide.

    Raises:
        SplitError: fewer images than reference images.
    """
    reference = pool // 5 if options.reference_size is None else options.reference_size
    if reference > pool:
        raise SplitError(f"--reference_size {reference} is larger than the pool of {pool} images")
    member, aux = rng.integers(0, 2, (2, pool - reference)).astype(bool)
    return ["reference"] * reference + [
        f"{'aux' if a else 'test'}_{'member' if m else 'nonmember'}" for m, a in zip(member, aux, strict=True)
    ]
