"""Where tensors live."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smplora.core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of an option value; "auto" takes a GPU where there is one.

    Raises:
        ConfigError: not a device, or not one of this machine.
    """
    if name == "auto":
        if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes"):
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # of several processes each has one
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device got '{name}', which cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def check_type(device: torch.device, dtype: torch.dtype, option: str) -> None:
    """See that a device computes with numbers of ``dtype`` (fp32: all do), before anything is loaded onto it.

    Args:
        option: "--option value", for the message.

    Raises:
        ConfigError: it does not.
    """
    if dtype is torch.float32:
        return
    try:
        numbers = torch.ones(2, 2, device=device, dtype=dtype)
        (numbers @ numbers).sum().item()
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{option}: {device} cannot compute with it ({reason}); leave it out there") from error


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, random numbers of the CPU and of ``device`` follow from ``seed``, and convolutions on a GPU repeat bit
    for bit. Outside, random numbers go on as if nothing had happened."""
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=gpus),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        torch.manual_seed(seed)
        yield
