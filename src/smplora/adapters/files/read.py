"""Reads adapter files of any trainer: diffusers (all its layouts), peft and kohya. safetensors only.

Whatever the layout, the result has full names as peft makes them, and for every module the alpha that counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from smplora.adapters.files.kohya import PREFIXES, module_name, published_name
from smplora.core.errors import CheckpointError
from smplora.core.files import PICKLED_ADAPTER, no_pickle

PEFT_CONFIG = "adapter_config.json"  # what peft's save_pretrained writes beside the tensors
FOREIGN = {  # parts of a name -> what the file holds instead of a low-rank adapter of linear layers
    ".hada_": "LoHa (Hadamard products)",
    ".lokr_": "LoKr (Kronecker products)",
    ".oft_": "OFT (orthogonal rotations)",
    ".lora_mid.": "a LoCon with a Tucker decomposition",
    ".diff": "whole weights",
    ".on_input": "IA3",
}
_OLD = re.compile(r"(.+?)(?:\.processor)?\.(to_[qkv]|to_out)_lora\.(down|up)\.weight")
_DIFFUSERS = re.compile(r"(.+?)\.(?:lora|lora_linear_layer)\.(down|up)\.weight")
_PEFT = re.compile(r"(.+?)\.lora_(A|B|magnitude_vector)(?:\.\w+)??(?:\.weight)?")
_RESIDUAL = re.compile(r"_(resnets|(down|up)samplers|(in|out|emb)_layers|skip_connection|op|conv)(_|$)")
_KOHYA = {"lora_down.weight": "A", "lora_up.weight": "B", "dora_scale": "dora_scale", "alpha": "alpha"}
_TEXT_MODEL = re.compile(r"(?<=^text_encoder\.)text_model\.|(?<=^text_encoder_2\.)text_model\.")
Value = TypeVar("Value")
_SIDES = {"down": "A", "up": "B"}
_CLIP = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class AdapterFile:
    """A file's content: fp32 tensors under peft's full names, "unet.<module>.lora_A.weight", text encoders with
    ``text_model.``; ``alphas[module] / rank`` multiplies B A, whatever the file called it."""

    state: dict[str, Tensor]
    alphas: dict[str, float]
    layout: str  # "peft", "kohya" or "diffusers"
    metadata: dict[str, str]
    sha256: str

    @property
    def ranks(self) -> dict[str, int]:
        """By module."""
        return {n.removesuffix(".lora_A.weight"): len(t) for n, t in self.state.items() if n.endswith(".lora_A.weight")}


def named_as(state: Mapping[str, Value], known: Collection[str]) -> dict[str, Value]:
    """``state`` under the names of ``known``: with or without ``text_model.``, which differs between versions of
    transformers. Names that ``known`` has in neither form are kept."""
    by_name = {_TEXT_MODEL.sub("", name): name for name in known}
    return {by_name.get(_TEXT_MODEL.sub("", name), name): value for name, value in state.items()}


def read_adapter(path: Path, layers_per_block: int = 2) -> AdapterFile:
    """What an adapter file of any trainer holds.

    Args:
        layers_per_block: of the base model's U-Net; only SDXL files with the original checkpoint's names need it.

    Raises:
        CheckpointError: missing or damaged file, pickle, another kind of adapter, tensors that are not numbers.
    """
    pickled = no_pickle(str(path), "adapter", PICKLED_ADAPTER)
    if pickled:
        raise CheckpointError(pickled[0])
    try:
        content = path.read_bytes()
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"--adapter: there is no {path}; train one with 'smplora train'") from error
    except SafetensorError as error:
        raise CheckpointError(f"--adapter: {path} is damaged or no safetensors file ({error})") from error
    try:
        parts, layout = _parts(tensors, layers_per_block)
        state = _state(parts)
        alphas = _alphas(parts, _loader_settings(path, metadata), layout)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"--adapter: {path} cannot be used: {error}") from error
    check_finite(path, state)
    return AdapterFile(state, alphas, layout, metadata, hashlib.sha256(content).hexdigest())


Parts = dict[
    str, dict[str, Tensor]
]  # module -> {"A", "B", "alpha", "magnitude_vector" (peft's) or "dora_scale" (kohya's)}


def _parts(tensors: Mapping[str, Tensor], layers_per_block: int) -> tuple[Parts, str]:
    """Every module's tensors, and the layout's name."""
    parts: Parts = {}
    layouts = set()
    for key, tensor in tensors.items():
        module, part, layout = _understood(key, layers_per_block)
        parts.setdefault(published_name(module), {})[part] = tensor
        layouts.add(layout)
    if not parts:
        raise ValueError("it holds no tensors")
    return parts, next((name for name in ("kohya", "diffusers") if name in layouts), "peft")


def _understood(key: str, layers_per_block: int) -> tuple[str, str, str]:
    """(module, part, layout) of one name.

    Raises:
        ValueError: none of the layouts.
    """
    kind = next((what for mark, what in FOREIGN.items() if mark in key), None)
    if kind:
        raise ValueError(f"it holds {kind}, in {key} among others; smplora reads low-rank adapters of linear layers")
    if key.startswith(tuple(PREFIXES)):
        name, _, part = key.partition(".")
        if part not in _KOHYA:
            raise ValueError(f"{key} is in no layout that smplora knows (kohya, diffusers, peft)")
        if _RESIDUAL.search(name):
            raise ValueError(_locon(key))
        return module_name(name, layers_per_block), _KOHYA[part], "kohya"
    key = key.removeprefix("base_model.model.")
    if key.endswith(".alpha"):
        return _component(_old_module(key.removesuffix(".alpha"))), "alpha", "diffusers"
    if match := _OLD.fullmatch(key):
        return _component(_old_module(f"{match[1]}.{match[2]}")), _SIDES[match[3]], "diffusers"
    if match := _DIFFUSERS.fullmatch(key):
        return _component(_old_module(match[1])), _SIDES[match[2]], "diffusers"
    if match := _PEFT.fullmatch(key):
        return _component(match[1]), match[2], "peft"
    raise ValueError(f"{key} is in no layout that smplora knows (kohya, diffusers, peft)")


def _old_module(module: str) -> str:
    """Today's name of a module in a file of 2023, whose layers were named after the attention processor's."""
    owner, _, layer = module.replace(".processor.", ".").removesuffix("_lora").rpartition(".")
    if owner.endswith("self_attn"):
        return f"{owner}.{_CLIP.get(layer, layer)}"
    return f"{owner}.{layer}.0" if layer == "to_out" else f"{owner}.{layer}"


def _component(module: str) -> str:
    if module.startswith(("unet.", "text_encoder.", "text_encoder_2.")):
        return module
    if module.startswith(("down_blocks.", "mid_block.", "up_blocks.")):
        return f"unet.{module}"
    if module.startswith(("text_model.", "encoder.layers.")):
        return f"text_encoder.{module}"
    raise ValueError(f"{module} is in no part of Stable Diffusion 1.x, 2.x or SDXL that smplora adapts")


def _locon(key: str) -> str:
    return f"it adapts convolutions (LoCon), in {key} among others; smplora adapts linear layers and projections"


def _state(parts: Parts) -> dict[str, Tensor]:
    """peft's names; kohya's magnitudes in peft's shape."""
    state: dict[str, Tensor] = {}
    for module, own in parts.items():
        missing = {"A", "B"} - own.keys()
        if missing:
            raise ValueError(f"{module} lacks its lora_{sorted(missing)[0]} half")
        a, b = own["A"], own["B"]
        if a.dim() == 4 and a.shape[2:] != (1, 1):
            raise ValueError(_locon(module))
        if a.dim() not in (2, 4) or b.dim() != a.dim() or b.shape[1] != len(a):
            raise ValueError(f"{module} has halves that do not fit: {tuple(a.shape)} and {tuple(b.shape)}")
        state |= {f"{module}.lora_A.weight": a.float(), f"{module}.lora_B.weight": b.float()}
        scale = own.get("dora_scale")
        if scale is not None and scale.shape[0] != len(b):
            raise ValueError(f"{module} has a DoRA magnitude per input, not per output; peft has no such adapter")
        magnitude = own.get("magnitude_vector", scale)
        if magnitude is not None:
            shape = (-1,) if a.dim() == 2 else (1, -1, 1, 1)  # peft's of linear layers and of convolutions
            state[f"{module}.lora_magnitude_vector"] = magnitude.float().reshape(shape)
    return state


def _loader_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Settings by component from the header (diffusers) or from the file beside (peft)."""
    if "lora_adapter_metadata" in metadata:
        settings = json.loads(metadata["lora_adapter_metadata"])
        return {c: _of_component(settings, c) for c in set(PREFIXES.values())}
    beside = path.parent / PEFT_CONFIG
    own = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    return dict.fromkeys(PREFIXES.values(), own)


def _of_component(settings: Mapping[str, Any], component: str) -> dict[str, Any]:
    return {k.removeprefix(f"{component}."): v for k, v in settings.items() if k.startswith(f"{component}.")}


def _alphas(parts: Parts, settings: Mapping[str, Mapping[str, Any]], layout: str) -> dict[str, float]:
    """alpha of each module, such that alpha / rank is its scale. Without any word of it alpha is the rank, as every
    reader takes it."""
    alphas = {}
    for module, own in parts.items():
        rank = len(own["A"])
        component, _, rest = module.partition(".")
        loader = settings.get(component, {})
        if "alpha" in own:
            alphas[module] = float(own["alpha"])
        elif layout != "kohya" and "lora_alpha" in loader:
            alpha = _pattern(loader.get("alpha_pattern") or {}, rest, float(loader["lora_alpha"]))
            alphas[module] = alpha * rank**0.5 if loader.get("use_rslora") else alpha
        else:
            alphas[module] = float(rank)
    return alphas


def _pattern(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    """peft's rule: the first pattern that matches the end of the module's name."""
    return next((float(v) for p, v in patterns.items() if re.fullmatch(rf"(.*\.)?({p})", module)), otherwise)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What a safetensors file of an adaptation holds.

    Raises:
        CheckpointError: missing or damaged file, or values that are not numbers.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"--adapter: there is no {path}; train one with 'smplora train'") from error
    except SafetensorError as error:
        raise CheckpointError(f"--adapter: {path} is damaged or no safetensors file ({error})") from error
    check_finite(path, tensors)
    return tensors


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse an adapter that computes nothing.

    Raises:
        CheckpointError: some values are not numbers.
    """
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"--adapter: {path} holds values that are not numbers, in {broken[0]} among others; train again"
        )


def read_metadata(path: Path) -> dict[str, str]:
    """What an adapter file's header tells.

    Raises:
        CheckpointError: missing or damaged file.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise CheckpointError(f"--adapter: there is no {path}; train one with 'smplora train'") from error
    except SafetensorError as error:
        raise CheckpointError(f"--adapter: {path} is damaged or no safetensors file ({error})") from error
