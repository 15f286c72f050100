"""The kohya layout of adapter files, which ComfyUI, Forge and A1111 read: names, alpha, metadata. Pure functions.

A module ``down_blocks.0.attentions.0.proj_in`` becomes ``lora_unet_down_blocks_0_attentions_0_proj_in``; SDXL files use
the names of the original checkpoint instead (``lora_unet_input_blocks_4_1_proj_in``). Each module has
``lora_down.weight`` [r, in, ...], ``lora_up.weight`` [out, r, ...] and ``alpha``, a scalar.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SDXL = "sdxl_base_v1-0"
ARCHITECTURES = {  # of the Stability model specification
    "sd_v1": "stable-diffusion-v1/lora",
    "sd_v2": "stable-diffusion-v2-512/lora",
    "sd_v2_v": "stable-diffusion-v2-768-v/lora",
    SDXL: "stable-diffusion-xl-v1-base/lora",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(attentions|resnets)\.(\d+)\.(.*)")
_MIDDLE = re.compile(r"mid_block\.(attentions|resnets)\.(\d+)\.(.*)")


def original_name(module: str, layers_per_block: int = 2) -> str:
    """Where a module of diffusers' U-Net stands in the original (sgm, CompVis) checkpoint.

    With n = layers + 1, down block i, layer j is ``input_blocks.(1 + n i + j)`` (block 0 is the first convolution, and
    each level ends with its downsampler) and up block i, layer j is ``output_blocks.(n i + j)``; in both the resnet is
    part 0 and the attention part 1. The middle is resnet, attention, resnet.

    Raises:
        ValueError: a module that is not in one of these.
    """
    if not isinstance(layers_per_block, int):
        raise ValueError("a U-Net with unequal blocks has no kohya names")
    n = layers_per_block + 1
    if found := _BLOCK.fullmatch(module):
        side, i, kind, j, rest = found.groups()
        number = n * int(i) + int(j) + (side == "down")
        return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}.{rest}"
    if found := _MIDDLE.fullmatch(module):
        kind, j, rest = found.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(j)}.{rest}"
    raise ValueError(f"no original name for {module}")


def kohya_name(module: str, family: str, layers_per_block: int = 2) -> str:
    """The module's prefix in a kohya file of the family ("sd_v1", "sd_v2", "sd_v2_v", "sdxl_base_v1-0")."""
    path = original_name(module, layers_per_block) if family == SDXL else module
    return "lora_unet_" + path.replace(".", "_")


def kohya_state(state: dict[str, Tensor], *, alpha: float, family: str, layers_per_block: int = 2) -> dict[str, Tensor]:
    """peft's tensors (``unet.module.lora_A.weight``, ``.lora_B.weight``) under kohya's names, with the true alpha."""
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith("unet."):
            raise ValueError(f"no kohya name for {name}")
        module, _, part = name.removeprefix("unet.").rpartition(".lora_")
        prefix = kohya_name(module, family, layers_per_block)
        converted[f"{prefix}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = tensor
        converted[f"{prefix}.alpha"] = torch.tensor(float(alpha))
    return converted


def kohya_metadata(*, rank: int, alpha: float, family: str, resolution: int) -> dict[str, str]:
    """What programs that read the file look for, and nothing about the images."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": family,
        "ss_v2": str(family.startswith("sd_v2")),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[family],
        "modelspec.resolution": f"{resolution}x{resolution}",
    }
