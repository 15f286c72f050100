"""smplora: adapt latent diffusion models to private images, and measure what the result gives away."""

import logging
from typing import TYPE_CHECKING, Any

from smplora.core.version import __version__

if TYPE_CHECKING:
    from smplora.api import Run
    from smplora.objectives.game import SMPLoRAGame

# peft imports bitsandbytes where it is installed, which on some processors prints a line on a kernel for 4-bit weights
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # a line for each layer's each call
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says where its own cache is when there is no home folder

__all__ = ["Run", "SMPLoRAGame", "__version__"]


def __getattr__(name: str) -> Any:
    """``smplora.SMPLoRAGame`` and ``smplora.Run`` are imported when they are asked for: ``import smplora`` is quick."""
    homes = {"SMPLoRAGame": "smplora.objectives.game", "Run": "smplora.api"}
    if name not in homes:
        raise AttributeError(f"module 'smplora' has no attribute '{name}'; the commands are in smplora.api")
    from importlib import import_module

    return getattr(import_module(homes[name]), name)
