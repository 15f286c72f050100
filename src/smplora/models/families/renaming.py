"""Names of original checkpoints in adapter files, and fused matrices, as diffusers has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from smplora.models.flow import SECOND_HALF

Rule: TypeAlias = tuple[re.Pattern[str], tuple[str, ...]]  # what is in a name -> what takes its place


def rule(pattern: str, *targets: str) -> Rule:
    """Of several ``targets`` each gets its part of the outputs: of A (or down) and alpha all get the same."""
    return re.compile(pattern), targets


def renamed(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Each name by the first rule that it holds something of; others stay.

    Raises:
        ValueError: two tensors for one name.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match, targets = next(((m, t) for pattern, t in rules if (m := pattern.search(name))), (None, ("",)))
        parts = tensor.chunk(len(targets)) if SECOND_HALF.search(name) else [tensor] * len(targets)
        for target, part in zip(targets, parts, strict=True):
            new = name if match is None else f"{name[: match.start()]}{match.expand(target)}{name[match.end() :]}"
            if new in found:
                raise ValueError(f"{new} is in it twice, once as {name}")
            found[new] = part
    return found
