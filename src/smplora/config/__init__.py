"""Options: frozen dataclasses that are the one source of flags, YAML keys, help texts and documentation.

Flags carry the names that diffusers' training scripts gave them. ``problems`` of a config lists everything wrong with
its values, so that the user hears of all of it at once. Nothing here imports anything heavy: ``--help`` is quick.
"""

from smplora.config.audit import AuditConfig, ReportConfig, SubjectOptions
from smplora.config.caption import CaptionConfig
from smplora.config.data import (
    BUNDLED_MODEL,
    CacheConfig,
    CacheOptions,
    DataOptions,
    ModelOptions,
    PreparationOptions,
    SplitConfig,
    SplitOptions,
)
from smplora.config.dataset import DatasetConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.optimization import OptimizationOptions
from smplora.config.publish import ExportConfig, PushConfig
from smplora.config.quickstart import QuickstartConfig
from smplora.config.reproduce import ReproduceConfig
from smplora.config.sweep import SweepConfig
from smplora.config.train import TrainConfig

__all__ = [
    "BUNDLED_MODEL",
    "AuditConfig",
    "CacheConfig",
    "CacheOptions",
    "CaptionConfig",
    "DataOptions",
    "DatasetConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ModelOptions",
    "OptimizationOptions",
    "PreparationOptions",
    "PushConfig",
    "QuickstartConfig",
    "ReportConfig",
    "ReproduceConfig",
    "SplitConfig",
    "SplitOptions",
    "SubjectOptions",
    "SweepConfig",
    "TrainConfig",
]
