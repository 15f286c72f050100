"""The Hessian norm of a scalar function of many parameters, from Hessian-vector products: no Hessian is ever made.

The norm of a symmetric matrix is its largest absolute eigenvalue. Both estimates approach it from below; the negative
eigenvalue of a saddle counts like a positive one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]  # v -> H v, both [P]
ITERATIONS, TOLERANCE = 50, 1e-6  # paper, App. C


@dataclass(frozen=True)
class Curvature:
    """An estimate of the largest absolute eigenvalue."""

    norm: float  # >= 0, never above the true one (but for rounding)
    eigenvalue: float  # with its sign
    products: int  # Hessian-vector products taken
    converged: bool  # within the number of iterations


class Hessian:
    """v -> H v of ``value``, a scalar, at ``parameters``, whose number is P in all (Pearlmutter 1994: the gradient of
    <grad, v>). The graph of the gradient is kept, so every product is one backward pass through it.

    What ``value`` is made of must be differentiable twice: fused attention kernels are not (record.py).
    """

    def __init__(self, value: Tensor, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self._gradients = torch.autograd.grad(value, self.parameters, create_graph=True, materialize_grads=True)

    @property
    def gradient(self) -> Tensor:
        """[P]."""
        return flatten(self._gradients)

    def __call__(self, vector: Tensor) -> Tensor:
        """[P] -> [P]."""
        pieces = vector.split([p.numel() for p in self.parameters])
        # a gradient that does not depend on any parameter has no graph, and its rows of the Hessian are 0
        pairs = [(g, v.view_as(g).to(g)) for g, v in zip(self._gradients, pieces, strict=True) if g.grad_fn is not None]
        if not pairs:
            return torch.zeros_like(vector)
        gradients, directions = zip(*pairs, strict=True)
        products = torch.autograd.grad(
            gradients, self.parameters, directions, retain_graph=True, materialize_grads=True
        )
        return flatten(products)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """All entries in one row, without a graph: [P]."""
    return torch.cat([t.detach().flatten() for t in tensors])


def power_iteration(
    product: Product, start: Tensor, *, iterations: int = ITERATIONS, tolerance: float = TOLERANCE
) -> Curvature:
    """||H v_k|| of v_k = H v_{k-1} / ||H v_{k-1}||, which never falls (Cauchy-Schwarz), until it grows by less than
    ``tolerance`` of itself or after ``iterations`` products: what the paper does.

    Two leading eigenvalues of opposite sign leave the norm right and the sign of ``eigenvalue`` undecided.

    Args:
        start: [P], not orthogonal to the leading eigenvector: random.
    """
    vector, norm, eigenvalue = start / start.norm(), 0.0, 0.0
    for k in range(1, iterations + 1):
        image = product(vector)
        before, norm, eigenvalue = norm, float(image.norm()), float(vector @ image)
        if not isfinite(norm):
            return Curvature(norm, eigenvalue, k, False)
        if norm - before <= tolerance * norm:
            return Curvature(norm, eigenvalue, k, True)
        vector = image / norm
    return Curvature(norm, eigenvalue, iterations, False)


def lanczos(
    product: Product, start: Tensor, *, iterations: int = ITERATIONS, tolerance: float = TOLERANCE
) -> Curvature:
    """The Ritz value of largest size in the Krylov space of ``start`` (Lanczos 1950), with full reorthogonalisation.

    Better than power iteration after as many products, since it takes the best vector of the whole space. An eigenvalue
    lies within the residual of a Ritz value, and its error is about the residual's square over the distance to the next
    one (Parlett 1998, chapter 4), so it stops at a relative residual of sqrt(``tolerance``).
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    value, converged = 0.0, False
    for k in range(1, min(iterations, start.numel()) + 1):
        image = product(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        space = torch.stack(basis)
        for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
            image = image - space.T @ (space @ image)
        rest = float(image.norm())
        if not isfinite(diagonal[-1]) or not isfinite(rest):
            return Curvature(float("nan"), float("nan"), k, False)
        off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
        values, vectors = torch.linalg.eigh(torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + off + off.T)
        leading = int(values.abs().argmax())
        value = float(values[leading])
        converged = rest * abs(float(vectors[-1, leading])) <= sqrt(tolerance) * abs(value)
        if converged or k == start.numel():
            return Curvature(abs(value), value, k, True)
        basis.append(image / rest)
        beside.append(rest)
    return Curvature(abs(value), value, len(diagonal), converged)
