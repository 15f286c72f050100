"""The paper's measurements of gradients and curvature while training (App. C and D). None of them changes the run.

Files: docs/formats.md. Which step sees what, and what it costs: docs/training.md.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.train import TrainConfig
from smplora.core.console import bar
from smplora.core.random_streams import generator
from smplora.results.record import write
from smplora.results.theory import Figure1b, Propositions, Spread, TheorySummary
from smplora.runs.folder import GRADIENTS, HESSIAN, THEORY, RunFolder
from smplora.training.distributed import average, gather, mean
from smplora.training.setup import Setup
from smplora.training.theory.curvature import Curvature, Product, lanczos, power_iteration
from smplora.training.theory.smoothness import (
    Estimate,
    correlation,
    gradient_norm,
    gradient_scale,
    rescaling_factors,
    smoothness,
)

ESTIMATES: dict[str, Any] = {"power": power_iteration, "lanczos": lanczos}
GRADIENT_ROW = (
    *("gradient_norm", "gradient_scale", "adaptation_scale", "gain_scale"),
    *("adaptation_factor", "gain_factor"),
    *(f"{name}_{of}" for name in ("adaptation_factor", "gain_factor") for of in ("min", "max", "square")),
)
OF_BATCHES = 4  # columns before those that come from factors


class Theory:
    """Measures from the side of the training loop. All processes measure, the main one alone writes.

    Per step, in order: ``see_loss`` for each of its batches before the backward pass, ``see_gradients`` before
    clipping, ``after_step``; ``write`` where the host waits for the device anyway.
    """

    def __init__(self, config: TrainConfig, setup: Setup, folder: RunFolder, progress: bool) -> None:
        self.config, self.setup, self.folder, self.progress = config, setup, folder, progress
        self.writes = bool(setup.accelerator.is_main_process)
        self.rows: list[tuple[int, Tensor]] = []  # on the device
        self.factors: list[Tensor] = []  # of the step's batches
        self.of_gain: list[Tensor] = []  # the gain term's gradient, summed over the step's batches

    def see_loss(self, step: int, losses: Tensor, gains: Tensor) -> None:
        """Rescaling factors and the gain term's gradient, mean k_i grad g_i (smoothness.py), of one batch: losses
        (weighted) and gains [b]. Leaves the graph whole and the parameters' gradients as they are."""
        if not self._due(self.config.gradient_steps, step + 1):
            return
        c, k, _ = rescaling_factors(self.setup.game.objective, losses, gains)
        singles = [f(x) for x in (c, k) for f in (torch.amin, torch.amax, lambda x: x.square().mean())]
        self.factors.append(torch.stack([c.mean(), k.mean(), *singles]))
        if not gains.requires_grad:
            return
        term = (k * gains).mean() / self.config.gradient_accumulation_steps
        part = torch.autograd.grad(
            self.setup.scaler.scale(term), self.setup.parameters, retain_graph=True, materialize_grads=True
        )
        self.of_gain = [x + y for x, y in zip(self.of_gain, part, strict=True)] if self.of_gain else list(part)

    def see_gradients(self, step: int) -> None:
        """Norm and scales at the step's parameters, from the whole gradient, averaged and unscaled, not yet clipped."""
        if not self._due(self.config.gradient_steps, step + 1):
            return
        whole = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.setup.parameters]
        numbers = [gradient_norm(whole), gradient_scale(whole)]
        if self.of_gain:
            scale = self.setup.scaler.scale(torch.ones_like(numbers[0]))
            torch._foreach_div_(self.of_gain, scale)
            average(self.setup.accelerator, self.of_gain)
            rest = [x - y for x, y in zip(whole, self.of_gain, strict=True)]
            numbers += [gradient_scale(rest), gradient_scale(self.of_gain)]
        else:
            numbers += [numbers[1], torch.zeros_like(numbers[1])]
        self.rows.append((step + 1, torch.cat([torch.stack(numbers), together(torch.stack(self.factors), OF_BATCHES)])))
        self.factors, self.of_gain = [], []

    def after_step(self, done: int) -> None:
        """Measure the Hessian norm if it is due after ``done`` steps."""
        if self._due(self.config.hessian_steps, done):
            row = self._curvature(done)
            if self.writes:
                self.folder.log({"step": done, **row}, HESSIAN)

    def write(self) -> None:
        """Append the gradients' lines seen since the last time. The host waits."""
        if not self.rows:
            return
        own = torch.stack([row for _, row in self.rows])
        table = together(gather(self.setup.accelerator, own[None])).tolist()
        if self.writes:
            lines = [
                {
                    "step": step,
                    **{
                        name: value if np.isfinite(value) else None
                        for name, value in zip(GRADIENT_ROW, row, strict=True)
                    },
                }
                for (step, _), row in zip(self.rows, table, strict=True)
            ]
            self.folder.log_all(lines, GRADIENTS)
        self.rows = []

    def finish(self) -> None:
        """theory.json: the numbers of the paper's Fig. 1b, Fig. 2 and Table 3."""
        if self.writes and (self.config.gradient_steps or self.config.hessian_steps):
            lines = (self.folder.metrics(file) for file in (GRADIENTS, HESSIAN))
            write(self.folder.path / THEORY, summary(self.config, *lines))

    @staticmethod
    def _due(steps: int, done: int) -> bool:
        return steps > 0 and done % steps == 0

    def _curvature(self, done: int) -> dict[str, Any]:
        """A line of hessian.jsonl: at the parameters as they are, on one batch and draw, dropout off."""
        config, setup = self.config, self.setup
        model, accelerator = setup.model, setup.accelerator
        methods = ["power", "lanczos"] if config.hessian_method == "both" else [config.hessian_method]
        size = sum(p.numel() for p in setup.parameters)
        start = torch.randn(size, generator=generator(config.seed, "hessian")).to(model.device)
        batch, draw = next(setup.feed.adapter(0 if config.hessian_batch == "fixed" else done))
        # the fused attention kernels have no second derivative
        with setup.adapted.evaluating(), sdpa_kernel(SDPBackend.MATH):
            with setup.autocast():
                error_maps = model.error_maps(batch, draw)
            weights = model.loss_weights(draw.timesteps, config.snr_gamma)
            terms = setup.game.terms(error_maps, draw.timesteps, weights)
            with bar(None, f"Hessian at step {done}", unit="product", show=self.progress, leave=False) as display:
                return smoothness(
                    setup.game.objective,
                    *terms,
                    setup.parameters,
                    start,
                    {name: _counted(ESTIMATES[name], display) for name in methods},
                    partial(mean, accelerator),
                ).row()


def _counted(estimate: Estimate, display: Any) -> Estimate:
    """``estimate``, whose products a progress bar counts."""

    def counting(product: Product, start: Tensor) -> Curvature:
        def counted(vector: Tensor) -> Tensor:
            display.update()
            return product(vector)

        return estimate(counted, start)

    return counting


def summary(config: TrainConfig, gradients: list[dict[str, Any]], hessian: list[dict[str, Any]]) -> TheorySummary:
    """From the lines of gradients.jsonl and hessian.jsonl."""

    def column(lines: list[dict[str, Any]], name: str, factor: float = 1.0) -> list[float]:
        return [line[name] * factor for line in lines if line[name] is not None]

    both = [line for line in hessian if None not in (line["gradient_norm"], line["hessian_norm"])]
    checked = [line for line in hessian if line["holds"] is not None]
    per_gain = 1 / config.mi_lambda if config.mi_lambda and config.objective in WITH_PROXY else 0.0
    return TheorySummary(
        objective=config.objective,
        mi_lambda=config.mi_lambda if config.objective in WITH_PROXY else None,
        figure_1b=Figure1b(
            spread(column(both, "gradient_norm")),
            spread(column(both, "hessian_norm")),
            correlation(column(both, "gradient_norm"), column(both, "hessian_norm")),
        ),
        figure_2={name: spread(column(gradients, name)) for name in GRADIENT_ROW[:4]},
        table_3={
            "1/D": spread(column(gradients, "adaptation_factor")),
            "L_ada/D^2": spread(column(gradients, "gain_factor", per_gain)) if per_gain else None,
            "lambda*L_ada/D^2": spread(column(gradients, "gain_factor")) if per_gain else None,
        },
        table_3_single_images={
            "1/D": singles(gradients, "adaptation_factor"),
            "L_ada/D^2": singles(gradients, "gain_factor", per_gain) if per_gain else None,
            "lambda*L_ada/D^2": singles(gradients, "gain_factor") if per_gain else None,
        },
        propositions=Propositions(
            len(checked),
            sum(line["holds"] for line in checked),
            spread(column(checked, "l0")),
            spread(column(checked, "l1")),
        ),
    )


def together(rows: Tensor, first: int = 0) -> Tensor:
    """[n, .., columns] of several batches or processes -> [.., columns], each column as its name wants it.

    Args:
        first: of the columns in ``GRADIENT_ROW``.
    """
    by_name = {"min": torch.amin, "max": torch.amax}
    columns = zip(GRADIENT_ROW[first:], rows.unbind(-1), strict=True)
    return torch.stack([by_name.get(name.rpartition("_")[2], torch.mean)(x, 0) for name, x in columns], -1)


def singles(lines: list[dict[str, Any]], name: str, factor: float = 1.0) -> Spread | None:
    """As ``spread``, of the single images of all batches; None for lines of earlier versions, which lack these."""
    measured = [line for line in lines if line.get(name) is not None]
    if not measured or any(line.get(f"{name}_{of}") is None for line in measured for of in ("min", "max", "square")):
        return None
    mean_ = float(np.mean([line[name] for line in measured]))
    square = float(np.mean([line[f"{name}_square"] for line in measured]))
    lowest, highest = (pick(line[f"{name}_{end}"] for line in measured) for pick, end in ((min, "min"), (max, "max")))
    deviation = max(0.0, square - mean_**2) ** 0.5
    return Spread(len(measured), factor * mean_, factor * deviation, factor * lowest, factor * highest)


def spread(values: list[float]) -> Spread | None:
    """Count, mean, standard deviation (of the sample), least and largest value; None without values."""
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), deviation, min(values), max(values))
