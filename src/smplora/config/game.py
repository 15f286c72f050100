"""Options of the game between adapter and proxy (paper, Algorithms 1 and 2), and of a cheaper one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Optional

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.checks import at_least, game_problems


@dataclass(frozen=True, kw_only=True)
class GameOptions:
    mi_lambda: float = 0.05
    """Lambda of MP-LoRA and SMP-LoRA, the weight of the membership-inference gain (paper: 0.05)."""
    smp_delta: float = 1e-5
    """Delta in SMP-LoRA's denominator (paper: 1e-5)."""
    smp_ratio: Literal["per_sample", "batch_mean"] = "per_sample"
    """For batches above one: mean of the samples' ratios (what the paper's batch size 1 does) or ratio of the batch's means."""
    proxy_learning_rate: float = 1e-5
    """Adam learning rate of the proxy attack model (paper: 1e-5)."""
    proxy_steps: int = 1
    """Ascent steps of the proxy at each of its turns."""
    proxy_interval: int = 1
    """The proxy has its turn every so many steps of the adapter (paper: 1)."""
    proxy_batch_size: Optional[int] = None
    """Members, and as many non-members, in a batch of the proxy. Default: --train_batch_size."""
    proxy_sharing: Literal["none", "aux", "all"] = "none"
    """Whether the proxy's members are drawn anew ('none', as in the paper) or taken from the adapter's own batch, at no cost: its aux members or all."""
    proxy_input: Literal["error_map", "loss"] = "error_map"
    """What the proxy sees: the element-wise error map (as the paper's code) or the scalar loss (as its text)."""
    proxy_sees_timestep: bool = False
    """Tell the proxy the timestep."""
    proxy_members: Literal["aux", "train"] = "aux"
    """Whom the proxy learns as members: those of the aux cell (as in the paper) or the whole training set, which protects both halves alike."""

    @property
    def proxy_saw_all(self) -> bool:
        """Whether the proxy learned test members as members, so that it is no attack on them."""
        return self.proxy_members == "train" or self.proxy_sharing == "all"


def unused(options: Any, objective: str) -> list[str]:
    """The options of the game that were changed and that ``objective`` has no use for."""
    changed = [f"--{f.name}" for f in fields(GameOptions) if getattr(options, f.name) != f.default]
    return [] if objective in WITH_PROXY else changed


def proxy_images(options: Any) -> float:
    """Images of which error maps are computed for the proxy alone, at every step of the adapter. Of ``aux`` members in
    the adapter's batch, half are expected."""
    of_a_kind = options.proxy_batch_size or options.train_batch_size
    each: float = {"none": 2.0, "aux": 0.5, "all": 1.0}[options.proxy_sharing] * of_a_kind
    return each * float(options.proxy_steps / options.proxy_interval)


def proxy_problems(options: Any) -> list[str]:
    """What is wrong with the values."""
    sharing = f"--proxy_sharing {options.proxy_sharing}"
    problems = [
        *at_least(options, ("proxy_steps", "proxy_interval", "proxy_batch_size"), 1),
        *game_problems(options),
    ]
    if options.proxy_sharing == "none":
        return problems
    if options.proxy_steps > 1:
        problems.append(
            f"--proxy_steps got {options.proxy_steps}; with {sharing} the adapter's batch serves one step: give 1"
        )
    if options.proxy_members == "train" and options.proxy_sharing == "aux":
        problems.append(f"--proxy_members train: not with {sharing}; give --proxy_sharing all, or leave one out")
    if (options.proxy_batch_size or 0) > options.train_batch_size:
        problems.append(
            f"--proxy_batch_size got {options.proxy_batch_size}; allowed with {sharing}: up to --train_batch_size "
            f"{options.train_batch_size}, which is shared"
        )
    return problems
