"""The kohya layout of adapter files, which ComfyUI, Forge and A1111 read: names, alpha, metadata. Pure functions.

A module ``unet.down_blocks.0.attentions.0.proj_in`` becomes ``lora_unet_down_blocks_0_attentions_0_proj_in``; SDXL
files use the names of the original checkpoint instead (``lora_unet_input_blocks_4_1_proj_in``). Text encoders are
``lora_te_text_model_...``, or ``lora_te1_`` and ``lora_te2_`` where there are two. Each module has ``lora_down.weight``
[r, in, ...], ``lora_up.weight`` [out, r, ...] and ``alpha``, a scalar; DoRA adds ``dora_scale`` [out, 1, ...].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
PREFIXES = {  # and the component that they stand for
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_SIDES = {"down": "input", "up": "output"}
_ATTENTION = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.(.+)")
_MIDDLE_ATTENTION = "mid_block.attentions.0."
_ORIGINAL_ATTENTION = re.compile(r"(input|output)_blocks\.(\d+)\.1\.(.+)")
_ORIGINAL_MIDDLE = "middle_block.1."
# names that hold an underscore themselves: what makes ``lora_unet_up_blocks_1_..`` readable again
_COMPOUND = (
    *("down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "transformer_blocks"),
    *("to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out"),
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection"),
)
_PART = re.compile(rf"(?:{'|'.join(sorted(_COMPOUND, key=len, reverse=True))})(?=_|$)|[^_]+")


def original_name(module: str, layers_per_block: int = 2) -> str:
    """Where an attention module of diffusers' U-Net stands in the original (sgm, CompVis) checkpoint.

    With n = layers + 1, down block i, layer j is ``input_blocks.(1 + n i + j)`` (block 0 is the first convolution, and
    each level ends with its downsampler) and up block i, layer j is ``output_blocks.(n i + j)``; in both the resnet is
    part 0 and the attention part 1. The middle is resnet, attention, resnet.

    Raises:
        ValueError: a module that is not in an attention block.
    """
    if not isinstance(layers_per_block, int):
        raise ValueError("a U-Net with unequal blocks has no kohya names")
    if match := _ATTENTION.fullmatch(module):
        side, i, j, rest = match.groups()
        number = (layers_per_block + 1) * int(i) + int(j) + (side == "down")
        return f"{_SIDES[side]}_blocks.{number}.1.{rest}"
    if module.startswith(_MIDDLE_ATTENTION):
        return _ORIGINAL_MIDDLE + module.removeprefix(_MIDDLE_ATTENTION)
    raise ValueError(f"no original name for {module}")


def diffusers_name(original: str, layers_per_block: int = 2) -> str:
    """The inverse of ``original_name``.

    Raises:
        ValueError: a module that is not in an attention block.
    """
    if match := _ORIGINAL_ATTENTION.fullmatch(original):
        side, number, rest = match.groups()
        down = side == "input"
        i, j = divmod(int(number) - down, layers_per_block + 1)
        return f"{'down' if down else 'up'}_blocks.{i}.attentions.{j}.{rest}"
    if original.startswith(_ORIGINAL_MIDDLE):
        return _MIDDLE_ATTENTION + original.removeprefix(_ORIGINAL_MIDDLE)
    raise ValueError(f"no module of diffusers' attention blocks for {original}")


def published_name(module: str) -> str:
    """A module's name as files have it: text encoders always with ``text_model.``, which transformers left out of
    ``CLIPTextModel`` (not of ``CLIPTextModelWithProjection``) in version 5.6, and every reader still expects."""
    component, _, rest = module.partition(".")
    return f"{component}.text_model.{rest}" if component != "unet" and rest.startswith("encoder.") else module


def kohya_name(module: str, family: str, layers_per_block: int = 2) -> str:
    """A module's prefix in a kohya file.

    Args:
        module: component and module as peft names it: "unet.mid_block...", "text_encoder.encoder.layers.0...".
        family: "sd_v1", "sd_v2", "sd_v2_v" or "sdxl_base_v1-0".

    Raises:
        ValueError: not a component, or a module of SDXL's U-Net without an original name.
    """
    component, _, rest = published_name(module).partition(".")
    prefixes = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_" if family == SDXL else "lora_te_",
        "text_encoder_2": "lora_te2_",
    }
    if component not in prefixes:
        raise ValueError(f"{module} begins with none of {', '.join(prefixes)}")
    if component == "unet" and family == SDXL:
        rest = original_name(rest, layers_per_block)
    return prefixes[component] + rest.replace(".", "_")


def module_name(name: str, layers_per_block: int = 2) -> str:
    """The inverse of ``kohya_name`` for every family, also for the SDXL files that have diffusers' names: component and
    module, text encoders with ``text_model.``.

    Raises:
        ValueError: not such a name, or one of the original checkpoint outside the attention blocks.
    """
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    if prefix is None:
        raise ValueError(f"{name} begins with none of {', '.join(PREFIXES)}")
    module = ".".join(_PART.findall(name.removeprefix(prefix)))
    if module.startswith(("input_blocks.", "output_blocks.", "middle_block.")):
        module = diffusers_name(module, layers_per_block)
    return f"{PREFIXES[prefix]}.{module}"


def kohya_state(
    state: Mapping[str, Tensor], *, scales: Mapping[str, float], family: str, layers_per_block: int = 2
) -> dict[str, Tensor]:
    """peft's tensors (``unet.<module>.lora_A.weight``, ...) under kohya's names, with the alpha that makes every reader
    compute ``scale = alpha / rank``.

    Args:
        scales: what multiplies B A, by component ("unet", ...).
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, part = name.rpartition(".lora_")
        prefix = kohya_name(module, family, layers_per_block)
        if part.startswith("A"):
            converted[f"{prefix}.lora_down.weight"] = tensor
            alpha = scales[module.partition(".")[0]] * len(tensor)
            converted[f"{prefix}.alpha"] = torch.tensor(alpha)
        elif part.startswith("B"):
            converted[f"{prefix}.lora_up.weight"] = tensor
        else:  # magnitudes of the weight's rows, as LyCORIS writes them: peft has [out] or [1, out, 1, 1]
            ones = [1] * max(1, tensor.dim() - 1)
            converted[f"{prefix}.dora_scale"] = tensor.reshape(-1, *ones).contiguous()
    return converted


def kohya_metadata(*, rank: int, alpha: float, family: str, resolution: int, use_dora: bool = False) -> dict[str, str]:
    """What programs that read the file look for, and nothing about the images."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        **({"ss_network_args": '{"dora_wd": "True", "wd_on_output": "True"}'} if use_dora else {}),
        "ss_base_model_version": family,
        "ss_v2": str(family.startswith("sd_v2")),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[family],
        "modelspec.resolution": f"{resolution}x{resolution}",
    }
