"""Canaries: pictures that a fair coin put into the training set or not. Who is in is guessed from the adapter.

Attacks learn from a quarter of them and are chosen there; what they guess of the others, which no coin of theirs can
depend on, bounds epsilon from one run of any objective (Steinke, Nasr & Jagielski 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from smplora.attacks.base import Attack
from smplora.attacks.shadow_comparison import ShadowAttack
from smplora.audit.conclusion import labels, learn_attacks, signals_of_half
from smplora.audit.cost import CostPlan
from smplora.audit.gates import BASE
from smplora.core.arrays import Floats
from smplora.core.wording import decimal, duration, together
from smplora.data.split import Split
from smplora.results.audit import Canaries, EpsilonOfOneRun
from smplora.results.estimate import Proportion
from smplora.results.record import from_plain
from smplora.runs.subject import Loaded
from smplora.statistics.claims import Scored, one_run
from smplora.statistics.intervals import auc_interval

MeasureSignals = Callable[[Loaded, Mapping[str, Attack], str], Mapping[tuple[str, str], Floats]]


def canary_attacks(attacks: Mapping[str, Attack]) -> dict[str, Attack]:
    """Those that can be asked about canaries: shadow adapters know none."""
    return {name: attack for name, attack in attacks.items() if not isinstance(attack, ShadowAttack)}


def ask_canaries(
    loaded: Loaded, attacks: Mapping[str, Attack], measure: MeasureSignals, *, delta: float, seed: int
) -> Canaries | None:
    """Guess who is in. None where there are no canaries.

    Args:
        measure: computes signals of every cell of a subject; its last argument is a title for people.
        delta: of the (epsilon, delta) in question.
        seed: of folds and classifiers.
    """
    split = loaded.split.canaries
    if split is None:
        return None
    asked = canary_attacks(attacks)
    signals = measure(replace(loaded, split=split), asked, "ask about canaries")
    return judge_canaries(split, asked, signals, [n for n in attacks if n not in asked], delta=delta, seed=seed)


def judge_canaries(
    split: Split,
    attacks: Mapping[str, Attack],
    signals: Mapping[tuple[str, str], Floats],
    left_out: list[str],
    *,
    delta: float,
    seed: int,
) -> Canaries:
    """What the attacks' signals on canaries prove. Pure.

    Args:
        split: the canaries' cells.
        signals: {(attack, cell): [n, ...]} of all four cells.
        left_out: attacks that were not run on canaries.
    """
    chooses, guessed = (labels(split.sizes, half) for half in ("aux", "test"))
    learned = learn_attacks(attacks, signals, "aux", chooses, seed)
    readings = {name: one.read(signals_of_half(signals, name, "test")) for name, one in learned.items()}
    scores = {name: reading.scores for name, reading in readings.items()}
    found = one_run(Scored(scores, guessed, {n: r.held for n, r in readings.items()}, chooses), delta)
    area = auc_interval(scores[found["attack"]], guessed)
    every = np.concatenate([chooses, guessed])
    inside, outside = int(every.sum()), int((~every).sum())
    title = attacks[found["attack"]].info.title
    bound = from_plain(EpsilonOfOneRun, found)
    return Canaries(
        inside=inside,
        outside=outside,
        chosen_on=len(chooses),
        attack=found["attack"],
        title=title,
        auc=Proportion(area.value, area.low, area.high, area.method),
        one_run=bound,
        left_out=tuple(left_out),
        sentence=_sentence(inside, outside, len(chooses), title, bound, left_out, delta),
    )


def _sentence(
    inside: int, outside: int, chosen_on: int, title: str, bound: EpsilonOfOneRun, left_out: list[str], delta: float
) -> str:
    mu = f" (mu of Gaussian differential privacy {decimal(bound.mu, 2)} or more)" if bound.mu else ""
    proved = (
        f": epsilon is {decimal(bound.value, 2)} or more at delta {delta:g}, with 95 % confidence{mu}"
        if bound.value or bound.mu
        else ", which proves nothing"
    )
    missing = f"; not run on canaries: {together(left_out)}" if left_out else ""
    most = f"the right answer about every one would have proved {decimal(bound.ceiling, 2)}"
    return (
        f"canaries: a fair coin put {inside} of {inside + outside} into the training set. '{title}', chosen on "
        f"{chosen_on} of them, guessed {bound.guesses} of the other {bound.candidates} and was right about "
        f"{bound.right}{proved}; {most}{missing}"
    )


def canary_sentence(split: Split, attacks: Mapping[str, Attack], plan: CostPlan) -> str:
    """What asking about canaries takes on top of ``plan``, for people: every attack's passes on them, and the base
    model's losses, which several attacks compare with."""
    images, asked = sum(split.sizes.values()), canary_attacks(attacks)
    each = sum(step.passes for step in plan.steps if step.name in ({BASE} if step.base else asked))
    time = f", about {duration(each * images * plan.seconds_per_pass)}" * bool(plan.seconds_per_pass)
    passes = f"{each * images:,} denoiser passes{time}"
    return f"canaries, on top: the same attacks, but for those with shadows, on {images} images, {passes}"
