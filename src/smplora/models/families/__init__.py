"""Model families of flow matching, one file each: a line below, and nothing else knows their names.

A family's file has NAME (in files), TITLE (what people call it), TAG (on the hub), PIPELINES (diffusers' pipelines that
it reads, the one that adapters are loaded into first), ``read`` (the parts of a folder) and ``build`` (the model of
them).
"""

from __future__ import annotations

from types import ModuleType

from smplora.models.families import chroma, flux, flux2, flux2_dev, qwen_image, sd3, z_image

FAMILIES: tuple[ModuleType, ...] = (chroma, flux, flux2, flux2_dev, qwen_image, sd3, z_image)


def family_named(name: str) -> ModuleType | None:
    """The family of this NAME; None: it is none of flow matching."""
    return next((family for family in FAMILIES if name == family.NAME), None)


def family_of_pipeline(name: str | None) -> ModuleType | None:
    """The family that reads pipelines of this class name; None: none does."""
    return next((family for family in FAMILIES if name in family.PIPELINES), None)
