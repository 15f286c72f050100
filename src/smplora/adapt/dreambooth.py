"""DreamBooth (Ruiz et al. 2023): every weight is trained, on captions with a rare token and on images of the class that
the base model drew. What is trained is full fine-tuning's; captions and class images are options (config/dreambooth.py)
that go with every adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from smplora.adapt.full import FullAdaptation


@dataclass
class DreamBoothAdaptation(FullAdaptation):
    """``FullAdaptation`` under its name in the paper's Table 9."""

    tags: ClassVar[tuple[str, ...]] = ("dreambooth",)
