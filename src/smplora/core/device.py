"""Where tensors live."""

from __future__ import annotations

import os

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
