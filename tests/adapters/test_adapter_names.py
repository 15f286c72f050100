"""Names of every layer of the U-Nets, diffusers' and the original checkpoint's, dotted and flat; other models."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from test_kohya import SDXL_BASE, UNETS

from smplora.adapters.files.families import other_family
from smplora.adapters.files.kohya import SDXL, known_module, kohya_name, module_name
from smplora.adapters.files.names import understand
from smplora.adapters.files.original import diffusers_name, original_name
from smplora.core.files import BUNDLED_FOLDER

TINY = {k: v for k, v in UNet2DConditionModel.load_config(BUNDLED_FOLDER / "unet").items() if not k.startswith("_")}
EVERY = {**UNETS, "tiny": TINY}


@cache
def weights(family: str) -> dict[str, str]:
    """Module -> its place in the original checkpoint, of everything that has weights."""
    config: dict[str, Any] = EVERY[family]
    with torch.device("meta"):
        network = UNet2DConditionModel(**config)
    places = {}
    for module in {name.rpartition(".")[0] for name, _ in network.named_parameters()}:
        if ".upsamplers." in module:  # behind the attention, where the level has one
            i = int(module.split(".")[1])
            part = 2 if config["up_block_types"][i].startswith("CrossAttn") else 1
            n = config["layers_per_block"] + 1
            places[module] = f"output_blocks.{n * i + n - 1}.{part}.conv"
        else:
            places[module] = original_name(module, config["layers_per_block"])
    return places


@pytest.mark.parametrize("family", EVERY)
def test_every_layer_has_the_name_that_diffusers_converts(family: str) -> None:
    config: dict[str, Any] = EVERY[family]
    places, numbers = weights(family), {}
    for number, place in enumerate(places.values()):
        for kind in ("weight", "bias"):
            numbers[f"model.diffusion_model.{place}.{kind}"] = torch.tensor(number)
    read = convert_ldm_unet_checkpoint(numbers, config)
    found = {name.removesuffix(".weight"): int(value) for name, value in read.items() if name.endswith(".weight")}
    assert found == {module: number for number, module in enumerate(places)}


@pytest.mark.parametrize("family", EVERY)
def test_every_layer_is_found_under_all_its_names(family: str) -> None:
    n = EVERY[family]["layers_per_block"]
    assert len(set(weights(family).values())) == len(weights(family))
    for module, place in weights(family).items():
        full = f"unet.{module}"
        assert diffusers_name(place, n) == module
        for name in (module, place):
            flat = name.replace(".", "_")
            assert module_name(f"lora_unet_{flat}", n) == module_name(f"lycoris_{flat}", n) == full
            keys = {
                f"unet.{name}.lora_down.weight": "A",
                f"diffusion_model.{name}.lora_A.weight": "A",
                f"unet.base_model.model.{name}.lora_B.weight": "B",
                f"lora_unet_{flat}.hada_w1_a": "hada_w1_a",
                f"{name}.lokr_t2.default": "lokr_t2",
                f"base_model.model.{name}.lora_B.default.weight": "B",
            }
            for key, part in keys.items():
                assert understand([key], n).parts == {full: {part: key}}


@pytest.mark.parametrize("wrong", ["input_blocks.0.1.x", "input_blocks.3.0.in_layers.2", "input_blocks.1.2.x", "out.1",
                                   "middle_block.0.x", "output_blocks.1.1.conv", "input_blocks.1.0.op"])  # fmt: skip
def test_names_that_the_original_has_not(wrong: str) -> None:
    with pytest.raises(ValueError, match="no module of diffusers' U-Net for"):
        diffusers_name(wrong)


def test_a_text_encoders_layers() -> None:
    for rest in ("encoder.layers.3.mlp.fc1", "encoder.layers.11.layer_norm2", "final_layer_norm",
                 "embeddings.position_embedding"):  # fmt: skip
        full = f"text_encoder_2.text_model.{rest}"
        flat = f"text_model.{rest}".replace(".", "_")
        assert module_name(f"lora_te2_{flat}") == known_module(f"text_encoder_2.{rest}") == full
        assert understand([f"clip_g.text_model.{rest}.diff"]).parts == {
            full: {"weight": f"clip_g.text_model.{rest}.diff"}
        }


OTHERS = {
    "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": "FLUX",
    "lora_unet_single_blocks_7_linear1.lora_up.weight": "FLUX",
    "diffusion_model.double_blocks.0.img_mod.lin.lora_A.weight": "FLUX",
    "transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": "FLUX",
    "lora_transformer_single_transformer_blocks_0_attn_to_k.alpha": "FLUX",
    "lora_unet_joint_blocks_0_context_block_attn_qkv.lora_down.weight": "Stable Diffusion 3",
    "transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": "a diffusion transformer",
    "base_model.model.transformer_blocks.0.attn1.to_q.lora_A.weight": "a diffusion transformer",
    "lycoris_transformer_blocks_0_attn_to_q.lokr_w1": "a diffusion transformer",
    "diffusion_model.transformer_blocks.0.img_mlp.net.2.lora_B.weight": "Qwen-Image",
    "diffusion_model.layers.0.attention.to_q.lora_A.weight": "Z-Image",
    "transformer.noise_refiner.0.attention.to_q.lora_A.weight": "Z-Image",
    "diffusion_model.blocks.0.self_attn.q.lora_A.weight": "Wan",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": "a language model",
    "lora_te3_encoder_block_0_layer_0_SelfAttention_k.alpha": "a T5 text encoder",
    "lora_prior_unet_blocks_0.alpha": "Stable Cascade",
    "unet.down_blocks.0.motion_modules.0.proj_in.lora_A.weight": "AnimateDiff",
}


@pytest.mark.parametrize("key", OTHERS)
def test_adapters_of_other_models_are_told_whose_they_are(key: str) -> None:
    if "motion_modules" not in key:  # of which the rest is Stable Diffusion's: the base model has no such layer
        with pytest.raises(ValueError, match=OTHERS[key]):
            understand(["lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", key])
    assert OTHERS[key] in (other_family([key]) or "")


def test_no_layer_of_ours_is_taken_for_anothers() -> None:
    for family in UNETS:
        for module, place in weights(family).items():
            for name in (module, place, place.replace(".", "_")):
                assert other_family([f"lora_unet_{name}", f"unet.{name}", f"diffusion_model.{name}"]) is None


@pytest.mark.parametrize("family", ["sd_v1", SDXL])
@pytest.mark.parametrize("module", ["unet.transformer_blocks.0.attn.to_q", "unet.double_blocks.0.img_attn.proj",
                                    "text_encoder.encoder.block.0.layer.0.SelfAttention.q"])  # fmt: skip
def test_other_models_are_never_written(module: str, family: str) -> None:
    with pytest.raises(ValueError, match="in no part of Stable Diffusion"):
        kohya_name(module, family)


def test_deep_transformers_are_no_exception() -> None:
    assert SDXL_BASE["transformer_layers_per_block"][-1] == 10
    flat = "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_out_0"
    assert module_name(flat) == "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0"
