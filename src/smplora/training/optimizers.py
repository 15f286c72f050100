"""The adapter's optimizer and learning rate schedule, and an optimizer's state as flat tensors for safetensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from smplora.config.optimization import DEFAULT_RATE, OptimizationOptions
from smplora.core.errors import ConfigError

NEEDS = dict.fromkeys(("adamw8bit", "8bit", "4bit"), ("bitsandbytes", "bitsandbytes"))  # module, extra
NEEDS |= {"prodigy": ("prodigyopt", "prodigy")}


def check_installed(option: str, name: str | None) -> None:
    """See whether ``--optimizer`` or ``--quantize`` can be followed.

    Raises:
        ConfigError: its library is not installed.
    """
    module, extra = NEEDS.get(name or "", ("torch", ""))
    if find_spec(module) is None:
        raise ConfigError(f"--{option} got '{name}', which needs {module}: pip install smplora[{extra}]")


def make_optimizer(
    options: OptimizationOptions, groups: Iterable[tuple[Iterable[nn.Parameter], float]]
) -> torch.optim.Optimizer:
    """The optimizer of ``--optimizer`` over groups of parameters (fp32), each with its own learning rate."""
    grouped = [{"params": list(parameters), "lr": rate, "initial_lr": rate} for parameters, rate in groups]
    common: dict[str, Any] = {
        "lr": options.learning_rate or DEFAULT_RATE,
        "betas": (options.adam_beta1, options.adam_beta2),
        "eps": options.adam_epsilon,
        "weight_decay": options.adam_weight_decay,
    }
    if options.optimizer == "adamw8bit":
        import bitsandbytes

        eight_bit: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(grouped, **common)
        return eight_bit
    if options.optimizer == "prodigy":
        from prodigyopt import Prodigy

        with redirect_stdout(StringIO()):  # it prints a note; standard output is for results
            prodigy: torch.optim.Optimizer = Prodigy(
                grouped,
                **common,
                beta3=options.prodigy_beta3,
                use_bias_correction=options.prodigy_use_bias_correction,
                safeguard_warmup=options.prodigy_safeguard_warmup,
            )
        return prodigy
    return torch.optim.AdamW(grouped, **common, fused=True)


def learning_rate_factor(options: OptimizationOptions, steps: int) -> Callable[[int], float]:
    """The schedule: what each group's own rate is multiplied by, a function of the step and so without state."""
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=options.learning_rate or DEFAULT_RATE)
    schedule = get_scheduler(
        options.lr_scheduler,
        stand_in,
        num_warmup_steps=options.lr_warmup_steps,
        num_training_steps=steps,
        num_cycles=options.lr_num_cycles,
        power=options.lr_power,
    )
    factor: Callable[[int], float] = schedule.lr_lambdas[0]
    return factor


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Give every group its own rate times ``factor``; returns that of the first group, times Prodigy's estimate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    first = optimizer.param_groups[0]
    return float(first["lr"] * first.get("d", 1.0))


def limit_gradients(options: OptimizationOptions, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Follow ``--gradient_normalisation`` or ``--max_grad_norm``; returns the L2 norm of all gradients before, a scalar
    on the device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if options.gradient_normalisation:
        torch._foreach_div_(gradients, norm.clamp(min=torch.finfo(norm.dtype).tiny))
    elif options.max_grad_norm:
        nn.utils.clip_grads_with_norm_(parameters, options.max_grad_norm, norm)
    return norm


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The whole state: ``{parameter}.{name}`` and, for what an optimizer keeps in its groups, ``group.{group}.{name}``.

    Plain numbers become scalars of 64 bits, which no optimizer here has among its tensors.
    """
    content = torch.optim.Optimizer.state_dict(optimizer)  # bitsandbytes' own nests its tensors for FSDP's sake
    flat = {f"{i}.{name}": value for i, entry in content["state"].items() for name, value in entry.items()}
    for g, group in enumerate(content["param_groups"]):
        flat |= {f"group.{g}.{n}": v for n, v in group.items() if type(v) in (int, float)}
    return {
        name: value.detach().cpu().contiguous().clone()  # bitsandbytes shares its maps between parameters
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
        for name, value in flat.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of ``optimizer_tensors``: the optimizer goes on bit for bit as the saved one would have.

    Raises:
        LookupError, ValueError: not the state of such an optimizer.
    """
    content = torch.optim.Optimizer.state_dict(optimizer)
    content["state"] = {}
    for key, tensor in tensors.items():
        value: Any = tensor.item() if tensor.dtype in (torch.int64, torch.float64) and tensor.ndim == 0 else tensor
        place, _, name = key.partition(".")
        if place == "group":
            index, _, name = name.partition(".")
            content["param_groups"][int(index)][name] = value
        else:
            content["state"].setdefault(int(place), {})[name] = value
    optimizer.load_state_dict(content)
