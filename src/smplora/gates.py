"""Validity gates: what must hold before an audit's numbers mean anything. They run before the test cells are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from smplora.attacks.loss import loss_vector
from smplora.blind import (
    TOLERANCE,
    Check,
    blind_check,
    guess_blindly,
    near_duplicates,
    odd_statistics,
    permutation_check,
    picture_statistics,
)
from smplora.contracts import Access, Attack, AttackInfo, Bools, Floats, GreyBoxView, Scorer
from smplora.data import load_pixels
from smplora.evidence import CLAIM_LEVEL
from smplora.features import load_digit_features
from smplora.metrics import detectable_auc
from smplora.progress import progress
from smplora.scorers import Logistic
from smplora.split import CELLS
from smplora.streams import stream_seed
from smplora.subject import Loaded

ATTACKED = CELLS[:4]
BASE = "base_model"
LOOKS = 4  # blind classifiers that share one chance of a false alarm
THUMBNAIL = 16  # pixels
COARSE = 0.75  # an audit that would miss such an AUC is said to be small
MOST_COLUMNS = 512  # of the signals that the shuffled-labels gate refits ten times


@dataclass(frozen=True)
class BaseLoss(Attack):
    """Not an attack: the base model's own losses, gathered with the attacks' signals (and mostly computed for them)."""

    num_timesteps: int
    noise_pairs: int
    info = AttackInfo("The base model", Access.GREY_BOX, "", "")

    def signals(self, view: GreyBoxView) -> Floats:
        """log l_base(x; t): [b, T]."""
        return loss_vector(view, self.num_timesteps, self.noise_pairs, adapted=False).double().log().numpy()

    def scorer(self, seed: int) -> Scorer:
        """Never used out of this file."""
        return Logistic()


@dataclass(frozen=True)
class Looked:
    """What a blind classifier sees of the cells, in the order of ``ATTACKED``."""

    statistics: Floats  # [n, k] of picture_statistics
    features: Floats  # [n, 64] of the bundled extractor
    thumbnails: dict[str, Floats]  # by cell: [n_cell, d]
    captions: list[str]
    is_member: Bools


_looked: dict[tuple[str, int], Looked] = {}  # of the last split: several adapters of one split are audited in a row


def look(loaded: Loaded) -> Looked:
    """Read every audited image once; what is seen depends on the split's images alone, which its seal names."""
    key = (loaded.split.seal, loaded.resolution)
    if key not in _looked:
        _looked.clear()
        _looked[key] = _look(loaded)
    return _looked[key]


def _look(loaded: Loaded) -> Looked:
    extractor = load_digit_features()
    statistics, features, thumbnails, captions = [], [], {}, []
    for cell in ATTACKED:
        small = []
        for sample in progress(loaded.split.cells[cell], "look at images", "image"):
            picture = loaded.source.read(sample.file)
            pixels = (load_pixels([picture], loaded.resolution) + 1) / 2
            statistics.append(picture_statistics(pixels[0].numpy(), picture.size))
            with torch.no_grad():
                features.append(extractor(pixels)[0].numpy())
            thumbnail = torch.nn.functional.interpolate(pixels, size=(THUMBNAIL, THUMBNAIL), mode="area")
            small.append(thumbnail.flatten().numpy())
            captions.append(sample.caption)
        thumbnails[cell] = np.stack(small)
    is_member = np.concatenate([np.full(loaded.split.sizes[c], not c.endswith("nonmember")) for c in ATTACKED])
    return Looked(np.stack(statistics), np.stack(features), thumbnails, captions, is_member)


def blind_checks(looked: Looked, seed: int) -> list[Check]:
    """Images and captions alone, each with its own classifier."""
    seen = (
        ("image_statistics", "image statistics", looked.statistics),
        ("image_features", "image features", looked.features),
        ("captions", "captions", looked.captions),
    )
    checks = []
    for name, what, features in seen:
        if not isinstance(features, np.ndarray) and len(set(features)) == 1:
            checks.append(Check(name, True, "all captions are the same"))
            continue
        scores = guess_blindly(features, looked.is_member, stream_seed(seed, "blind", name))
        checks.append(blind_check(name, what, scores, looked.is_member, LOOKS))
    return checks


def base_check(signals: Mapping[tuple[str, str], Floats], is_member: Bools, seed: int) -> Check:
    """The base model's losses, without the adapter: [n, T] per cell under the name ``BASE``."""
    losses = np.concatenate([signals[BASE, cell] for cell in ATTACKED])
    scores = guess_blindly(losses, is_member, stream_seed(seed, "blind", BASE))
    return blind_check(BASE, "the base model", scores, is_member, LOOKS)


def shuffled_check(
    attacks: Mapping[str, Attack], order: list[str], aux: Mapping[str, Floats], aux_member: Bools, seed: int
) -> Check:
    """The strongest attack on aux that is cheap to refit, with shuffled labels.

    Args:
        order: attacks, strongest on aux first.
        aux: their signals on the aux cells, [n, ...].
    """
    for name in order:
        if np.prod(aux[name].shape[1:]) <= MOST_COLUMNS:
            return permutation_check(
                "shuffled_labels", attacks[name], aux[name], aux_member, stream_seed(seed, "shuffle")
            )
    return Check("shuffled_labels", None, "shuffled labels: not tried, as no attack here is cheap to refit ten times")


def notes(looked: Looked, sizes: Mapping[str, int], seed: int) -> list[str]:
    """What a reader should know of the cells, with numbers; nothing that makes an audit invalid by itself."""
    found = odd_statistics(looked.statistics, looked.is_member, np.random.default_rng(stream_seed(seed, "statistics")))
    for cells, count in near_duplicates(looked.thumbnails).items():
        found.append(f"{count} near-duplicate pairs of images in {cells}: they blur the difference that is measured")
    members, others = sizes["test_member"], sizes["test_nonmember"]
    reach = detectable_auc(members, others, CLAIM_LEVEL)
    if reach > COARSE:
        found.append(f"small cells: with {members} test members and {others} test non-members an AUC below {reach:.2f} "
                     "would probably have gone unseen")  # fmt: skip
    return found


def gates(checks: list[Check], said: list[str]) -> dict[str, Any]:
    """The "gates" object of audit.json; ``passed`` is None where nothing could be checked."""
    known = [check.passed for check in checks if check.passed is not None]
    return {
        "passed": all(known) if known else None,
        "tolerance": TOLERANCE,
        "checks": [check.as_dict() for check in checks],
        "notes": said,
    }


def failures(checks: list[Check]) -> list[str]:
    """Sentences of the checks that failed."""
    return [check.sentence for check in checks if check.passed is False]
