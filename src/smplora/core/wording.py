"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def p_text(p: float) -> str:
    """``0.032``, ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent(fraction: float) -> str:
    """``0.84`` as ``84 %``, with one decimal below 10 % where needed."""
    shown = 100 * fraction
    return f"{shown:.1f}".removesuffix(".0") + f"{NBSP}%" if 0 < abs(shown) < 9.95 else f"{shown:.0f}{NBSP}%"


def decimal(value: float, digits: int) -> str:
    """``value`` with a fixed number of decimals and a true minus sign."""
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def count(number: int, noun: str) -> str:
    """``1, "seed"`` as ``one seed``, ``12, "seed"`` as ``12 seeds``."""
    return f"{COUNTS[number] if number < len(COUNTS) else number} {noun}{'' if number == 1 else 's'}"


def together(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
