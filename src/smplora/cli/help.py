"""``smplora VERB --help``: the options that most people need. ``--help_all``: every option, by subject."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields
from inspect import get_annotations
from textwrap import TextWrapper
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from smplora.cli.commands import VERBS
from smplora.cli.parse import parser_of
from smplora.config.audit import AuditConfig
from smplora.config.budget import BudgetOptions
from smplora.config.data import CacheOptions, DataOptions, ModelOptions, PreparationOptions, SplitOptions
from smplora.config.distill import DistillOptions
from smplora.config.dreambooth import DreamBoothOptions
from smplora.config.early_stopping import EarlyStoppingOptions
from smplora.config.evaluate import EvaluateConfig
from smplora.config.game import GameOptions
from smplora.config.memorisation import MemorisationOptions
from smplora.config.monitor import MonitorOptions
from smplora.config.optimization import OptimizationOptions
from smplora.config.parsing import kinds_of
from smplora.config.private import PrivateOptions
from smplora.config.properties import PropertiesConfig
from smplora.config.quickstart import QuickstartConfig
from smplora.config.shadows import ShadowOptions
from smplora.config.subject import FileOptions, SubjectOptions
from smplora.config.sweep import SweepConfig
from smplora.config.synthetic import SyntheticOptions
from smplora.config.theory import TheoryOptions
from smplora.config.train import TrainConfig

FEW = 24  # options that are all shown
OF_TRAINING = (
    "train_data_dir", "default_caption", "pretrained_model_name_or_path", "output_dir", "objective", "resolution",
    "rank", "learning_rate", "train_batch_size", "max_train_steps", "num_train_epochs", "mixed_precision",
    "validation_prompts", "checkpointing_steps", "aux_size", "privacy_budget", "stop_when", "seed", "device",
)  # fmt: skip
MAIN = {  # of commands that have many, in the order shown
    "train": (*OF_TRAINING, "final"),
    "sweep": ("grid", "points", "seeds", *OF_TRAINING, "tier", "audit", "evaluate", "workers"),
    "quickstart": (
        "train_data_dir", "default_caption", "pretrained_model_name_or_path", "base", "output_dir", "aux_size",
        "max_train_steps", "workers", "device",
    ),
    "audit": (
        "adapter", "tier", "attacks", "shadows", "memorisation", "members", "nonmembers", "default_caption",
        "pretrained_model_name_or_path", "output_dir", "plan", "workers", "device",
    ),
    "evaluate": (
        "adapter", "num_images", "num_inference_steps", "guidance_scale", "features", "clip_score_model", "members",
        "nonmembers", "pretrained_model_name_or_path", "output_dir", "device",
    ),
    "properties": (
        "adapter", "attribute", "attribute_value", "members", "nonmembers", "pretrained_model_name_or_path",
        "output_dir", "plan", "workers", "device",
    ),
}  # fmt: skip
SUBJECTS: Mapping[type, str] = {
    TrainConfig: "The adapter and its training",
    SweepConfig: "What varies",
    AuditConfig: "The audit",
    QuickstartConfig: "The quickstart",
    EvaluateConfig: "The evaluation",
    PropertiesConfig: "The questions",
    ModelOptions: "Base model",
    DataOptions: "Images and captions",
    PreparationOptions: "How images and captions are prepared",
    SplitOptions: "Which images are trained on",
    OptimizationOptions: "Optimisation",
    GameOptions: "The game of MP-LoRA and SMP-LoRA",
    DistillOptions: "Distill-LoRA",
    SyntheticOptions: "Synth-LoRA",
    PrivateOptions: "DP-LoRA",
    DreamBoothOptions: "DreamBooth and prior preservation",
    BudgetOptions: "A budget of leakage",
    EarlyStoppingOptions: "The best step",
    MonitorOptions: "While it trains",
    TheoryOptions: "The paper's measurements",
    CacheOptions: "Cache",
    SubjectOptions: "What is looked at",
    FileOptions: "An adapter of another program",
    ShadowOptions: "Shadow adapters",
    MemorisationOptions: "Copies of training images",
}
WIDEST = 110
WORDS = {int: "N", float: "X", str: "TEXT", bool: "true|false"}


def help_text(name: str, everything: bool) -> str:
    """What is printed for a command."""
    verb = VERBS[name]
    texts = {action.dest: (action.help or "") for action in parser_of(name)._actions}
    names = [f.name for f in fields(verb.options)]
    shown = names if everything or len(names) <= FEW or name not in MAIN else MAIN[name]
    width = min(WIDEST, shutil.get_terminal_size((100, 24)).columns)
    word = f" {verb.positional.upper()}" if verb.positional else ""
    lines = [f"usage: smplora {name}{word} [--option value ...]", "", *_wrapped(verb.options.__doc__ or "", width)]
    for title, group in _groups(verb.options, shown).items() if everything else [("", list(shown))]:
        lines += ["", *([title] if title else [])]
        for option in group:
            value = _value(kinds_of(verb.options)[option])
            default = _default(verb.options, option, verb.asks_for_base)
            lines += [f"  --{option} {value}{default}", *_wrapped(texts[option], width, "      ")]
    left = len(names) - len(shown)
    lines += ["", f"example: {verb.example}"]
    if left:
        lines += [f"{left} more options, by subject: smplora {name} --help_all"]
    return "\n".join([*lines, "options in a YAML file: --config FILE reads one, --print_config writes one"])


def _groups(options: type, names: Any) -> dict[str, list[str]]:
    """Names by the subject of the class that has them, the command's own first."""
    groups: dict[str, list[str]] = defaultdict(list)
    order = [options, *(kind for kind in SUBJECTS if kind is not options)]
    owners = {name: next(k for k in options.__mro__ if name in get_annotations(k)) for name in names}
    for kind in sorted(set(owners.values()), key=lambda k: order.index(k) if k in order else len(order)):
        groups[SUBJECTS.get(kind, "Options")] += [name for name in names if owners[name] is kind]
    return groups


def _value(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return "|".join(dict.fromkeys(_value(one) for one in arguments if one is not type(None)))
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin is list:
        return f"'[{_value(arguments[0])}, ..]'"
    if origin is dict or kind is dict:
        return "'{NAME: VALUE, ..}'"
    return WORDS.get(kind, "VALUE")


def _default(options: type, name: str, asks_for_base: bool) -> str:
    value = getattr(options(), name)
    if value in (None, "", [], {}) or (asks_for_base and name == "pretrained_model_name_or_path"):
        return ""
    return f"   (default: {str(value).lower() if isinstance(value, bool) else value})"


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return TextWrapper(width, initial_indent=indent, subsequent_indent=indent).wrap(text)
