"""``--privacy_budget``: a training that measures what it gives away, and keeps inside of what it may.

Half of the aux images is set aside for it (no proxy sees them, no audit is judged by them). Every ``--budget_steps``
the loss calibrated by the base model is asked about them, at ten timesteps, nothing fitted. With [low, high] the 95 %
interval of its AUC, what counts is max(high, 1 - low): a score that is wrong systematically tells too. The adapter that
is published is the one with the lowest loss on the non-members among those inside the budget.

What is done to stay inside: with MP-LoRA and SMP-LoRA lambda moves (a PI controller); with Synth-LoRA the adapter
begins with few drawn images and gets twice as many while it is inside; and any training ends after three looks outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smplora.config.budget import AUC, PrivacyBudget
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.synthetic import SYNTHETIC
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError, TrainingError
from smplora.core.random_streams import stream_seed
from smplora.data.cells import Cell
from smplora.runs.folder import BUDGET, RunFolder
from smplora.statistics.intervals import Interval, auc_interval
from smplora.statistics.rates import tpr_at_fpr
from smplora.training.best import BestAdapter, over_processes
from smplora.training.running_attack import RunningAttack
from smplora.training.setup import Setup

TIMESTEPS = 10  # of a look
PATIENCE = 3  # looks outside in a row, after which nothing better is to be expected
FIRST_SHARE = 8  # of the drawn images the first part is fed at first: 1 / 8
PROPORTIONAL, INTEGRAL = 0.5, 0.25  # of the controller, for each 0.1 above the limit, in log lambda
FARTHEST = 100.0  # lambda moves no farther from where it began, up or down


def leakage(scores: Tensor, is_member: Any, budget: PrivacyBudget, directions: Sequence[int] = (1, -1)) -> Interval:
    """What the scores [n] give away, in the budget's measure, of the direction that gives away more; its ``high`` is
    what counts."""
    x = scores.numpy()
    sides = []
    for direction in (sign * x for sign in directions):
        if budget.measure == AUC:
            sides.append(auc_interval(direction, is_member))
        else:
            rate = tpr_at_fpr(direction, is_member, budget.fpr)
            sides.append(Interval(rate.value, rate.low, rate.high, "TPR"))
    return max(sides, key=lambda side: side.high)


def smallest_limit(members: int, nonmembers: int, budget: PrivacyBudget, draws: int = 200) -> float:
    """The limit that an adapter which gives away nothing is inside of in half of all looks: the median of what chance
    alone gives, by simulation."""
    rng, is_member = np.random.default_rng(0), np.arange(members + nonmembers) < members
    scores = torch.from_numpy(rng.standard_normal((draws, members + nonmembers)))
    return float(np.median([leakage(row, is_member, budget).high for row in scores]))


def check_resolvable(budget: PrivacyBudget, members: int, nonmembers: int) -> None:
    """See, before anything is trained, whether so many images can tell that the budget is kept.

    Raises:
        ConfigError: not so; says which could be.
    """
    if min(members, nonmembers) < 2:
        raise ConfigError("--privacy_budget sets half of the aux cells aside: give cells of 4 images or more")
    reachable = smallest_limit(members, nonmembers, budget)
    if budget.limit < reachable:
        needed = next(
            (n for n in (25, 50, 100, 200, 400, 800, 1600) if smallest_limit(n, n, budget, 50) <= budget.limit), None
        )
        more = f"cells of {2 * needed} images or more (--aux_size)" if needed else "many more images"
        name = "auc" if budget.measure == AUC else f"tpr@{100 * budget.fpr:g}%"
        raise ConfigError(
            f"--privacy_budget {name}={budget.limit:g} cannot be told from chance with the {members} members and "
            f"{nonmembers} non-members that are set aside; allowed: {name}={math.ceil(100 * reachable) / 100:g} or "
            f"more, or {more}"
        )


@dataclass
class BudgetKeeper:
    """Looks, steers and keeps the best; its state is in every checkpoint."""

    budget: PrivacyBudget
    attack: RunningAttack
    setup: Setup
    folder: RunFolder
    steps: int  # between looks
    drawn: Cell | None = None  # all drawn images, of Synth-LoRA
    start_lambda: float | None = None  # of a game
    images: int = 0  # drawn images in use
    integral: float = 0.0
    outside: int = 0  # looks in a row
    lowest: float = math.inf  # leakage of any look
    lowest_step: int = 0
    best: BestAdapter = field(default_factory=BestAdapter)
    state_name = "budget"

    @property
    def title(self) -> str:
        """Whose choice it is, for people."""
        return f"--privacy_budget {self.budget.title}"

    @classmethod
    def make(cls, config: TrainConfig, setup: Setup, folder: RunFolder) -> BudgetKeeper | None:
        """Of a run; None without a budget to measure."""
        budget = config.measured_budget
        if budget is None or setup.aside is None:
            return None
        member, nonmember = setup.aside
        attack = RunningAttack(
            setup.adapted, member, nonmember, None, seed=stream_seed(config.seed, "budget"),
            batch_size=2 * config.train_batch_size, autocast=setup.autocast, timesteps=TIMESTEPS,
        )  # fmt: skip
        drawn = setup.feed.train if config.objective == SYNTHETIC else None
        keeper = cls(
            budget, attack, setup, folder, config.budget_steps or 1, drawn,
            config.mi_lambda if config.objective in WITH_PROXY else None,
            max(2, len(drawn) // FIRST_SHARE) if drawn else 0,
        )  # fmt: skip
        keeper._apply()
        return keeper

    @property
    def over(self) -> bool:
        """Whether the training should end."""
        return self.outside >= PATIENCE

    def after_step(self, done: int) -> dict[str, str]:
        """Look, where it is time to, and steer; returns what the progress bar shows."""
        if done % self.steps and done != self.setup.steps:
            return {}
        with self.setup.as_published():
            result = self.attack.measure()
        loss = torch.tensor([result.held_out_loss], dtype=torch.float64)
        scores, loss = over_processes(self.setup, result.scores, loss)
        if not (scores.isfinite().all() and loss.isfinite().all()):
            self.outside += 1  # what is wrong is said by the loop
            return {}
        held_out_loss = float(loss)
        found = leakage(scores, self.attack.is_member, self.budget)
        inside = found.high <= self.budget.limit
        if found.high < self.lowest:
            self.lowest, self.lowest_step = found.high, done
        if inside and held_out_loss < self.best.loss:
            self.best.take(self.setup, done, held_out_loss)
        self.outside = 0 if inside else self.outside + 1
        if self.setup.accelerator.is_main_process:
            self.folder.log(
                {
                    "step": done, "leakage": found.bounds(), "limit": self.budget.limit, "inside": inside,
                    "held_out_loss": held_out_loss,
                    **({"mi_lambda": self.mi_lambda} if self.start_lambda else {}),
                    **({"images": self.images} if self.drawn else {}),
                }, BUDGET,
            )  # fmt: skip
        turned = leakage(scores, self.attack.is_member, self.budget, directions=(1,)).high < found.high
        self._steer(found.high, inside, turned)
        return {self.budget.measure.upper(): f"<{found.high:.2f}"}

    @property
    def mi_lambda(self) -> float:
        """Where the controller has it: lambda = start * exp(steering), at most ``FARTHEST`` times more or less."""
        objective: Any = self.setup.game.objective
        return float(objective.mi_lambda)

    def _steer(self, high: float, inside: bool, turned: bool = False) -> None:
        """Once per look.

        Args:
            turned: what gives most away is that members have *higher* losses: then lambda is too large.
        """
        if self.start_lambda:
            error = (high - self.budget.limit) / 0.1 * (-1 if turned and not inside else 1)
            bound = math.log(FARTHEST) / INTEGRAL
            self.integral = min(max(self.integral + error, -bound), bound)
            steering = PROPORTIONAL * error + INTEGRAL * self.integral
            steering = min(max(steering, -math.log(FARTHEST)), math.log(FARTHEST))
            self._set_lambda(self.start_lambda * math.exp(steering))
        if self.drawn and inside:
            self.images = min(2 * self.images, len(self.drawn))
            self._apply()

    def _set_lambda(self, mi_lambda: float) -> None:
        self.setup.game.objective = replace(self.setup.game.objective, mi_lambda=mi_lambda)  # type: ignore[type-var]

    def _apply(self) -> None:
        if self.drawn:
            self.setup.feed = replace(self.setup.feed, train=self.drawn[: self.images])

    def finish(self) -> int:
        """Put the best adapter in place; returns its step.

        Raises:
            TrainingError: none was inside the budget.
        """
        if not self.best.state:
            raise TrainingError(
                f"no adapter was inside --privacy_budget {self.budget.title}: the least that was measured is "
                f"{self.lowest:.2f}, after step {self.lowest_step}. Nothing is published; look earlier "
                "(--budget_steps), train more gently (--learning_rate, --rank, --objective synth_lora), or allow more, "
                "in a new --output_dir"
            )
        return self.best.put_back(self.setup)

    def tensors(self) -> dict[str, Tensor]:
        """Its state, for a checkpoint."""
        numbers = [
            self.images, self.integral, self.outside, self.lowest, self.lowest_step, self.best.step, self.best.loss,
            self.mi_lambda if self.start_lambda else 0.0,
        ]  # fmt: skip
        return {"numbers": torch.tensor(numbers, dtype=torch.float64), **self.best.tensors()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``.

        Raises:
            KeyError, ValueError: something is missing.
        """
        images, self.integral, outside, self.lowest, lowest_step, best_step, best_loss, mi_lambda = tensors[
            "numbers"
        ].tolist()
        self.images, self.outside = int(images), int(outside)
        self.lowest_step, self.best = int(lowest_step), BestAdapter.of(best_step, best_loss, tensors)
        if self.start_lambda:
            self._set_lambda(mi_lambda)
        self._apply()
