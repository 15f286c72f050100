"""Can members be told from non-members without looking at the adapter? Then an attack's success proves nothing. Pure.

Source of the idea: Das, Zhang & Tramer 2024, "Blind Baselines Beat Membership Inference Attacks for Foundation Models".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped,unused-ignore]
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smplora.attacks.base import Attack
from smplora.attacks.fitting import out_of_fold
from smplora.core.arrays import Bools, Floats
from smplora.results.audit import Gate
from smplora.results.estimate import Proportion
from smplora.statistics import curves
from smplora.statistics.intervals import auc_interval
from smplora.statistics.many_attacks import family_test

TOLERANCE = 0.02  # by how much the AUC without the adapter may surely exceed 0.5
FOLDS = 5
ALARM = 0.02  # chance of a false alarm, over all classifiers together
WIDENED = 1.4  # the AUC of out-of-fold scores varies more than that of independent ones (simulated: 1.3 to 1.5 times)
PENALTY = 0.1  # C of the logistic regressions: there are more features than a small cell can fit
MOST_WORDS = 2000
SHUFFLES = 10
NEAR = 0.03  # root mean squared difference of two thumbnails on [0, 1]
STATISTICS = (
    "red", "green", "blue", "spread of red", "spread of green", "spread of blue", "contrast", "saturation",
    "sharpness", "fine texture", "aspect ratio", "original size",
)  # fmt: skip


def picture_statistics(pixels: Floats, size: tuple[int, int]) -> Floats:
    """``STATISTICS`` of one picture: pixels [3, h, w] in [0, 1] as the model sees them, (width, height) as on disk."""
    grey = pixels.mean(0)
    across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    fine = grey[1:-1, 1:-1] - (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
    width, height = size
    return np.array([
        *pixels.mean((1, 2)), *pixels.std((1, 2)), grey.std(), (pixels.max(0) - pixels.min(0)).mean(),
        np.abs(across).mean() + np.abs(down).mean(), np.abs(fine).mean(),
        np.log(width / height), np.log(width * height),
    ])  # fmt: skip


def guess_blindly(features: Floats | Sequence[str], is_member: Bools, seed: int) -> Floats:
    """Log-odds of membership [n] of samples that the classifier was not fitted on: logistic regression (L2) on scaled
    features [n, k], or on the TF-IDF weights of captions' words and word pairs."""
    texts = not isinstance(features, np.ndarray)
    rows = np.asarray(features, dtype=object) if texts else np.asarray(features)
    folds = min(FOLDS, int(is_member.sum()), int((~is_member).sum()))
    scores = np.zeros(len(is_member))
    for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(rows, is_member):
        first = (
            TfidfVectorizer(ngram_range=(1, 2), max_features=MOST_WORDS, token_pattern=r"\S+")
            if texts
            else StandardScaler()
        )
        classifier = LogisticRegression(C=1.0 if texts else PENALTY, max_iter=1000)
        model: Any = make_pipeline(first, classifier).fit(rows[fit], is_member[fit])
        scores[held] = model.decision_function(rows[held])
    return scores


def blind_check(name: str, what: str, scores: Floats, is_member: Bools, looks: int) -> Gate:
    """Whether out-of-fold ``scores`` surely tell members: the lower end of the AUC's interval exceeds 0.5 + TOLERANCE.

    One-sided, as a classifier that is worse than chance out of fold knows nothing. ``looks`` such checks share ALARM.
    """
    level = 1 - 2 * ALARM / looks
    area = auc_interval(scores, is_member, float(2 * ndtr(WIDENED * ndtri((1 + level) / 2)) - 1))
    passed = area.low <= 0.5 + TOLERANCE
    verb = "cannot" if passed else "can"
    sentence = (
        f"{what} alone {verb} tell members from non-members: AUC {area.value:.2f} [{area.low:.2f}, {area.high:.2f}]"
    )
    method = f"{area.method}, {WIDENED:g} times as wide"
    return Gate(name, passed, sentence, Proportion(area.value, area.low, area.high, method, level))


def permutation_check(name: str, attack: Attack, signals: Floats, is_member: Bools, seed: int) -> Gate:
    """The attack on aux with shuffled labels, out of fold, SHUFFLES times: it must not find the shuffled ones."""
    rng = np.random.default_rng(seed)
    areas = []
    for _ in range(SHUFFLES):
        shuffled = rng.permutation(is_member)
        areas.append(curves.auc(out_of_fold(attack, signals, shuffled, seed), shuffled))
    half = 2.576 * float(np.std(areas, ddof=1)) / SHUFFLES**0.5
    mean = float(np.mean(areas))
    passed = mean - half <= 0.5 + TOLERANCE
    sentence = (
        f"with shuffled labels '{attack.info.title}' {'finds nothing' if passed else 'still finds members'}: "
        f"mean AUC {mean:.2f} [{mean - half:.2f}, {mean + half:.2f}] over {SHUFFLES} shuffles"
    )
    return Gate(name, passed, sentence, Proportion(mean, mean - half, mean + half, "normal, over shuffles", 0.99))


def odd_statistics(statistics: Floats, is_member: Bools, rng: np.random.Generator) -> list[str]:
    """Sentences on the picture statistics [n, len(STATISTICS)] that surely differ between members and non-members."""
    result = family_test(list(statistics.T), is_member, rng)
    return [
        f"members and non-members differ in {name}: {values[is_member].mean():.3g} against "
        f"{values[~is_member].mean():.3g} on average, AUC {curves.auc(values, is_member):.2f}"
        for name, values, p in zip(STATISTICS, statistics.T, result.corrected[:, 0], strict=True)
        if p < ALARM
    ]


def near_duplicates(thumbnails: Mapping[str, Floats]) -> dict[str, int]:
    """Pairs of images in different cells that are nearly the same, by pair of cells: {"aux_member and test_member": 2}.

    ``thumbnails`` {cell: [n, d]} on [0, 1]; near means a root mean squared difference below NEAR.
    """
    cells, counts = list(thumbnails), {}
    for number, one in enumerate(cells):
        for other in cells[number + 1 :]:
            a, b = thumbnails[one].astype(np.float64), thumbnails[other].astype(np.float64)
            squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
            count = int((squares < NEAR**2 * a.shape[1]).sum())
            if count:
                counts[f"{one} and {other}"] = count
    return counts
