"""Model families of flow matching, one file each: a line below, and nothing else knows their names.

A family's file has PIPELINES (names of diffusers' pipelines that it reads), TITLE (what people call it), ``read`` (the
parts of a folder) and ``build`` (the model of these parts).
"""

from __future__ import annotations

from types import ModuleType

from smplora.models.families import z_image

FAMILIES: tuple[ModuleType, ...] = (z_image,)


def family_of_pipeline(name: str | None) -> ModuleType | None:
    """The family that reads pipelines of this class name; None: none does."""
    return next((family for family in FAMILIES if name in family.PIPELINES), None)
