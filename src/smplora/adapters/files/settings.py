"""What stands beside the tensors of an adapter: peft's settings, in the file's header (diffusers) or in
adapter_config.json (peft). They come from outside: everything is checked, and no pattern can take long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.core.console import say_once
from smplora.core.reading import Unreadable, parse_json, read_json, shortened

PEFT_FILE = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"  # what peft's save_pretrained writes beside the tensors
IN_HEADER = "lora_adapter_metadata"  # diffusers' key; the settings' names begin with the component's
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
MOST_PATTERNS, MOST_WILDCARDS = 20, 2  # that are more than names; repetitions in each
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that leave another base model
_ATOM = r"(?:\\[.dw\-]|[\w.\-]|\[[\w\-]+\])"
_NAME = re.compile(r"[\w\-]+(?:\\?\.[\w\-]+)*")
_EXPRESSION = re.compile(rf"\^?(?:{_ATOM}[*+]?)+\$?")


class Patterns:
    """peft's patterns for modules, the first one that matches the end of the name counts: names of modules, or regular
    expressions of letters, digits, ``.``, ``[..]``, ``\\d``, ``\\w``, ``|`` and at most two of ``*`` and ``+``, which
    bounds their time by the square of a name's length; others, groups above all, can take for ever."""

    def __init__(self, patterns: Mapping[str, float]) -> None:
        """``patterns``: pattern -> value.

        Raises:
            ValueError: another regular expression, or too many.
        """
        self.names: dict[str, tuple[int, float]] = {}
        self.expressions: list[tuple[int, re.Pattern[str], float]] = []
        for order, (pattern, value) in enumerate(patterns.items()):
            for one in pattern.split("|"):
                if _NAME.fullmatch(one):
                    self.names.setdefault(one.replace("\\", ""), (order, value))
                else:
                    self.expressions.append((order, _expression(one), value))
        if len(self.expressions) > MOST_PATTERNS:
            raise ValueError(
                f"{len(self.expressions)} regular expressions; allowed: {MOST_PATTERNS} at most, and names"
            )

    def value(self, module: str, otherwise: float) -> float:
        """What is meant for ``module``."""
        places = [0, *(match.end() for match in re.finditer(r"\.", module))]
        found = [self.names[module[i:]] for i in places if module[i:] in self.names]
        found += [(order, value) for order, pattern, value in self.expressions if pattern.fullmatch(module)]
        return min(found)[1] if found else otherwise


def _expression(pattern: str) -> re.Pattern[str]:
    if not _EXPRESSION.fullmatch(pattern) or sum(pattern.count(c) for c in "*+") > MOST_WILDCARDS:
        raise ValueError(
            f"the regular expression '{pattern:.100}'; allowed: names of modules, and . [..] \\d \\w | with at most "
            f"{MOST_WILDCARDS} of * and +"
        )
    try:
        return re.compile(rf"(.*\.)?({pattern})")
    except re.error as error:
        raise ValueError(f"the regular expression '{pattern:.100}' ({error})") from error


@dataclass(frozen=True)
class Settings:
    """What decides the scale in one component's settings, as peft's configurations of LoRA, LoHa and LoKr name them."""

    lora_alpha: float | None  # LoRA's
    alpha: float | None  # LoHa's and LoKr's
    r: float | None
    alphas: Patterns
    ranks: Patterns
    use_rslora: bool

    def low_rank(self, module: str, rank: int) -> float | None:
        """alpha, such that alpha / rank is what multiplies a low-rank product; None: nothing is said."""
        if self.lora_alpha is None:
            return None
        return self.alphas.value(module, self.lora_alpha) * (rank**0.5 if self.use_rslora else 1)

    def product(self, module: str, rank: int | None) -> float | None:
        """What multiplies a product of LoHa or LoKr; None: nothing is said.

        Args:
            rank: None: nothing is factored, and peft divides by its setting all the same.
        """
        rank_or_setting = rank or (self.r and self.ranks.value(module, self.r))
        if self.alpha is None or not rank_or_setting:
            return None
        return self.alphas.value(module, self.alpha) / rank_or_setting


def read_settings(given: Mapping[str, Any]) -> Settings:
    """A component's settings.

    Raises:
        ValueError: one of another kind than it should be, or that also changes the base model.
    """
    numbers = {name: _number(name, given[name]) for name in ("lora_alpha", "alpha", "r") if given.get(name) is not None}
    stabilised, start = given.get("use_rslora"), given.get("init_lora_weights")
    if not isinstance(stabilised, bool | None):
        raise ValueError(f"use_rslora = {shortened(stabilised)}; allowed: true and false")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        raise ValueError(
            f"init_lora_weights = '{start:.40}', which changes the base model too; let peft save it with "
            "path_initial_model_for_weight_conversion"
        )
    return Settings(
        numbers.get("lora_alpha"),
        numbers.get("alpha"),
        numbers.get("r"),
        _patterns("alpha_pattern", given),
        _patterns("rank_pattern", given),
        bool(stabilised),
    )


def _patterns(name: str, given: Mapping[str, Any]) -> Patterns:
    value = given.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} = {shortened(value)}; allowed: an object of numbers")
    try:
        return Patterns({pattern: _number("a value", number) for pattern, number in value.items()})
    except ValueError as error:
        raise ValueError(f"{name} with {error}") from error


def _number(name: str, value: Any) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not abs(value) < 1e9:
        raise ValueError(f"{name} = {shortened(value)}; allowed: finite numbers")
    return float(value)


def loader_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Settings]:
    """Settings by component: from the header, where diffusers puts them, else from the file beside, peft's.

    Raises:
        ValueError: they cannot be understood.
    """
    beside = path.parent / PEFT_CONFIG
    if IN_HEADER in metadata:
        where = f"{IN_HEADER} in its header"
        told = _object(lambda: parse_json(metadata[IN_HEADER]), where)
        own = {c: {k.removeprefix(f"{c}."): v for k, v in told.items() if k.startswith(f"{c}.")} for c in COMPONENTS}
    elif beside.exists():
        where = f"{PEFT_CONFIG} beside it"
        if path.name != PEFT_FILE:
            say_once(f"--adapter: {path.name}: what it does not say itself, such as alpha, is taken from {where}")
        own = dict.fromkeys(COMPONENTS, _object(lambda: read_json(beside), where))
    else:
        return {}
    try:
        return {component: read_settings(given) for component, given in own.items()}
    except ValueError as error:
        raise ValueError(f"{where} has {error}") from error


def _object(read: Callable[[], Any], where: str) -> dict[str, Any]:
    try:
        content = read()
    except (OSError, Unreadable) as error:
        raise ValueError(f"{where} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} is no JSON object")
    return content
