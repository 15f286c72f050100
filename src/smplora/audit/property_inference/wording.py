"""Answers in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from smplora.audit.property_inference.judge import Said
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.core.wording import NBSP, decimal, p_text
from smplora.core.wording import percent as percent_of_page

FROM = {
    "loss_regression": "From its losses",
    "spectrum_regression": "From its weights, by a regression",
    "dsire": "From its weights, by DSiRe",
}
TOLD = 0.05


def percent(value: float) -> str:
    """ "31 %", as a terminal without UTF-8 can show it too."""
    return percent_of_page(value).replace(NBSP, " ")


def number(value: float, *, counts: bool) -> str:
    """ "240" images, "31 %" of them."""
    return f"{value:,.0f}" if counts else percent(value)


def interval(said: Said, *, counts: bool) -> str:
    """What lies between its ends; an open end is none."""
    least, most = (1.0, None) if counts else (0.0, 1.0)
    low, high = (None if end in (least, most) else number(end or 0, counts=counts) for end in (said.low, said.high))
    level = percent(round(said.level, 2))
    if low and high:
        return f"{level}: {low} to {high}"
    if low or high:
        return f"{level}: {'at least' if low else 'at most'} {low or high}"
    return f"{level}: no limit, it could be anything"


def error(value: float, *, counts: bool) -> str:
    """How far somebody is off."""
    return f"a factor of {decimal(value, 1 if value >= 1.15 else 2)}" if counts else f"{decimal(100 * value, 1)} points"


def answer(name: str, said: Said, truth: float, without: float, *, counts: bool) -> str:
    """What one way of asking says, beside the truth and beside an attacker without the adapter."""
    value = number(said.value, counts=counts)
    subject = f"about {value} training images" if counts else f"about {value} of the training images have the value"
    errors = (error(said.error, counts=counts), error(without, counts=counts))
    return (
        f"{FROM[name]}: {subject} ({interval(said, counts=counts)}; true: {number(truth, counts=counts)}). On adapters "
        f"with known answers it is off by {errors[0]} on average, an attacker without the adapter by {errors[1]} "
        f"(p {p_text(said.p)})."
    )


def conclusion(said: Sequence[Said], truth: float, largest: float, p: float, *, counts: bool) -> str:
    """Whether the adapter tells the property at all."""
    what = "how many images it was trained on" if counts else "which share of its training images has the value"
    corrected = f"p {p_text(p)}, corrected for {len(said)} ways of asking"
    verdict = f"The adapter tells {what}" if p <= TOLD else f"It is not shown that the adapter tells {what}"
    beyond = (
        f" The attacker holds too few images to compare with more than {largest:,.0f}: of the true number, "
        f'{truth:,.0f}, he can only say "at least".'
    )
    return f"{verdict} ({corrected})." + beyond * (counts and truth > largest)


def assumptions(objective: str) -> tuple[str, ...]:
    """What the attacker is taken to know."""
    knows = (
        "The attacker knows how the adapter was trained, its number of steps too, and holds images of the same source "
        "that it was not trained on. Intervals hold as often as they say if the adapter was drawn as the adapters with "
        "known answers were.",
    )
    seen = "Its proxy has seen the aux non-members, which the attacker holds here: his images are a little too good."
    return (*knows, seen) if objective in WITH_PROXY else knows
