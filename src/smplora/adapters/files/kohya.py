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

from smplora.adapters.files.families import other_family
from smplora.adapters.files.original import ROOTS, diffusers_name, original_name

if TYPE_CHECKING:
    from torch import Tensor

SDXL = "sdxl_base_v1-0"
TRANSFORMER = "transformer"
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
    "lycoris_unet_": "unet",  # LyCORIS' own, of whatever network it was told to wrap
    "lycoris_text_encoder_2_": "text_encoder_2",
    "lycoris_text_encoder_": "text_encoder",
    "lycoris_te_": "text_encoder",
    "lycoris_": "",
}
UNET_ROOTS = (
    *("down_blocks.", "mid_block.", "up_blocks.", "time_embedding.", "add_embedding."),
    *("conv_in", "conv_out", "conv_norm_out"),
)
TEXT_ROOTS = (
    *("text_model.encoder.layers.", "text_model.embeddings.", "text_model.final_layer_norm"),
    "text_projection",
)
# names that hold an underscore themselves: what makes ``lora_unet_up_blocks_1_..`` readable again
_COMPOUND = (
    *("down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "transformer_blocks"),
    *("to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out", "time_emb_proj", "conv_shortcut"),
    *("conv_in", "conv_out", "conv_norm_out", "time_embedding", "add_embedding", "linear_1", "linear_2"),
    *("time_embed", "label_emb", "in_layers", "out_layers", "emb_layers", "skip_connection"),
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection"),
    *("layer_norm1", "layer_norm2", "final_layer_norm", "token_embedding", "position_embedding"),
)
_NAME = re.compile(rf"(?:{'|'.join(sorted(_COMPOUND, key=len, reverse=True))})(?=_|$)|[^_]+")


def published_name(module: str) -> str:
    """A module's name as files have it: text encoders always with ``text_model.``, which transformers left out of
    ``CLIPTextModel`` (not of ``CLIPTextModelWithProjection``) in version 5.6, and every reader still expects."""
    component, _, rest = module.partition(".")
    inside = rest.startswith(("encoder.", "embeddings.", "final_layer_norm"))
    return f"{component}.text_model.{rest}" if component.startswith("text_encoder") and inside else module


def known_module(module: str, layers_per_block: int = 2) -> str:
    """A module's full name as diffusers and transformers have it, text encoders with ``text_model.``.

    Args:
        module: component and name in it, that of the original checkpoint too: "unet.input_blocks.1.1.proj_in"; without
            a component where the name tells it.

    Raises:
        ValueError: it is in no part of the models that smplora knows.
    """
    component, _, rest = module.partition(".")
    if component not in ("unet", "text_encoder", "text_encoder_2"):
        text = module.startswith(("text_model.", "encoder.layers."))
        component, rest = "text_encoder" if text else "unet", module
    if component == "unet" and rest.startswith(ROOTS):
        rest = diffusers_name(rest, layers_per_block)
    name = published_name(f"{component}.{rest}")
    if not name.removeprefix(f"{component}.").startswith(UNET_ROOTS if component == "unet" else TEXT_ROOTS):
        family = other_family([module])
        raise ValueError(
            f"{module} is in no part of Stable Diffusion 1.x, 2.x or SDXL that smplora adapts"
            + (f": it is of {family}" if family else "")
        )
    return name


def kohya_name(module: str, family: str, layers_per_block: int = 2) -> str:
    """A module's prefix in a kohya file. Transformers keep diffusers' names, which ComfyUI has for all of them.

    Args:
        module: component and module as peft names it: "unet.mid_block...", "text_encoder.encoder.layers.0...".
        family: "sd_v1", "sd_v2", "sd_v2_v" or "sdxl_base_v1-0".

    Raises:
        ValueError: not a component, a module of another model, or one of SDXL's U-Net without an original name.
    """
    component = module.partition(".")[0]
    if component == TRANSFORMER:
        return module
    prefixes = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_" if family == SDXL else "lora_te_",
        "text_encoder_2": "lora_te2_",
    }
    if component not in prefixes:
        raise ValueError(f"{module} begins with none of {', '.join(prefixes)}")
    rest = known_module(module, layers_per_block).removeprefix(f"{component}.")
    if component == "unet" and family == SDXL:
        rest = original_name(rest, layers_per_block)
    return prefixes[component] + rest.replace(".", "_")


def module_name(name: str, layers_per_block: int = 2) -> str:
    """The inverse of ``kohya_name`` for every family, also for the SDXL files that have diffusers' names: component and
    module, text encoders with ``text_model.``.

    Raises:
        ValueError: not such a name, or a module of another model.
    """
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    if prefix is None:
        raise ValueError(f"{name} begins with none of {', '.join(PREFIXES)}")
    flat = name.removeprefix(prefix)
    module = ".".join(_NAME.findall(flat))
    if module.replace(".", "_") != flat:
        raise ValueError(f"{name} is no module's name")
    return known_module(f"{PREFIXES[prefix]}.{module}" if PREFIXES[prefix] else module, layers_per_block)


def kohya_state(
    state: Mapping[str, Tensor], *, scales: Mapping[str, float], family: str, layers_per_block: int = 2
) -> dict[str, Tensor]:
    """peft's tensors (``unet.<module>.lora_A.weight``, ...) under kohya's names, with the alpha that makes every reader
    compute ``scale = alpha / rank``.

    Args:
        scales: what multiplies B A, by component ("unet", ...).

    Raises:
        ValueError: a module or tensor without a kohya name.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, part = name.rpartition(".lora_")
        prefix = kohya_name(module, family, layers_per_block)
        if part == "A.weight":
            converted[f"{prefix}.lora_down.weight"] = tensor
            alpha = scales[module.partition(".")[0]] * len(tensor)
            converted[f"{prefix}.alpha"] = torch.tensor(alpha)
        elif part == "B.weight":
            converted[f"{prefix}.lora_up.weight"] = tensor
        elif part not in ("magnitude_vector", "magnitude_vector.weight"):
            raise ValueError(f"{name} has no kohya name")
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
        **({"modelspec.architecture": ARCHITECTURES[family]} if family in ARCHITECTURES else {}),
        "modelspec.resolution": f"{resolution}x{resolution}",
    }
