"""Linear layers of a frozen network in 8 or 4 bits, by bitsandbytes, as diffusers' ``BitsAndBytesConfig`` makes them
(Dettmers et al. 2022, LLM.int8(); Dettmers et al. 2023, QLoRA: NF4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

OUTLIERS = 6.0  # inputs above this are multiplied in 16 bits: LLM.int8(), section 3.2, and diffusers' default


def quantise(network: nn.Module, bits: str, dtype: torch.dtype) -> None:
    """Put a layer of bitsandbytes in the place of each linear one. Its weights are rounded when the network is moved to
    the device that it computes on, and can no longer be learned.

    Args:
        bits: "8bit" or "4bit" (NF4, with the scales of its blocks in 8 bits).
        dtype: what is computed in.
    """
    for module in [*network.modules()]:
        for name, layer in [*module.named_children()]:
            if type(layer) is nn.Linear:
                setattr(module, name, _layer(layer, bits, dtype))
    setattr(network, f"is_loaded_in_{bits}", True)  # peft asks, to add low-rank pairs that know such layers


def _layer(layer: nn.Linear, bits: str, dtype: torch.dtype) -> nn.Module:
    import bitsandbytes as bnb

    sizes, weight = (layer.in_features, layer.out_features), layer.weight.data
    new: Any
    with torch.device("meta"):
        if bits == "4bit":
            new = bnb.nn.Linear4bit(*sizes, bias=False, compute_dtype=dtype, quant_type="nf4")
        else:
            new = bnb.nn.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False, threshold=OUTLIERS)
    if bits == "4bit":
        new.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=new)
        new.support_avx512bf16_for_cpu = False  # its packing on some processors fails for narrow layers
    else:
        new.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    new.bias = layer.bias
    made: nn.Module = new
    return made
