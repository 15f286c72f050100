"""Options of the audit's search for copies of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from smplora.config.checks import at_least


@dataclass(frozen=True, kw_only=True)
class MemorisationOptions:
    memorisation: Optional[bool] = None
    """Generate images from the training captions and look for copies of training images; docs/auditing.md says at what cost. Default: only for --tier strong."""
    memorisation_images: int = 4
    """Images to generate for each training image, from its caption."""
    memorisation_captions: int = 500
    """Training images whose captions are generated from: a random choice where there are more."""
    memorisation_steps: int = 25
    """DDIM steps per image."""
    memorisation_guidance: Optional[float] = None
    """Classifier-free guidance of these images; 1 is none. Default: 7.5; 1 for the bundled model and flow matching."""


def memorisation_problems(config: MemorisationOptions) -> list[str]:
    """What is wrong, one line each."""
    return [
        *at_least(config, ("memorisation_images", "memorisation_captions", "memorisation_steps"), 1),
        *at_least(config, ("memorisation_guidance",), 1),
    ]
