"""How far an adapter is, measured on fixed images at fixed noise: held-out loss, members' loss, a running attack.

The test cells have no way in here: they are for the audit, after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from smplora.attacks.methods.loss import timestep_grid
from smplora.attacks.views import GreyBox
from smplora.data.cells import Cell
from smplora.models.adapted import Adapted
from smplora.models.batch import Batch
from smplora.models.diffusion import adaptation_loss
from smplora.models.proxy import log_odds
from smplora.statistics.intervals import Interval, auc_interval

TIMESTEPS = 4  # of the grid that the loss attacks use


@dataclass(frozen=True)
class RunningResult:
    """One measurement."""

    held_out_loss: float
    member_loss: float  # of the aux members, at the same timesteps
    auc: Interval | None  # of the loss calibrated by the base model, on the aux cells; None for the base model itself
    proxy_auc: Interval | None  # of the proxy's own predictions; None without a proxy
    scores: Tensor  # of aux members, then non-members: what the AUC is of

    def row(self) -> dict[str, Any]:
        """As a line of monitor.jsonl has it."""
        losses = {
            "held_out_loss": self.held_out_loss,
            "member_loss": self.member_loss,
            "gap": self.held_out_loss - self.member_loss,
        }
        return {
            **{name: value if isfinite(value) else None for name, value in losses.items()},
            "auc": self.auc.bounds() if self.auc else None,
            "proxy_auc": self.proxy_auc.bounds() if self.proxy_auc else None,
        }


@torch.no_grad()
def fixed_losses(
    adapted: Adapted, cell: Batch | Cell, timesteps: int, seed: int, batch_size: int, autocast: Any
) -> Tensor:
    """Adaptation losses [n, timesteps] in double precision, on the grid of the loss attacks; an image's noise is a
    function of (seed, its digest, timestep)."""
    grid, losses = timestep_grid(timesteps, adapted.model.num_train_timesteps), []
    with adapted.evaluating(), autocast():
        for batch in cell.split(batch_size):
            view = GreyBox(adapted, batch, seed)
            maps = (view.error_maps(f"at {t}", t, adapted=True) for t in grid)
            losses.append(torch.stack([adaptation_loss(m).double().cpu() for m in maps], 1))
    return torch.cat(losses)


class RunningAttack:
    """Measures a model whose adapter is being trained, always on the same images, timesteps and noise.

    Score of an image, unfitted: mean over timesteps of log l_base - log l_adapted at common noise (Watson et al. 2022).
    The base model's losses are measured once: it does not change. An image's noise is a function of (seed, its digest,
    timestep), so the numbers do not depend on the batch size or on what else was drawn.

    Args:
        member, nonmember: of the aux cells.
        held_out: reference images; None: the aux non-members.
        proxy: whose own predictions are measured too, if there is one.
        autocast: makes the context of the forward passes.
        batch_size: images per pass.
    """

    def __init__(
        self,
        adapted: Adapted,
        member: Batch | Cell,
        nonmember: Batch | Cell,
        held_out: Batch | Cell | None,
        *,
        seed: int,
        batch_size: int,
        proxy: nn.Module | None = None,
        autocast: Any = torch.no_grad,
        timesteps: int = TIMESTEPS,
    ) -> None:
        self.adapted, self.proxy, self.seed, self.batch_size = adapted, proxy, seed, batch_size
        self.autocast: Any = autocast
        self.cells = {"member": member, "nonmember": nonmember} | ({"held_out": held_out} if held_out else {})
        self.held_out = "held_out" if held_out else "nonmember"
        self.timesteps = timestep_grid(timesteps, adapted.model.num_train_timesteps)
        self.is_member = torch.arange(len(member) + len(nonmember)).numpy() < len(member)
        self.base = {name: self._losses_and_odds(cell, adapted=False)[0] for name, cell in self.cells.items()}

    def of_base_model(self) -> RunningResult:
        """Where the run starts: the base model."""
        held_out, members = (float(self.base[name].mean()) for name in (self.held_out, "member"))
        return RunningResult(held_out, members, None, None, torch.zeros(len(self.is_member)))

    def measure(self) -> RunningResult:
        """The adapter as it is now. Modes of the modules are left as they were; no random generator is touched."""
        measured = {name: self._losses_and_odds(cell, adapted=True) for name, cell in self.cells.items()}
        pair = ("member", "nonmember")
        gains = torch.cat([(self.base[n].log() - measured[n][0].log()).mean(1) for n in pair])
        odds = torch.cat([measured[n][1] for n in pair])
        return RunningResult(
            float(measured[self.held_out][0].mean()),
            float(measured["member"][0].mean()),
            self._auc(gains),
            self._auc(odds) if self.proxy is not None else None,
            gains,
        )

    def _auc(self, scores: Tensor) -> Interval | None:
        return auc_interval(scores.numpy(), self.is_member) if bool(scores.isfinite().all()) else None

    @torch.no_grad()
    def _losses_and_odds(self, cell: Batch | Cell, *, adapted: bool) -> tuple[Tensor, Tensor]:
        """Losses [n, timesteps] in double precision, and the proxy's log-odds [n], its mean over timesteps."""
        losses, odds = [], []
        with self.adapted.evaluating(), self.autocast():
            for batch in cell.split(self.batch_size):
                view = GreyBox(self.adapted, batch, self.seed)
                maps = [view.error_maps(f"at {t}", t, adapted=adapted) for t in self.timesteps]
                losses.append(torch.stack([adaptation_loss(m).double() for m in maps], 1))
                if adapted and self.proxy is not None:
                    odds.append(
                        torch.stack([self._log_odds(m, t) for m, t in zip(maps, self.timesteps, strict=True)]).mean(0)
                    )
        return torch.cat(losses), torch.cat(odds) if odds else torch.zeros(0)

    def _log_odds(self, error_maps: Tensor, timestep: int) -> Tensor:
        assert self.proxy is not None
        where = self.adapted.model.device
        timesteps = torch.full((len(error_maps),), timestep, device=where)
        return log_odds(self.proxy, error_maps.to(where), timesteps).double().cpu()
