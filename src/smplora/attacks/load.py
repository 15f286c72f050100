"""Attacks by name, from_options of the options that bear the names of their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smplora.attacks.base import Attack
from smplora.attacks.low_pass import LowPassed
from smplora.attacks.shadow_comparison import ShadowAttack
from smplora.config.catalogue.attacks import ATTACKS, LOW_PASS
from smplora.core.registry import from_options, load


def load_attacks(names: Sequence[str], options: Any) -> dict[str, Attack]:
    """The attacks of these names, those that end in "+low_pass" on low frequencies.

    Args:
        options: an object with the options of ``smplora audit`` as attributes; what is None is the attack's default.

    Raises:
        ConfigError: unknown name, or a library that is not installed.
    """
    return {name: load_attack(name, options) for name in names}


def load_attack(name: str, options: Any) -> Attack:
    """One of them; see ``load_attacks``."""
    plain = name.removesuffix(LOW_PASS)
    method = load(ATTACKS, plain, "attacks")
    attack: Attack
    if issubclass(method, ShadowAttack):
        signal = method.own_signal or options.shadow_signal
        attack = method(signal, load_attack(signal, options))
    else:
        attack = from_options(method, options)
    attack.scorer(options.seed)  # what is not installed is said now
    return attack if plain == name else LowPassed(attack)
