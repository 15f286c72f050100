"""Adapters of other models than Stable Diffusion 1.x, 2.x and SDXL, recognised by the names of their layers."""

from __future__ import annotations

import re
from collections.abc import Iterable

_START = r"(?:^|[._])"
OTHERS = (  # what occurs in the names, as dots or underscores divide them -> whose they are; the first one counts
    (rf"{_START}(double|single)_stream_blocks[._]", "HiDream"),
    (rf"{_START}joint_transformer_blocks[._]", "AuraFlow"),
    (rf"{_START}joint_blocks[._]|{_START}context_block[._]", "Stable Diffusion 3"),
    (rf"{_START}(img_attn_qkv|txt_attn_qkv|individual_token_refiner|token_refiner)", "HunyuanVideo"),
    (rf"{_START}(double_blocks|single_blocks|single_transformer_blocks)[._]", "FLUX, or another of its build"),
    (rf"{_START}(img_mlp|txt_mlp|img_mod|txt_mod)[._]", "Qwen-Image"),
    (rf"{_START}(noise_refiner|context_refiner|cap_embedder)[._]", "Z-Image or Lumina"),
    (r"(?:^|lora_unet_|lycoris_|transformer\.|diffusion_model\.)layers[._][0-9]+[._](attention|attn|feed_forward|adaLN)",
     "Z-Image or Lumina"),
    (r"(?:^|lora_unet_|lycoris_|transformer\.|diffusion_model\.|unet\.)blocks[._][0-9]+[._]", "Wan, Cosmos or another"
     " video transformer"),
    (rf"{_START}(lora_prior|prior_unet)[._]|^prior[._]", "Stable Cascade"),
    (rf"{_START}(motion_modules|temporal_transformer_blocks|temporal_attentions)[._]", "AnimateDiff or Stable Video"
     " Diffusion"),
    (rf"{_START}(controlnet|control_model|controlnet_cond_embedding|zero_convs)[._]", "a ControlNet"),
    (r"to_[kv]_ip[._]|^image_proj[._]|^ip_adapter[._]", "an IP-Adapter"),
    (r"SelfAttention[._]|DenseReluDense[._]|^(lora_te3_|text_encoder_3\.|t5xxl\.)", "a T5 text encoder (of Stable"
     " Diffusion 3, FLUX and others)"),
    (r"(?:^|[._])model[._]layers[._][0-9]+[._]", "a language model"),
    (r"^(base_model\.model\.)?((transformer|diffusion_model|unet)\.|lora_transformer_|lora_unet_|lycoris_)?"
     r"transformer_blocks[._]|^(transformer\.|lora_transformer_)", "a diffusion transformer (such as Stable Diffusion"
     " 3, FLUX, Qwen-Image, PixArt or LTX)"),
)  # fmt: skip
_PATTERNS = [(re.compile(mark, re.MULTILINE), family) for mark, family in OTHERS]


def other_family(names: Iterable[str]) -> str | None:
    """Whose layers ``names`` are, if they are those of another family; None: of none that is known."""
    text = "\n".join(names)
    return next((family for mark, family in _PATTERNS if mark.search(text)), None)
