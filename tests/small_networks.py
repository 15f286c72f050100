"""Attacks that learn less, for what does not depend on how much they learn."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from smplora.attacks import classifiers
from smplora.attacks.methods import (
    clid,
    distribution,
    ensemble,
    error_map,
    gradient_alignment,
    gsa,
    gsa_shadows,
    pfami,
    pia,
    secmi,
    self_influence,
    semantic_distance,
    sima,
)
from smplora.quality import evaluate


def learn_little(patch: pytest.MonkeyPatch) -> None:
    """Few epochs, small networks and few trees, in this process and those that are forked from it."""
    patch.setattr(error_map, "EPOCHS", 1)
    for method in (secmi, pfami):
        patch.setattr(method, "RECIPE", replace(method.RECIPE, epochs=1))
    patch.setattr(classifiers, "WIDTHS", (4, 4))
    patch.setattr(classifiers, "DEPTHS", (1, 1))
    patch.setattr(classifiers, "PERCEPTRON", {**classifiers.PERCEPTRON, "max_iter": 2})
    patch.setattr(ensemble, "PARTS", ensemble.PARTS[:2])
    for method in (gsa, gsa_shadows):
        patch.setattr(method, "TREES", 5)
    patch.setattr(clid, "BOOSTING", {**clid.BOOSTING, "n_estimators": 5})


def draw_little(patch: pytest.MonkeyPatch) -> None:
    """Attacks ask at two timesteps, and what they generate takes two steps. What is measured so is kept apart from what
    other tests keep."""
    patch.setenv("SMPLORA_CACHE", f"{os.environ['SMPLORA_CACHE']}-little")
    for method in (semantic_distance, distribution):
        patch.setattr(method, "STEPS", 2)
    patch.setattr(evaluate, "LOSS_TIMESTEPS", 2)
    for method in (gsa, gradient_alignment, self_influence, pfami, pia, sima):
        patch.setattr(method, "TIMESTEPS", method.TIMESTEPS[1:3])
