"""Options of a budget of leakage, which a training keeps by itself. docs/training.md is their guide."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.checks import at_least

AUC, TPR, EPSILON = "auc", "tpr", "epsilon"
_FORM = re.compile(r"(auc|epsilon|tpr@(\d+(?:\.\d+)?)%)=(\d*\.?\d+)")
FORMS = "auc=0.65, tpr@10%=0.4 or epsilon=8"


@dataclass(frozen=True)
class PrivacyBudget:
    """How much may be given away."""

    measure: str  # AUC, TPR or EPSILON
    limit: float
    fpr: float = 0.0  # of TPR

    @property
    def title(self) -> str:
        """ "AUC 0.6", "TPR 0.15 at 10 % false positives"."""
        if self.measure == TPR:
            return f"TPR {self.limit:g} at {self.fpr:.3g} false positive rate"
        return f"{'AUC' if self.measure == AUC else 'epsilon'} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    privacy_budget: Optional[str] = None
    """What may be given away, as auc=0.65, tpr@10%=0.4 or epsilon=8 (of dp_lora). Half of the aux images is set aside to measure it."""
    budget_steps: Optional[int] = None
    """With --privacy_budget: steps between its measurements. Default: a twentieth of all steps."""


def parse_budget(text: str) -> PrivacyBudget | None:
    """The budget that ``--privacy_budget`` names; None where it names none."""
    found = _FORM.fullmatch(text.replace(" ", "").lower())
    if not found:
        return None
    name, rate, limit = found[1], found[2], float(found[3])
    if name in (AUC, EPSILON):
        return PrivacyBudget(name, limit)
    return PrivacyBudget(TPR, limit, float(rate) / 100)


def budget_problems(options: Any) -> list[str]:
    """What is wrong, one line each."""
    problems = at_least(options, ("budget_steps",), 1)
    given = options.privacy_budget
    if given is None:
        return problems + (["--budget_steps is of --privacy_budget; leave it out"] if options.budget_steps else [])
    budget = parse_budget(given)
    if budget is None:
        return [*problems, f"--privacy_budget got '{given}'; allowed: {FORMS}"]
    low, high = {AUC: (0.5, 1.0), TPR: (budget.fpr, 1.0), EPSILON: (0.0, float("inf"))}[budget.measure]
    if not low < budget.limit < high or (budget.measure == TPR and not 0 < budget.fpr < 1):
        what = {AUC: "an AUC above 0.5, below 1", TPR: "a rate above that of false positives, below 1"}
        problems.append(f"--privacy_budget got '{given}'; allowed: {what.get(budget.measure, 'an epsilon above 0')}")
    private = options.objective_on_images == "dp_lora"
    if budget.measure == EPSILON:
        if not private:
            problems.append(
                f"--privacy_budget got '{given}': only --objective dp_lora (or a teacher of it) promises an epsilon; "
                f"{options.objective} keeps auc=0.65 or tpr@10%=0.4"
            )
        if options.budget_steps:
            problems.append("--budget_steps: an epsilon is promised, not measured; leave it out")
        if options.target_epsilon not in (None, budget.limit) or options.noise_multiplier is not None:
            problems.append("--privacy_budget epsilon and --target_epsilon or --noise_multiplier: give one of them")
    if budget.measure != EPSILON and private:
        problems.append(
            f"--privacy_budget got '{given}', but what is chosen by looking at private images is not covered by the "
            "guarantee of dp_lora; give epsilon=8"
        )
    watched = options.gradient_steps or options.hessian_steps
    if budget.measure != EPSILON and options.objective in WITH_PROXY and watched:
        problems.append(
            "--privacy_budget moves lambda, which --gradient_steps and --hessian_steps need as it is: give 0"
        )
    if budget.measure != EPSILON and options.objective in WITH_PROXY and not options.mi_lambda:
        problems.append("--privacy_budget moves --mi_lambda, which cannot start at 0: give 0.05")
    return problems
