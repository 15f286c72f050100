"""Where the layers of diffusers' U-Net stand in the original checkpoint (CompVis, Stability's sgm), which kohya's SDXL
files, ComfyUI and A1111 name them after. Pure functions, checked against diffusers' own conversion.

With n = layers + 1, down block i, layer j is ``input_blocks.(1 + n i + j)`` (block 0 is the first convolution, and
each level ends with its downsampler) and up block i, layer j is ``output_blocks.(n i + j)``; in both the resnet is part
0 and the attention part 1. An upsampler is the last part of its level's last block. The middle is resnet, attention,
resnet.
"""

from __future__ import annotations

import re

ALONE = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
ROOTS = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")
SIDES = {"input": "down", "output": "up"}
_ALONE, _RESNET, _MIDDLE, _SIDES = (
    {new: old for old, new in names.items()} for names in (ALONE, RESNET, MIDDLE, SIDES)
)
_OLD = re.compile(r"(input|output)_blocks\.([0-9]{1,3})\.([012])\.(.+)")
_OLD_MIDDLE = re.compile(r"middle_block\.([012])\.(.+)")
_NEW = re.compile(r"(down|up)_blocks\.([0-9]{1,3})\.(attentions|resnets)\.([0-9]{1,3})\.(.+)")
_NEW_MIDDLE = re.compile(r"mid_block\.((?:attentions|resnets)\.[01])\.(.+)")
_DOWNSAMPLER = re.compile(r"down_blocks\.([0-9]{1,3})\.downsamplers\.0\.conv")


def original_name(module: str, layers_per_block: int = 2) -> str:
    """Where a module of diffusers' U-Net stands in the original checkpoint.

    Raises:
        ValueError: no such module; an upsampler, whose place depends on what else the model has; unequal blocks.
    """
    _check(layers_per_block)
    found = None
    if module in _ALONE:
        found = _ALONE[module]
    elif match := _NEW_MIDDLE.fullmatch(module):
        place, rest = match.groups()
        inner = _RESNET.get(rest) if place.startswith("resnets") else rest
        found = f"middle_block.{_MIDDLE[place]}.{inner}" if inner and place in _MIDDLE else None
    elif match := _DOWNSAMPLER.fullmatch(module):
        found = f"input_blocks.{(layers_per_block + 1) * (int(match[1]) + 1)}.0.op"
    elif match := _NEW.fullmatch(module):
        side, i, kind, j, rest = match.groups()
        number = (layers_per_block + 1) * int(i) + int(j) + (side == "down")
        inner = _RESNET.get(rest) if kind == "resnets" else rest
        found = f"{_SIDES[side]}_blocks.{number}.{int(kind == 'attentions')}.{inner}" if inner else None
    if found is None:
        raise ValueError(f"no original name for {module}")
    return found


def diffusers_name(original: str, layers_per_block: int = 2) -> str:
    """The inverse of ``original_name``, of upsamplers too.

    Raises:
        ValueError: no such module, or unequal blocks.
    """
    _check(layers_per_block)
    found = ALONE.get(original)
    if match := _OLD_MIDDLE.fullmatch(original):
        place, rest = match.groups()
        inner = RESNET.get(rest) if MIDDLE[place].startswith("resnets") else rest
        found = f"mid_block.{MIDDLE[place]}.{inner}" if inner else None
    elif found is None and (match := _OLD.fullmatch(original)):
        side, number, part, rest = match.groups()
        i, j = divmod(int(number) - (side == "input"), layers_per_block + 1)
        found = _in_a_block(f"{SIDES[side]}_blocks.{i}", j, part, rest, layers_per_block) if i >= 0 else None
    if found is None:
        raise ValueError(f"no module of diffusers' U-Net for {original}")
    return found


def _in_a_block(block: str, j: int, part: str, rest: str, layers: int) -> str | None:
    if j == layers and (part, rest) == ("0", "op"):
        return f"{block}.downsamplers.0.conv"
    if j == layers and part != "0" and rest == "conv":
        return f"{block}.upsamplers.0.conv"
    if rest in ("op", "conv") or (j == layers and block.startswith("down")):
        return None
    if part == "0" and rest in RESNET:
        return f"{block}.resnets.{j}.{RESNET[rest]}"
    return f"{block}.attentions.{j}.{rest}" if part == "1" else None


def _check(layers_per_block: int) -> None:
    if not isinstance(layers_per_block, int):
        raise ValueError("a U-Net with unequal blocks has no kohya names")
