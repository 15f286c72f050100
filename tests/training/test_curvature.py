"""Hessian norms and the propositions against dense Hessians in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smplora.core.random_streams import generator
from smplora.objectives.lora import LoRA
from smplora.objectives.mp_lora import MPLoRA
from smplora.objectives.smp_lora import SMPLoRA
from smplora.training.theory.curvature import Curvature, Hessian, flatten, lanczos, power_iteration
from smplora.training.theory.smoothness import correlation, gradient_norm, gradient_scale, rescaling_factors, smoothness

Estimate = Callable[..., Curvature]
ESTIMATES: list[Estimate] = [power_iteration, lanczos]
SMP = SMPLoRA(0.7, 1e-5)


class Game(nn.Module):
    """Five samples' losses and log-probabilities, both functions of the weights of a small network."""

    def __init__(self) -> None:
        super().__init__()
        rng = generator(3, "game")
        self.first = nn.Parameter(torch.randn((4, 3), generator=rng, dtype=torch.float64))
        self.second = nn.Parameter(torch.randn((4,), generator=rng, dtype=torch.float64))
        self.register_buffer("x", torch.randn((5, 3), generator=rng, dtype=torch.float64))

    def terms(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        y = (self.x @ first.T).tanh() @ second
        return (y - self.x[:, 0]).square() + 0.1, nn.functional.logsigmoid(3 * y - self.x[:, 1])

    @property
    def weights(self) -> list[Tensor]:
        return [self.first, self.second]

    def dense(self, scalar: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Hessian of a scalar of losses and gains, by torch.autograd.functional on one flat vector of weights."""

        def of(flat: Tensor) -> Tensor:
            return scalar(*self.terms(flat[:12].view(4, 3), flat[12:]))

        return torch.autograd.functional.hessian(of, flatten(self.weights))

    def slope(self, scalar: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return flatten(torch.autograd.grad(scalar(*self.terms(*self.weights)), self.weights))


def start(size: int) -> Tensor:
    return torch.randn(size, generator=generator(0, "start"), dtype=torch.float64)


def leading(matrix: Tensor) -> float:
    values = torch.linalg.eigvalsh(matrix)
    return float(values[values.abs().argmax()])


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_norms_are_those_of_the_dense_hessian(estimate: Estimate, sign: float) -> None:
    """Of a network's loss and of its negative, whose leading eigenvalue has the other sign."""
    game = Game()
    dense = game.dense(lambda loss, gain: sign * loss.mean())
    hessian = Hessian(sign * game.terms(*game.weights)[0].mean(), game.weights)
    found = estimate(hessian, start(16), iterations=500)
    assert found.converged
    assert found.eigenvalue == pytest.approx(leading(dense), rel=1e-4)
    assert found.norm == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-4)
    assert torch.allclose(hessian.gradient, sign * game.slope(lambda loss, gain: loss.mean()))


def test_both_signs_occur() -> None:
    """Otherwise the test above would prove less than it says."""
    assert leading(Game().dense(lambda loss, gain: loss.mean())) > 0
    assert leading(Game().dense(lambda loss, gain: -loss.mean())) < 0


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize(
    "eigenvalues", [[3.0, 1.0, -2.0], [-3.0, 1.0, 2.0], [3.0, -3.0, 1.0], [2.0, 2.0, 2.0], [5.0, 0.0, 0.0]]
)
def test_chosen_eigenvalues(estimate: Estimate, eigenvalues: list[float]) -> None:
    """Also of equal size and opposite sign, all equal, and of a matrix of rank one."""
    basis, _ = torch.linalg.qr(torch.randn((3, 3), generator=generator(1), dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    found = estimate(lambda v: matrix @ v, start(3), iterations=200)
    assert found.converged
    assert found.norm == pytest.approx(max(map(abs, eigenvalues)), rel=1e-5)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_no_curvature_and_no_number(estimate: Estimate) -> None:
    assert estimate(torch.zeros_like, start(4)).norm == 0
    assert not np.isfinite(estimate(lambda v: v * float("nan"), start(4)).norm)
    straight = nn.Parameter(torch.ones(4, dtype=torch.float64))
    assert estimate(Hessian(3 * straight.sum(), [straight]), start(4)).norm == 0


def test_estimates_come_from_below_and_lanczos_needs_fewer_products() -> None:
    half = torch.randn((200, 200), generator=generator(2), dtype=torch.float64)
    matrix = half + half.T
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    norms = [power_iteration(lambda v: matrix @ v, start(200), iterations=k, tolerance=0).norm for k in (1, 5, 50)]
    assert norms == sorted(norms)
    assert norms[-1] <= exact
    found = lanczos(lambda v: matrix @ v, start(200), iterations=60)
    assert found.converged
    assert found.products < 60
    assert found.norm == pytest.approx(exact, rel=1e-5)
    slow = power_iteration(lambda v: matrix @ v, start(200), iterations=found.products, tolerance=0)
    assert exact - slow.norm > exact - found.norm


def test_parameters_that_do_not_matter() -> None:
    used, unused = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    hessian = Hessian(used.pow(3).sum(), [used, unused])
    assert hessian(torch.ones(4, dtype=torch.float64)).tolist() == [6, 6, 0, 0]


def test_rescaling_factors() -> None:
    """1/D, lambda l / D^2 and lambda / D; 1 and lambda, which have no cross term; 1 and 0."""
    loss, gain = (torch.tensor(x, dtype=torch.float64) for x in ([0.2, 0.4], [-1.0, -3.0]))
    d = 1 - 0.7 * gain + 1e-5
    for found, expected in zip(rescaling_factors(SMP, loss, gain), (1 / d, 0.7 * loss / d**2, 0.7 / d), strict=True):
        assert torch.allclose(found, expected, rtol=1e-14)
    for objective, k in ((MPLoRA(0.7), 0.7), (LoRA(), 0.0)):
        assert [x.tolist() for x in rescaling_factors(objective, loss, gain)] == [[1.0, 1.0], [k, k], [0.0, 0.0]]


def test_the_papers_hessian_identity() -> None:
    """Hess L = (1/D) Hess L_ada + (lambda L_ada / D^2) Hess G + (lambda/D)(grad G gradL^T + gradL grad G^T)."""
    game, lam, delta = Game(), 0.7, 1e-5
    whole = game.dense(lambda loss, gain: loss.mean() / (1 - lam * gain.mean() + delta))
    with torch.no_grad():
        loss, gain = (x.mean() for x in game.terms(*game.weights))
        d = 1 - lam * gain + delta
    of_gain = game.slope(lambda loss, gain: gain.mean())
    of_whole = game.slope(lambda loss, gain: loss.mean() / (1 - lam * gain.mean() + delta))
    cross = torch.outer(of_gain, of_whole)
    parts = (
        game.dense(lambda loss, gain: loss.mean()) / d
        + lam * loss / d**2 * game.dense(lambda loss, gain: gain.mean())
        + lam / d * (cross + cross.T)
    )
    assert torch.allclose(whole, parts, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("objective", [LoRA(), MPLoRA(0.7), SMP, SMPLoRA(0.7, smp_ratio="batch_mean")])
def test_terms_of_the_propositions(objective: Any) -> None:
    """Against dense Hessians, and the inequality holds. LoRA is an equality: its L0 is the Hessian norm."""
    game = Game()
    loss, gain = game.terms(*game.weights)
    if not objective.uses_proxy:
        gain = torch.zeros_like(loss)
    seen = smoothness(objective, loss, gain, game.weights, start(16), {"power": power_iteration, "lanczos": lanczos})

    def norm(scalar: Callable[[Tensor, Tensor], Tensor]) -> float:
        return float(torch.linalg.matrix_norm(game.dense(scalar), 2))

    means = (loss.mean()[None], gain.mean()[None]) if objective != SMP else (loss, gain)
    c, k, a = rescaling_factors(objective, *means)
    assert seen.estimates["lanczos"].norm == pytest.approx(norm(lambda x, g: objective(x, g).mean()), rel=1e-4)
    assert seen.gradient_norm == pytest.approx(float(game.slope(lambda x, g: objective(x, g).mean()).norm()))
    assert seen.adaptation_hessian == pytest.approx(norm(lambda x, g: (c * x).mean()), rel=1e-4)
    row = seen.row()
    assert row["holds"]
    if not objective.uses_proxy:
        assert (row["l0"], row["l1"]) == (pytest.approx(row["hessian_norm"], rel=1e-4), 0)
        return
    assert seen.gain_hessian == pytest.approx(norm(lambda x, g: (k * g).mean()), rel=1e-4)
    steep = torch.stack([game.slope(lambda x, g, i=i: g[i]).norm() for i in range(5)])
    if isinstance(objective, MPLoRA):
        assert seen.l1 == 0
    elif objective == SMP:
        assert seen.l1 == pytest.approx(float((2 * a * steep).mean()))
    else:
        whole = 2 * 0.7 / (1 - 0.7 * gain.mean() + 1e-5) * game.slope(lambda x, g: g.mean()).norm()
        assert seen.l1 == pytest.approx(whole.item())
        assert row["bound"] == pytest.approx(row["l0"] + row["l1"] * row["gradient_norm"])


def test_without_the_cross_term_the_inequality_can_fail() -> None:
    """So that it is no empty check: where the Hessians of loss and gain vanish, all curvature is in the cross term."""
    weights = nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))
    loss, gain = (weights[:1] * 2 + 5), (weights[1:] - 1)
    seen = smoothness(SMPLoRA(1.0), loss, gain, [weights], start(2), {"lanczos": lanczos})
    assert seen.l0 == 0
    assert seen.estimates["lanczos"].norm > 0.1
    assert seen.row()["holds"]


def test_norm_and_scale() -> None:
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])]
    assert gradient_scale(gradients).item() == 17
    assert gradient_norm(gradients).item() == 13


def test_correlation() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    found = correlation(x, y)
    assert found is not None
    r = found.r.value
    assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
    half = 1.959964 / np.sqrt(47)  # Fisher's z
    ends = np.tanh([np.arctanh(r) - half, np.arctanh(r) + half])
    assert [found.r.low, found.r.high] == pytest.approx(ends)
    shuffled = [abs(np.corrcoef(rng.permutation(x), y)[0, 1]) >= abs(r) for _ in range(500)]
    assert np.mean(shuffled) <= 0.01
    assert found.p_value < 0.01
    assert correlation(x[:3], y[:3]) is None
    assert correlation(np.ones(9), x[:9]) is None
