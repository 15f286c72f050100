"""Adapter files, in the layouts of diffusers (peft's names) and kohya: safetensors, and nothing about the images.

``load_lora_weights`` of diffusers' pipelines reads both with the right alpha for every choice of targets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from smplora.adapters.files import ADAPTER_FILE as ADAPTER_FILE
from smplora.adapters.files.kohya import TRANSFORMER, kohya_metadata, kohya_state, published_name
from smplora.core.files import BUNDLED
from smplora.core.version import __version__

KOHYA_FILE = "kohya_lora_weights.safetensors"  # the same adapter for ComfyUI, Forge and A1111
PRECISIONS = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OURS = "smplora_"  # how our own metadata begin


@dataclass(frozen=True)
class LoraSettings:
    """How the adapter of one component (U-Net, text encoder) was made: what a loader needs beside the tensors."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def scale(self) -> float:
        """What multiplies B A: alpha / r, or alpha / sqrt(r) where the adapter is rank-stabilised."""
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)

    def peft_config(self) -> dict[str, Any]:
        """As peft's ``LoraConfig`` takes them."""
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": list(self.targets),
            "use_rslora": self.use_rslora,
            "use_dora": self.use_dora,
        }


@dataclass(frozen=True)
class AdapterFacts:
    """What else an adapter file tells its user: of the base model and the training, never of the images."""

    objective: str
    family: str
    resolution: int
    base_model: str = ""  # a hub id, "the bundled model", or nothing: see ``public_name``
    layers_per_block: int = 2

    def metadata(self) -> dict[str, str]:
        """For the file's header; what is unknown is left out."""
        metadata = {
            "objective": self.objective,
            "family": self.family,
            "resolution": str(self.resolution),
            "base_model": self.base_model,
            "layers_per_block": str(self.layers_per_block),
            "version": __version__,
        }
        return {"format": "pt", **{f"{OURS}{name}": value for name, value in metadata.items() if value}}


def public_name(model: str) -> str:
    """What may be published of ``--pretrained_model_name_or_path``: a hub id ("name" or "user/name"), or what a
    bundled model is called; nothing of a path, absolute or not."""
    if model in BUNDLED:
        return BUNDLED[model][0]
    name = r"[A-Za-z0-9][A-Za-z0-9._-]*"
    is_id = re.fullmatch(f"{name}(/{name})?", model) and not model.endswith((".safetensors", ".ckpt"))
    return model if is_id and not Path(model).exists() else ""


def adapter_bytes(
    state: Mapping[str, Tensor],
    components: Mapping[str, LoraSettings],
    facts: AdapterFacts,
    *,
    precision: str = "float",
) -> bytes:
    """The content of the file in diffusers' layout, a function of its arguments alone.

    Args:
        state: tensors under full names, "unet.<module>.lora_A.weight", "text_encoder...", "text_encoder_2...".
        components: how each component that is in ``state`` was adapted.
        precision: storage, "float" (exact), "fp16" or "bf16".
    """
    loader = {f"{name}.{k}": v for name, settings in components.items() for k, v in settings.peft_config().items()}
    metadata = {"lora_adapter_metadata": json.dumps(loader, sort_keys=True), **facts.metadata()}
    return _packed({_diffusers_key(name): tensor for name, tensor in state.items()}, metadata, precision)


def _diffusers_key(name: str) -> str:
    """transformers reads a text encoder's magnitudes under their parameter's full name, diffusers the U-Net's under
    peft's short one."""
    long = name.endswith(".lora_magnitude_vector") and not name.startswith(("unet.", "transformer."))
    return published_name(f"{name}.weight" if long else name)


def needs_kohya(components: Mapping[str, LoraSettings]) -> bool:
    """Whether ComfyUI would lose something of the file in diffusers' layout. It finds the names of transformers in it,
    but reads no alpha from a header, where diffusers keeps it, and no magnitudes of peft's."""
    return any(name != TRANSFORMER or own.scale != 1 or own.use_dora for name, own in components.items())


def kohya_bytes(
    state: Mapping[str, Tensor],
    components: Mapping[str, LoraSettings],
    facts: AdapterFacts,
    *,
    precision: str = "float",
) -> bytes:
    """The content of the file for ComfyUI, Forge and A1111, a function of its arguments alone (see kohya.py).

    Raises:
        ValueError: the model has modules without kohya names.
    """
    scales = {name: settings.scale for name, settings in components.items()}
    tensors = kohya_state(state, scales=scales, family=facts.family, layers_per_block=facts.layers_per_block)
    shown = components.get("unet") or next(iter(components.values()))
    metadata = kohya_metadata(
        rank=shown.rank,
        alpha=shown.scale * shown.rank,
        family=facts.family,
        resolution=facts.resolution,
        use_dora=shown.use_dora,
    )
    if "/" in facts.base_model:
        metadata["ss_sd_model_name"] = facts.base_model
    return _packed(tensors, {**metadata, **facts.metadata()}, precision)


def _packed(tensors: Mapping[str, Tensor], metadata: dict[str, str], precision: str) -> bytes:
    """A safetensors file with sorted metadata: the library writes them in random order, and a file that is a function
    of its content can be compared and signed. Every alpha stays fp32: its rounding would scale the whole adapter."""
    stored = {
        name: tensor.contiguous() if name.endswith(".alpha") else tensor.to(PRECISIONS[precision]).contiguous()
        for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(stored, metadata)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def stored(tensors: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """The tensors as numbers of ``precision``, on the CPU."""
    return {name: t.detach().to("cpu", PRECISIONS[precision]).contiguous() for name, t in tensors.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], precision: str) -> None:
    """A safetensors file of any size, not atomically; its header is sorted in place (see ``_packed``)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(stored(tensors, precision), path, metadata)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(length))
