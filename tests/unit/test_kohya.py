"""Names in the kohya layout, for every module of the true SD 1.5 and SDXL configurations (on the meta device)."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from torch import nn

from smplora.adapt.lora import TARGETS
from smplora.kohya import SDXL, kohya_name, kohya_state, original_name

SD15 = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
SDXL_BASE = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip


def adapted_modules(config: dict[str, object]) -> list[str]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    modules = (name for name, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return [name for name in modules if any(name.endswith(f".{target}") for target in TARGETS["all"])]


def test_sd15_names_are_diffusers_paths_with_underscores() -> None:
    modules = adapted_modules(SD15)
    assert len(modules) == 192  # 128 of them attention projections
    names = {kohya_name(m, "sd_v1") for m in modules}
    assert len(names) == 192
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0" in names
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj" in names
    assert "lora_unet_up_blocks_3_attentions_2_proj_in" in names


def test_sdxl_names_are_mapped_back_by_diffusers() -> None:
    """diffusers' own reader turns the original names into those we started from, for every module."""
    modules = adapted_modules(SDXL_BASE)
    assert len(modules) == 722
    state = {f"{kohya_name(m, SDXL)}.lora_down.weight": torch.tensor(i) for i, m in enumerate(modules)}

    class Config:
        layers_per_block = 2

    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(state), Config)
    names = {value.item(): key for key, value in mapped.items()}
    sides = {"input_blocks": "down_blocks", "output_blocks": "up_blocks", "middle_block": "mid_block"}
    for i, module in enumerate(modules):
        for original, diffusers in sides.items():
            names[i] = names[i].replace(original, diffusers)  # the last step of diffusers' reader
        assert names[i] == f"lora_unet_{module.replace('.', '_')}.lora_down.weight"


@pytest.mark.parametrize(
    ("module", "original"),
    [  # read off the published SDXL checkpoint's layout
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.2.attentions.1.norm", "input_blocks.8.1.norm"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("mid_block.resnets.1.conv1", "middle_block.2.conv1"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
        ("up_blocks.1.resnets.0.conv1", "output_blocks.3.0.conv1"),
    ],
)
def test_original_names(module: str, original: str) -> None:
    assert original_name(module) == original


def test_unknown_module() -> None:
    with pytest.raises(ValueError, match="no original name for conv_in"):
        original_name("conv_in")


def test_state_has_the_true_alpha() -> None:
    state = {
        "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(4, 8),
        "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(8, 4),
    }
    converted = kohya_state(state, alpha=32, family="sd_v1")
    prefix = "lora_unet_mid_block_attentions_0_proj_in"
    assert {k: tuple(v.shape) for k, v in converted.items()} == {
        f"{prefix}.lora_down.weight": (4, 8), f"{prefix}.lora_up.weight": (8, 4), f"{prefix}.alpha": (),
    }  # fmt: skip
    assert converted[f"{prefix}.alpha"].item() == 32
