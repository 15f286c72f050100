"""Tiny untrained image encoders, written as transformers writes the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from smplora.models.single_file import clip_tokenizer

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
                         "image_size": 32, "patch_size": 8}  # fmt: skip
TEXT: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def saved(kind: str, folder: Path) -> Any:
    """Write an untrained encoder with its preprocessing; returns its image side."""
    torch.manual_seed(0)
    whole: Any
    if kind == "deit":
        whole = transformers.DeiTModel(transformers.DeiTConfig(**SMALL))
        processor: Any = transformers.DeiTImageProcessor(
            size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}
        )
    elif kind == "dino":
        whole = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL))
        processor = transformers.BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    elif kind == "clip":
        whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=TEXT, vision_config=SMALL))
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        whole = transformers.BlipModel(transformers.BlipConfig(text_config=TEXT, vision_config=SMALL))
        processor = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    whole.save_pretrained(folder)
    processor.save_pretrained(folder)
    return getattr(whole, "vision_model", whole).eval()


def saved_clip(folder: Path) -> Any:
    """An untrained CLIP with its tokenizer and preparation."""
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**TEXT, "eos_token_id": 49407}, vision_config=SMALL, projection_dim=12
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(folder)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    clip_tokenizer("<|endoftext|>").save_pretrained(folder)
    return model
