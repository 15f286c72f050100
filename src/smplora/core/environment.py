"""What a result was computed with: versions of libraries, the machine."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from smplora.core.version import __version__

PRINTED_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "scikit-learn",
    "torchmetrics",
)


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    import torch  # takes seconds, which a command that finds everything done need not spend

    return {
        "smplora": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PRINTED_LIBRARIES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
    }
