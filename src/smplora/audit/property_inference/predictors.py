"""Predictors that learn a property from reference adapters. What they read is fixed by weights or losses alone: a *row*
says how the labels of known adapters become the answer for another one, whatever the labels are. So leaving one out,
and exchanging all labels 999 times, cost next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from smplora.core.arrays import Floats
from smplora.models.spectra import UPDATE

Ints = NDArray[np.int64]
Spectra = Mapping[tuple[str, str], Floats]  # by (layer, which matrix): singular values of N adapters [N, r]
PENALTY = 0.01  # of the regression on spectra; docs/log/2026-11-29-properties.md says how it was chosen
SMALLEST = 1e-12  # singular values below it are none
SALAMA = """@article{salama2024dataset,
  title={Dataset Size Recovery from LoRA Weights},
  author={Salama, Mohammad and Kahana, Jonathan and Horwitz, Eliahu and Hoshen, Yedid},
  journal={arXiv preprint arXiv:2406.19395}, year={2024}}"""
CALIBRATED = """@inproceedings{watson2022importance,
  title={On the Importance of Difficulty Calibration in Membership Inference Attacks},
  author={Watson, Lauren and Guo, Chuan and Cormode, Graham and Sablayrolles, Alexandre},
  booktitle={International Conference on Learning Representations}, year={2022}}"""


class Predictor(Protocol):
    """One way to tell a property. Adapters are numbered; what is measured of all of them is its own."""

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    bibtex: ClassVar[str]
    names_labels: ClassVar[bool]  # it can only say what a known adapter has

    def row(self, known: Ints, asked: int) -> Floats:
        """How the answer for ``asked`` is made of the labels of the ``known``."""
        ...

    def read(self, rows: Floats, labels: Floats) -> Floats:
        """The answers by m rows, [..., m], for labels of all adapters, [..., N]; those that no row asks may be
        anything."""
        ...


@dataclass(frozen=True)
class Dsire:
    """DSiRe: for each matrix the label of the adapter with the nearest singular values (Euclidean), then the label that
    most matrices name; of equally many the one that comes first (Salama et al. 2024, section 4, and their code, which
    asks A and B of each layer as well as B A)."""

    spectra: Spectra
    name: ClassVar[str] = "dsire"
    title: ClassVar[str] = "DSiRe: nearest singular values in each layer, majority of layers"
    reference: ClassVar[str] = "Salama et al. 2024, arXiv 2406.19395"
    bibtex: ClassVar[str] = SALAMA
    names_labels: ClassVar[bool] = True

    @cached_property
    def distances(self) -> Floats:
        """[L, N, N], squared."""
        return np.stack([((s[:, None] - s[None]) ** 2).sum(2) for s in self.spectra.values()])

    def row(self, known: Ints, asked: int) -> Floats:
        """The nearest known adapter in each matrix: [L]."""
        nearest: Floats = known[self.distances[:, asked, known].argmin(1)].astype(np.float64)
        return nearest

    def read(self, rows: Floats, labels: Floats) -> Floats:
        """The majority of the neighbours' labels."""
        return majority(labels[..., rows.astype(np.int64)])


def majority(votes: Floats) -> Floats:
    """The commonest value along the last axis, of equally common ones the first: [..., L] -> [...]."""
    values = np.unique(votes)
    equal = votes[..., None] == values  # [..., L, G]
    last = votes.shape[-1]
    rank = equal.sum(-2) * (last + 1) - np.where(equal.any(-2), equal.argmax(-2), last)
    winners: Floats = values[rank.argmax(-1)]
    return winners


class LinearPredictor:
    """Ridge regression of the label on ``features`` [N, D], standardised over the known adapters."""

    features: Floats
    penalty: ClassVar[float]
    names_labels: ClassVar[bool] = False

    def row(self, known: Ints, asked: int) -> Floats:
        """Weights of the labels: [N], 0 for those that are not known."""
        row = np.zeros(len(self.features))
        row[known] = ridge_weights(self.features[known], self.features[asked], self.penalty)
        return row

    def read(self, rows: Floats, labels: Floats) -> Floats:
        """The weighted sum."""
        return labels @ rows.T


@dataclass(frozen=True)
class SpectrumRegression(LinearPredictor):
    """Ridge regression on the logarithms of dW's singular values, each standardised over the known adapters."""

    spectra: Spectra
    name: ClassVar[str] = "spectrum_regression"
    title: ClassVar[str] = "Ridge regression on the singular values of all layers"
    reference: ClassVar[str] = "variant of Salama et al. 2024"
    bibtex: ClassVar[str] = SALAMA
    penalty: ClassVar[float] = PENALTY

    @cached_property
    def features(self) -> Floats:  # type: ignore[override]
        """[N, D]."""
        updates = [s for (_, which), s in self.spectra.items() if which == UPDATE]
        features: Floats = np.log(np.maximum(np.concatenate(updates, 1), SMALLEST))
        return features


@dataclass(frozen=True)
class LossRegression(LinearPredictor):
    """A line through (d, label), d = how much easier the adapter made images with the value than images without.

    ``differences`` [N]: mean over images with the value of log l_base - log l_adapted, less that over the others, on
    images that none of the adapters was trained on.
    """

    differences: Floats
    name: ClassVar[str] = "loss_regression"
    title: ClassVar[str] = "Line through the losses: calibrated loss with the value less that without"
    reference: ClassVar[str] = "attribute inference by calibrated losses, after Watson et al. 2022"
    bibtex: ClassVar[str] = CALIBRATED
    penalty: ClassVar[float] = 1e-6

    @property
    def features(self) -> Floats:  # type: ignore[override]
        """[N, 1]."""
        return self.differences[:, None]


def ridge_weights(known: Floats, asked: Floats, penalty: float) -> Floats:
    """w [n] such that w y is the ridge prediction for ``asked`` whatever the labels y are.

    Features are standardised over ``known``; those that do not vary are left out. With Z [n, D] and z so standardised,
    K = Z Z^T / D, the prediction is mean(y) + z Z^T / D (K + penalty n I)^-1 (y - mean(y)), which is linear in y.

    Args:
        known: [n, D].
        asked: [D].
    """
    n = len(known)
    spread_of = known.std(0)
    varying = spread_of > 1e-12 * np.maximum(1, np.abs(known).max(0, initial=0))
    if not varying.any():
        return np.full(n, 1 / n)
    mean, scale = known.mean(0)[varying], spread_of[varying]
    z, one = (known[:, varying] - mean) / scale, (asked[varying] - mean) / scale
    kernel = z @ z.T / z.shape[1]
    weights = np.linalg.solve(kernel + penalty * n * np.eye(n), z @ one / z.shape[1])
    centred: Floats = weights - weights.mean() + 1 / n
    return centred


def stacked(spectra: Sequence[Mapping[tuple[str, str], Floats]]) -> dict[tuple[str, str], Floats]:
    """Spectra of single adapters as those of all.

    Raises:
        ValueError: adapters of other layers or ranks.
    """
    if any(one.keys() != spectra[0].keys() for one in spectra):
        raise ValueError("adapters of other layers")
    return {name: np.stack([np.asarray(one[name], dtype=np.float64) for one in spectra]) for name in spectra[0]}
