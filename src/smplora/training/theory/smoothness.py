"""What the paper measures of an objective L = psi(L_ada, G): rescaling factors, gradient scales, (L0, L1)-smoothness.

The gradient of any objective of the per-sample losses l and gains g = log h has two terms,

    grad L = mean_i [ c_i grad l_i + k_i grad g_i ],    c = dpsi/dl,  k = dpsi/dg,

LoRA: c = 1, k = 0. MP-LoRA: c = 1, k = lambda. SMP-LoRA, with D = 1 - lambda g + delta: c = 1/D, k = lambda l / D^2,
the rescaling factors of the paper's Table 3. Its Hessian has three,

    Hess L = mean_i [ c_i Hess l_i + k_i Hess g_i + a_i (grad g_i gradL_i^T + gradL_i grad g_i^T) ],    a = lambda / D

(a = 0 for LoRA and MP-LoRA), hence ||Hess L|| <= L0 + L1 ||grad L|| with L0 the norms of the first two and
L1 = 2 a ||grad g|| (Propositions 1 and 2). With ratios of single samples in a batch above one the last term is
mean_i L1_i ||grad L_i||, each with its own sample's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from smplora.objectives.base import Objective
from smplora.results.theory import Coefficient, Correlation
from smplora.training.theory.curvature import Curvature, Hessian, Product, flatten

Estimate = Callable[[Product, Tensor], Curvature]
SLACK = 1e-3  # of the inequality, relative: both of its sides are estimated from below


def gradient_scale(gradients: Sequence[Tensor]) -> Tensor:
    """Sum over tensors of their L2 norms (paper, App. D), a scalar."""
    return torch.stack(torch._foreach_norm(list(gradients))).sum()


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """L2 norm over all tensors (paper, App. C), a scalar."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))
    return norm


def rescaling_factors(objective: Objective, losses: Tensor, gains: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(c, k, a) of each sample, as above: [b], [b] -> three of [b], without a graph.

    They are derivatives of the objective itself, so they hold for whatever it is: a = (d2psi/dl dg) / (dpsi/dl).
    """
    loss, gain = (x.detach().clone().requires_grad_() for x in (losses, gains))
    with torch.enable_grad():
        options: dict[str, Any] = {"create_graph": True, "materialize_grads": True}
        c, k = torch.autograd.grad(objective(loss, gain).sum(), (loss, gain), **options)
        mixed = (
            torch.autograd.grad(c.sum(), gain, materialize_grads=True)[0]
            if c.grad_fn is not None
            else torch.zeros_like(c)
        )
    return c.detach(), k.detach(), mixed / c.detach()


def ratios(objective: Objective, losses: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and gains [r] that the objective is the mean of: the samples' own for ratios per sample; else the batch's
    means, r = 1, which give the same objective."""
    if getattr(objective, "smp_ratio", "batch_mean") == "per_sample":
        return losses, gains
    return losses.mean()[None], gains.mean()[None]


@dataclass(frozen=True)
class Smoothness:
    """The terms of Propositions 1 and 2 at one point."""

    gradient_norm: float  # ||grad L||
    estimates: dict[str, Curvature]  # of ||Hess L||, by method
    adaptation_hessian: float  # ||mean c Hess l||
    gain_hessian: float  # ||mean k Hess g||
    l1: float  # mean of 2 a ||grad g||
    cross: float  # mean of 2 a ||grad g|| ||grad L_i||, which is l1 * gradient_norm for a single ratio

    @property
    def l0(self) -> float:
        """L0."""
        return self.adaptation_hessian + self.gain_hessian

    def row(self) -> dict[str, Any]:
        """As a line of hessian.jsonl has it (docs/formats.md)."""
        first = next(iter(self.estimates.values()))
        norm, bound = max(c.norm for c in self.estimates.values()), self.l0 + self.cross
        numbers = {
            "gradient_norm": self.gradient_norm,
            "hessian_norm": first.norm,
            "eigenvalue": first.eigenvalue,
            "adaptation_hessian": self.adaptation_hessian,
            "gain_hessian": self.gain_hessian,
            "l0": self.l0,
            "l1": self.l1,
            "bound": bound,
        }
        return {
            **{name: value if np.isfinite(value) else None for name, value in numbers.items()},
            "holds": bool(norm <= bound * (1 + SLACK)) if np.isfinite([norm, bound]).all() else None,
            "estimates": {
                name: {
                    "norm": c.norm if np.isfinite(c.norm) else None,
                    "products": c.products,
                    "converged": c.converged,
                }
                for name, c in self.estimates.items()
            },
        }


def smoothness(
    objective: Objective,
    losses: Tensor,
    gains: Tensor,
    parameters: Sequence[Tensor],
    start: Tensor,
    estimates: Mapping[str, Estimate],
    mean: Callable[[Tensor], Tensor] = lambda x: x,
) -> Smoothness:
    """Measure at ``parameters`` (P entries in all) what the propositions speak of.

    Args:
        losses, gains: [b], with graphs that lead to ``parameters`` and can be differentiated twice.
        start: [P], where the estimates begin.
        estimates: of ||Hess L||, by name; the last of them also estimates its two terms.
        mean: over processes, of scalars and vectors.
    """
    *_, of_terms = estimates.items()

    def estimated(value: Tensor, chosen: Mapping[str, Estimate]) -> tuple[float, dict[str, Curvature]]:
        """Norms of gradient and Hessian; the graph is gone afterwards."""
        hessian = Hessian(value, parameters)
        results = {name: estimate(lambda v: mean(hessian(v)), start) for name, estimate in chosen.items()}
        return float(mean(hessian.gradient).norm()), results

    def term(value: Tensor) -> float:
        ((_, estimate),) = estimated(value, dict([of_terms]))[1].items()
        return estimate.norm

    loss, gain = ratios(objective, losses, gains)
    c, k, a = rescaling_factors(objective, loss, gain)
    norm, by_method = estimated(objective(loss, gain).mean(), estimates)
    adaptation = term((c * loss).mean())
    if not gain.requires_grad:
        return Smoothness(norm, by_method, adaptation, 0.0, 0.0, 0.0)
    slopes = []
    for i in range(len(loss)):
        of_loss, of_gain = (flatten(_gradient(x[i], parameters)) for x in (loss, gain))
        slopes.append(torch.stack([of_gain.norm(), (c[i] * of_loss + k[i] * of_gain).norm()]))
    gain_slopes, ratio_slopes = torch.stack(slopes).T
    each = 2 * a * gain_slopes
    l1, cross = mean(torch.stack([each.mean(), (each * ratio_slopes).mean()])).tolist()
    return Smoothness(norm, by_method, adaptation, term((k * gain).mean()), l1, cross)


def _gradient(value: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, list(parameters), retain_graph=True, materialize_grads=True)


def correlation(first: ArrayLike, second: ArrayLike) -> Correlation | None:
    """Pearson's r with its 95 % interval (Fisher's z) and two-sided p-value, which treat the points as independent;
    None for fewer than 4 points or where one of the two does not vary."""
    from scipy.stats import pearsonr

    x, y = np.asarray(first, float), np.asarray(second, float)
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    result = pearsonr(x, y)
    low, high = result.confidence_interval(0.95)
    return Correlation(len(x), Coefficient(float(result.statistic), float(low), float(high)), float(result.pvalue))
