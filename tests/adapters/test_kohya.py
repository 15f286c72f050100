"""Names in the kohya layout, for every module of the true configurations of SD 1.5, 2.1 and SDXL, text encoders too (on
the meta device). docs/formats.md says how the two programs' rules below were checked against the programs."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from smplora.adapters.files.kohya import SDXL, kohya_name, kohya_state, module_name, published_name
from smplora.adapters.files.original import diffusers_name, original_name
from smplora.models.diffusion import TARGETS

SD15 = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
SD21 = {**SD15, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
SDXL_BASE = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
UNETS = {"sd_v1": SD15, "sd_v2_v": SD21, SDXL: SDXL_BASE}
LAYERS = {"sd_v1": (12,), "sd_v2_v": (23,), SDXL: (12, 32)}  # of the text encoders
COUNTS = {"sd_v1": 192 + 12 * 6, "sd_v2_v": 192 + 23 * 6, SDXL: 722 + 44 * 6}
CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
FAMILIES = list(UNETS)


@cache
def adapted_modules(family: str) -> tuple[str, ...]:
    """Every module that the largest choice of targets adapts, as peft names it."""
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {"unet": UNet2DConditionModel(**UNETS[family])}
        for number, layers in enumerate(LAYERS[family]):
            config = CLIPTextConfig(
                hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4
            )
            name, kind = (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection))[number]
            parts[name] = kind(config)
    names = []
    for component, part in parts.items():
        wanted = TARGETS["all"] if component == "unet" else CLIP
        linear = (name for name, m in part.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
        names += [f"{component}.{name}" for name in linear if any(name.endswith(f".{target}") for target in wanted)]
    return tuple(names)


@cache
def place(module: str, family: str) -> str:
    """Where the program that runs the original checkpoint keeps a module's weight."""
    component, _, rest = published_name(module).partition(".")
    if component == "unet":
        return f"diffusion_model.{original_name(rest)}"
    encoder = "clip_h" if family == "sd_v2_v" else "clip_g" if component == "text_encoder_2" else "clip_l"
    return f"{encoder}.transformer.{rest}"


@pytest.mark.parametrize("family", FAMILIES)
def test_original_names_are_those_that_diffusers_reads(family: str) -> None:
    """diffusers' loader of original checkpoints puts the weights named so into the modules that we started from."""
    modules = [m.removeprefix("unet.") for m in adapted_modules(family) if m.startswith("unet.")]
    levels = len(UNETS[family]["block_out_channels"])  # type: ignore[arg-type]
    blocks = [f"{side}_blocks.{i}" for side in ("input", "output") for i in range(3 * levels)]
    blocks += [f"middle_block.{i}" for i in range(3)]
    weights = {f"model.diffusion_model.{block}.0.in_layers.0.weight": torch.tensor(-1) for block in blocks}
    weights |= {f"model.diffusion_model.{original_name(m)}.weight": torch.tensor(i) for i, m in enumerate(modules)}
    read = convert_ldm_unet_checkpoint(weights, {"layers_per_block": 2})
    found = {int(value): name for name, value in read.items() if value >= 0}
    assert [found[i] for i in range(len(modules))] == [f"{m}.weight" for m in modules]


@pytest.mark.parametrize("family", FAMILIES)
def test_comfyui_finds_every_module(family: str) -> None:
    """ComfyUI's rule (comfy/lora.py): ``lora_unet_`` and the path, of the original checkpoint or of diffusers; text
    encoders ``lora_te_``, ``lora_te1_``, ``lora_te2_`` and ``text_model_encoder_layers_N_..``."""
    modules = adapted_modules(family)
    assert len(modules) == len(set(modules)) == COUNTS[family]
    key_map = {}
    for module in modules:
        target, (component, _, rest) = place(module, family), module.partition(".")
        if component == "unet":
            paths = (target.removeprefix("diffusion_model."), rest)
            key_map |= {f"lora_unet_{path.replace('.', '_')}": target for path in paths}
        else:
            found = re.fullmatch(r"clip_([lgh])\.transformer\.text_model\.encoder\.layers\.(\d+)\.(.+)", target)
            assert found
            prefixes = ("lora_te2_",) if found[1] == "g" else ("lora_te_", "lora_te1_")
            layer = f"text_model_encoder_layers_{found[2]}_{found[3].replace('.', '_')}"
            key_map |= {f"{prefix}{layer}": target for prefix in prefixes}
    assert [key_map[kohya_name(m, family)] for m in modules] == [place(m, family) for m in modules]


def a1111(key: str, family: str) -> str:
    """The module that A1111 takes a key for (extensions-builtin/Lora/networks.py): dots are underscores, and OpenCLIP's
    names stand for the second encoder of SDXL and the only one of SD 2."""
    if found := re.fullmatch(r"lora_unet_(down|up)_blocks_(\d+)_attentions_(\d+)_(.+)", key):
        number = 3 * int(found[2]) + int(found[3]) + (found[1] == "down")
        return f"diffusion_model_{'input' if found[1] == 'down' else 'output'}_blocks_{number}_1_{found[4]}"
    if found := re.fullmatch(r"lora_unet_mid_block_attentions_0_(.+)", key):
        return f"diffusion_model_middle_block_1_{found[1]}"
    if found := re.fullmatch(r"lora_te(2?)_text_model_encoder_layers_(\d+)_(.+)", key):
        if found[1] or family.startswith("sd_v2"):
            part = found[3].replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj").replace("self_attn", "attn")
            return f"{'1_' if found[1] else ''}model_transformer_resblocks_{found[2]}_{part}"
        return f"transformer_text_model_encoder_layers_{found[2]}_{found[3]}"
    return key.replace("lora_unet", "diffusion_model").replace("lora_te1_text_model", "0_transformer_text_model")


@pytest.mark.parametrize("family", FAMILIES)
def test_a1111_finds_every_module(family: str) -> None:
    open_clip = {"fc1": "c_fc", "fc2": "c_proj"}
    for module in adapted_modules(family):
        found, original = a1111(kohya_name(module, family), family), place(module, family)
        if module.startswith("unet."):
            assert found == original.replace(".", "_")
        elif original.startswith("clip_l"):
            lone = original.removeprefix("clip_l.").replace(".", "_")
            assert found == (f"0_{lone}" if family == SDXL else lone)
        else:
            layer, block, part = original.split(".")[-3:]
            block = block.removeprefix("self_")
            expected = f"model_transformer_resblocks_{layer}_{block}_{open_clip.get(part, part)}"
            assert found == (f"1_{expected}" if family == SDXL else expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_can_be_read_back(family: str) -> None:
    modules = adapted_modules(family)
    assert [module_name(kohya_name(m, family)) for m in modules] == [published_name(m) for m in modules]
    if family == SDXL:  # some trainers give SDXL's U-Net diffusers' names
        assert [module_name(kohya_name(m, "sd_v1").replace("lora_te_", "lora_te1_")) for m in modules] == [
            published_name(m) for m in modules
        ]


@pytest.mark.parametrize(
    ("module", "original"),
    [  # read off the published SDXL checkpoint's layout
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.2.attentions.1.norm", "input_blocks.8.1.norm"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
    ],
)
def test_original_names(module: str, original: str) -> None:
    assert original_name(module) == original
    assert diffusers_name(original) == module


def test_unknown_modules() -> None:
    with pytest.raises(ValueError, match="no original name for conv_middle"):
        original_name("conv_middle")
    with pytest.raises(ValueError, match=r"vae\.conv begins with none of"):
        kohya_name("vae.conv", "sd_v1")
    with pytest.raises(ValueError, match="a U-Net with unequal blocks"):
        kohya_name("unet.mid_block.attentions.0.proj_in", SDXL, (1, 2))  # type: ignore[arg-type]


def test_state_has_the_true_alpha() -> None:
    module = "unet.mid_block.attentions.0.proj_in"
    state = {
        f"{module}.lora_A.weight": torch.ones(4, 8),
        f"{module}.lora_B.weight": torch.ones(6, 4),
        f"{module}.lora_magnitude_vector": torch.ones(6),
    }
    converted = kohya_state(state, scales={"unet": 8.0}, family="sd_v1")
    prefix = "lora_unet_mid_block_attentions_0_proj_in"
    assert {k: tuple(v.shape) for k, v in converted.items()} == {
        f"{prefix}.lora_down.weight": (4, 8), f"{prefix}.lora_up.weight": (6, 4), f"{prefix}.alpha": (),
        f"{prefix}.dora_scale": (6, 1),
    }  # fmt: skip
    assert converted[f"{prefix}.alpha"].item() == 32
