"""Can members be told from non-members without looking at the adapter? Then an attack's success proves nothing. Pure.

Source of the idea: Das, Zhang & Tramer 2024, "Blind Baselines Beat Membership Inference Attacks for Foundation Models".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped,unused-ignore]
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors
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
from smplora.statistics.power import POWER, detectable_auc, null_standard_error

TOLERANCE = 0.02  # by how much the AUC without the adapter may surely exceed 0.5
FOLDS = 5
ALARM = 0.02  # chance of a false alarm, over all classifiers together
WIDENED = 1.4  # the AUC of out-of-fold scores varies more than that of independent ones (simulated: 1.3 to 1.5 times)
PENALTY = 0.1  # C of the logistic regressions: there are more features than a small cell can fit
MOST_WORDS = 2000
SHUFFLES = 10
BANDS = 8  # of rows and columns whose brightness is compared: other crops move it
FEWEST_CAPTIONS, MOST_PHRASES = 3, 500  # with a word or word pair, and how many of those are compared
NEAR = 0.03  # root mean squared difference of two thumbnails on [0, 1]
NEAR_DUPLICATES = "near_duplicates"
STATISTICS = (
    "red", "green", "blue", "spread of red", "spread of green", "spread of blue", "contrast", "saturation",
    "sharpness", "fine texture", "aspect ratio", "original size",
    *(f"brightness of {what} {k} of {BANDS}" for what in ("row", "column") for k in range(1, BANDS + 1)),
)  # fmt: skip


def picture_statistics(pixels: Floats, size: tuple[int, int]) -> Floats:
    """``STATISTICS`` of one picture: pixels [3, h, w] in [0, 1] as the model sees them, (width, height) as on disk."""
    grey = pixels.mean(0)
    across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    fine = grey[1:-1, 1:-1] - (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
    width, height = size
    bands = [part.mean() - grey.mean() for axis in (0, 1) for part in np.array_split(grey, BANDS, axis)]
    return np.array([
        *pixels.mean((1, 2)), *pixels.std((1, 2)), grey.std(), (pixels.max(0) - pixels.min(0)).mean(),
        np.abs(across).mean() + np.abs(down).mean(), np.abs(fine).mean(),
        np.log(width / height), np.log(width * height), *bands,
    ])  # fmt: skip


def phrases(captions: Sequence[str]) -> tuple[Floats, list[str]]:
    """Which caption has which word or word pair: [n, k] of 0 and 1, and the phrases; the most frequent of those that
    several captions have and not all."""
    counter = CountVectorizer(
        ngram_range=(1, 2), token_pattern=r"\S+", binary=True, min_df=FEWEST_CAPTIONS, max_features=MOST_PHRASES
    )
    try:
        table: Floats = counter.fit_transform(captions).toarray().astype(np.float64)
    except ValueError:  # no phrase is in so many captions
        return np.zeros((len(captions), 0)), []
    some = table.mean(0) < 1
    return table[:, some], counter.get_feature_names_out()[some].tolist()


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


def blind_check(
    name: str, what: str, scores: Floats, is_member: Bools, looks: int, differences: Sequence[Difference] = ()
) -> Gate:
    """Whether out-of-fold ``scores`` surely tell members: the lower end of the AUC's interval exceeds 0.5 + TOLERANCE;
    or a single number surely differs.

    One-sided, as a classifier that is worse than chance out of fold knows nothing. ``looks`` such checks share ALARM;
    where single numbers were compared too, they have half of a check's.
    """
    alarm = ALARM / looks / (2 if differences else 1)
    level = 1 - 2 * alarm
    area = auc_interval(scores, is_member, float(2 * ndtr(WIDENED * ndtri((1 + level) / 2)) - 1))
    odd = [one for one in differences if one.p < alarm]
    seen = area.low > 0.5 + TOLERANCE
    sentence = (
        f"{what} alone {'can' if seen or odd else 'cannot'} tell members from non-members: AUC {area.value:.2f} "
        f"[{area.low:.2f}, {area.high:.2f}]"
    )
    if odd:
        sentence += "; " + "; ".join(one.sentence for one in odd[:3]) + f" and {len(odd) - 3} more" * (len(odd) > 3)
    elif not seen:
        sizes = int(is_member.sum()), int((~is_member).sum())
        alone = f" (of one number {detectable_auc(*sizes, 1 - alarm / len(differences)):.2f})" if differences else ""
        sentence += (
            f"; an AUC of {detectable(*sizes, alarm):.2f}{alone} would have been seen in {100 * POWER:.0f} % of cases"
        )
    method = f"{area.method}, {WIDENED:g} times as wide"
    return Gate(name, not (seen or odd), sentence, Proportion(area.value, area.low, area.high, method, level))


def detectable(members: int, nonmembers: int, alarm: float) -> float:
    """The AUC that a classifier's out-of-fold scores must truly have to fail ``blind_check`` in 80 % of cases."""
    reach = WIDENED * float(ndtri(1 - alarm) + ndtri(POWER))
    return min(1.0, 0.5 + TOLERANCE + reach * null_standard_error(members, nonmembers))


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


@dataclass(frozen=True)
class Difference:
    """One number in which members and non-members differ, with its p, corrected for all numbers that were compared."""

    column: int
    sentence: str
    p: float


def compare(columns: Floats, names: Sequence[str], is_member: Bools, rng: np.random.Generator) -> list[Difference]:
    """Each column [n, k] by itself, the surest first. A shift in one number drowns in a classifier of many.

    Args:
        names: of the columns, fit to be shown to others: no words of captions.
    """
    if not names:
        return []
    p = family_test(list(columns.T), is_member, rng).corrected[:, 0]
    found = [
        Difference(
            column,
            f"members and non-members differ in {name}: {values[is_member].mean():.3g} against "
            f"{values[~is_member].mean():.3g} on average, AUC {curves.auc(values, is_member):.2f}",
            float(one),
        )
        for column, (name, values, one) in enumerate(zip(names, columns.T, p, strict=True))
    ]
    return sorted(found, key=lambda one: one.p)


def near_duplicate_check(pairs: Mapping[str, Sequence[tuple[int, int]]]) -> Gate:
    """Images that are nearly the same must not lie in two cells: a member's twin among the non-members was trained on
    too, and what an attack learned of an image it would know of its twin.

    Args:
        pairs: of ``near_duplicates``.
    """
    counts = ", ".join(f"{len(places)} in {cells}" for cells, places in pairs.items())
    sentence = (
        f"near-duplicate pairs of images lie in two cells: {counts}; leave out one image of each pair"
        if pairs
        else "no image has a near-duplicate in another cell"
    )
    return Gate(NEAR_DUPLICATES, not pairs, sentence, None)


def near_duplicates(thumbnails: Mapping[str, Floats]) -> dict[str, list[tuple[int, int]]]:
    """Places of images in different cells that are nearly the same, by pair of cells: {"aux_member and test_member":
    [(3, 7)]}.

    ``thumbnails`` {cell: [n, d]} on [0, 1]; near means a root mean squared difference below NEAR.
    """
    cells, pairs = list(thumbnails), {}
    for number, one in enumerate(cells):
        for other in cells[number + 1 :]:
            index = NearestNeighbors(radius=NEAR * thumbnails[one].shape[1] ** 0.5).fit(thumbnails[other])
            near = index.radius_neighbors(thumbnails[one], return_distance=False, sort_results=False)
            places = [(i, int(j)) for i, others in enumerate(near) for j in sorted(others)]
            if places:
                pairs[f"{one} and {other}"] = places
    return pairs
