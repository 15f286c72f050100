"""Which functions train, audit and evaluate for which options."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig

Options: TypeAlias = TrainConfig | AuditConfig | EvaluateConfig
MEASURING = 200  # an audit or an evaluation, in training steps: what the progress bar counts
KIND = {TrainConfig: "train", AuditConfig: "audit", EvaluateConfig: "evaluate"}  # functions of once.py


def perform(options: Options) -> str | None:
    """One task, in a worker; returns what to tell people."""
    return once(options, "once")(options)  # type: ignore[no-any-return]


def done_already(options: Options) -> bool:
    """Whether a task would find everything done."""
    return bool(once(options, "done")(options))


def once(options: Options, what: str) -> Callable[[Options], Any]:
    """The function of once.py for these options; by name, because audits that train shadow adapters run tasks too."""
    function: Callable[[Options], Any] = getattr(import_module("smplora.once"), f"{KIND[type(options)]}_{what}")
    return function
