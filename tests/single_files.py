"""Diffusers folders rewritten as single files in the original layout, by its naming rule; the inverse of what diffusers
does when it reads one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE = [
    (r"^(\w+coder)\.mid_block\.resnets\.(\d)", lambda m: f"{m[1]}.mid.block_{int(m[2]) + 1}"),
    (r"\.mid_block\.attentions\.0", ".mid.attn_1"),
    (r"\.down_blocks\.(\d)\.resnets\.(\d)", r".down.\1.block.\2"),
    (r"\.down_blocks\.(\d)\.downsamplers\.0", r".down.\1.downsample"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"group_norm", "norm"),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
]
OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.": "token_embedding.",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm": "ln_",
    "self_attn.": "attn.",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def unet_name(name: str, layers: int) -> str:
    """Blocks are numbered through: each down block has ``layers`` of them and a downsampler, each up block one more."""
    for ours, theirs in ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    side, block, kind, index, rest = re.match(r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.*)", name).groups()  # type: ignore[union-attr]
    if kind == "resnets":
        part, _, end = rest.partition(".")
        rest = f"{RESNET[part]}.{end}"
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{rest}"
    slot = 1 if kind == "attentions" else 0
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.{rest.replace('conv', 'op')}"
        return f"input_blocks.{1 + int(block) * (layers + 1) + int(index)}.{slot}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{int(block) * (layers + 1) + layers}.UP.{rest}"  # after the attention, if there is one
    return f"output_blocks.{int(block) * (layers + 1) + int(index)}.{slot}.{rest}"


def unet(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The U-Net's part of the file."""
    named = {unet_name(name, layers): tensor for name, tensor in state.items()}
    attended = {name.partition(".1.transformer_blocks.")[0] for name in named if ".1.transformer_blocks." in name}
    return {
        "model.diffusion_model." + name.replace(".UP.", ".2." if name.split(".UP.")[0] in attended else ".1."): tensor
        for name, tensor in named.items()
    }


def vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's part: the decoder's blocks are counted backwards, its attention is a 1 x 1 convolution."""
    blocks = 1 + max(int(m[1]) for name in state if (m := re.match(r"decoder\.up_blocks\.(\d)", name)))

    def up(match: re.Match[str]) -> str:
        return f".up.{blocks - 1 - int(match[1])}"

    content = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in VAE:
            new = re.sub(pattern, replacement, new)
        new = re.sub(r"\.up_blocks\.(\d)", up, new).replace(".resnets.", ".block.").replace("upsamplers.0", "upsample")
        convolution = ".attn_1." in new and new.endswith("weight") and ".norm." not in new
        content[f"first_stage_model.{new}"] = tensor[:, :, None, None] if convolution else tensor
    return content


def clip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """CLIP as transformers names it."""
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state.items()}


def open_clip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """CLIP as open_clip names it: query, key and value in one matrix, the projection transposed."""
    content: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        new = name.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP.items():
            new = new.replace(ours, theirs)
        if match := re.match(r"(.*attn\.)([qkv])_proj\.(weight|bias)", new):
            parts.setdefault(f"{match[1]}in_proj_{match[3]}", {})[match[2]] = tensor
        elif name == "text_projection.weight":
            content["text_projection"] = tensor.T
        else:
            content[new] = tensor
    content |= {name: torch.cat([qkv[k] for k in "qkv"]) for name, qkv in parts.items()}
    return {prefix + name: tensor for name, tensor in content.items()}


def single_file(family: str, folder: Path, file: Path, metadata: dict[str, str] | None = None, layers: int = 1) -> Path:
    """Write ``folder``'s weights as one file, with the buffers that published files carry too."""

    def read(part: str) -> dict[str, Tensor]:
        return load_file(next((folder / part).glob("*.safetensors")))

    content = unet(read("unet"), layers) | vae(read("vae")) | {"alphas_cumprod": torch.zeros(1000)}
    if family == "sdxl":
        content |= clip(read("text_encoder"), "conditioner.embedders.0.transformer.")
        content |= open_clip(read("text_encoder_2"), "conditioner.embedders.1.model.")
    elif family.startswith("sd2"):
        content |= open_clip(read("text_encoder"), "cond_stage_model.model.")
        content["cond_stage_model.model.transformer.resblocks.23.ln_1.bias"] = torch.zeros(8)  # a layer nobody reads
    else:
        content |= clip(read("text_encoder"), "cond_stage_model.transformer.")
        content["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file({name: tensor.contiguous() for name, tensor in content.items()}, file, metadata)
    return file
