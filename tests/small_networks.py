"""Attacks that learn less, for what does not depend on how much they learn."""

from __future__ import annotations

import os

import pytest

from smplora.attacks import classifiers
from smplora.attacks.methods import clid, ensemble, error_map, gsa, pfami, pia, secmi, semantic_distance, sima
from smplora.quality import evaluate


def learn_little(patch: pytest.MonkeyPatch) -> None:
    """Few epochs, small networks and few trees, in this process and those that are forked from it."""
    for method in (error_map, secmi, pfami):
        patch.setattr(method, "EPOCHS", 1)
    patch.setattr(classifiers, "WIDTHS", (4, 4))
    patch.setattr(classifiers, "DEPTHS", (1, 1))
    patch.setattr(classifiers, "PERCEPTRON", {**classifiers.PERCEPTRON, "max_iter": 2})
    patch.setattr(ensemble, "PARTS", ensemble.PARTS[:2])
    patch.setattr(gsa, "TREES", 5)
    patch.setattr(clid, "BOOSTING", {**clid.BOOSTING, "n_estimators": 5})


def draw_little(patch: pytest.MonkeyPatch) -> None:
    """Attacks ask at two timesteps, and what they generate takes two steps. What is measured so is kept apart from what
    other tests keep."""
    patch.setenv("SMPLORA_CACHE", f"{os.environ['SMPLORA_CACHE']}-little")
    patch.setattr(semantic_distance, "STEPS", 2)
    patch.setattr(evaluate, "LOSS_TIMESTEPS", 2)
    for method in (gsa, pfami, pia, sima):
        patch.setattr(method, "TIMESTEPS", method.TIMESTEPS[1:3])
