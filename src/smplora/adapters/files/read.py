"""Reads adapter files of any trainer: diffusers (all its layouts), peft, kohya, LyCORIS, OneTrainer, ComfyUI.
safetensors only.

Whatever the layout, the result has full names as peft makes them, and for every module the alpha that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from smplora.adapters.files.families import other_family
from smplora.adapters.files.names import PRODUCTS, Names, understand
from smplora.adapters.files.products import Difference, rank_of, through_mid
from smplora.adapters.files.settings import IN_HEADER, PEFT_CONFIG, Settings, loader_settings
from smplora.core import tensor_files
from smplora.core.errors import CheckpointError
from smplora.core.files import PICKLED_ADAPTER, files_sha256, no_pickle

REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)  # what programs also store an alpha as
Value = TypeVar("Value")


@dataclass(frozen=True)
class AdapterFile:
    """A file's content: fp32 tensors under peft's full names, "unet.<module>.lora_A.weight", text encoders with
    ``text_model.``; ``alphas[module] / rank`` multiplies B A, whatever the file called it."""

    state: dict[str, Tensor]
    alphas: dict[str, float]
    layout: str  # "peft", "kohya" or "diffusers"
    metadata: dict[str, str]
    sha256: str
    differences: dict[str, Difference] = field(default_factory=dict)  # "unet.<module>.weight" -> what is no pair
    embeddings: tuple[str, ...] = ()  # words that the file also holds learned embeddings of
    family: str | None = None  # of a converted file: whose layers its own names are, where they tell

    @property
    def ranks(self) -> dict[str, int]:
        """By module."""
        return {n.removesuffix(".lora_A.weight"): len(t) for n, t in self.state.items() if n.endswith(".lora_A.weight")}


def _bare(name: str) -> str:
    component, _, rest = name.partition(".")
    return f"{component}.{rest.removeprefix('text_model.')}" if component.startswith("text_encoder") else name


def named_as(state: Mapping[str, Value], known: Collection[str]) -> dict[str, Value]:
    """``state`` under the names of ``known``: with or without ``text_model.``, which differs between versions of
    transformers. Names that ``known`` has in neither form are kept."""
    by_name = {_bare(name): name for name in known}
    return {by_name.get(_bare(name), name): value for name, value in state.items()}


def read_adapter(
    path: Path,
    layers_per_block: int = 2,
    transformer: bool = False,
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> AdapterFile:
    """What an adapter file of any trainer holds: all of it, or an error.

    Args:
        layers_per_block: of the base model's U-Net; only files with the original checkpoint's names need it.
        transformer: it may be of a transformer, in diffusers' layout.
        convert: other layouts of this transformer into diffusers'; raises ValueError.

    Raises:
        CheckpointError: missing or damaged file, pickle, another kind of adapter, tensors that are not numbers.
    """
    pickled = no_pickle(str(path), "adapter", PICKLED_ADAPTER)
    if pickled:
        raise CheckpointError(pickled[0])
    tensors, metadata = _read(path)
    family = _family(tensors) if convert else None
    try:
        tensors = convert(tensors) if convert else tensors
        names = understand(tensors, layers_per_block, transformer)
        used = {key: real(key, tensors[key]) for parts in names.parts.values() for key in parts.values()}
        settings = loader_settings(path, metadata) if names.layout != "kohya" else {}
        state, alphas = _pairs(names, used, settings)
        differences = _differences(names, used, settings)
    except (ValueError, OSError) as error:
        of = f"; by its names it is of {family}" if family else ""
        raise CheckpointError(f"--adapter: {path} cannot be used: {error}{of}") from error
    check_finite(path, used)
    beside = [path.parent / PEFT_CONFIG] if settings and IN_HEADER not in metadata else []
    sha256 = files_sha256([path, *beside])
    return AdapterFile(state, alphas, names.layout, metadata, sha256, differences, names.embeddings, family)


def _family(names: Collection[str]) -> str | None:
    """Whose layers ``names`` are, of all families that are known."""
    if other := other_family(names):
        return other
    try:
        understand(names)
    except ValueError:
        return None
    return "Stable Diffusion 1.x, 2.x or SDXL"


def real(key: str, tensor: Tensor) -> Tensor:
    """A tensor of an adapter in fp32.

    Raises:
        ValueError: it is empty, or its numbers are of a kind that no weight is.
    """
    if not tensor.numel():
        raise ValueError(f"{key} is empty, of shape {tuple(tensor.shape)}: a rank of 0")
    scalar = key.endswith(".alpha")
    if tensor.dtype not in (*REAL, *(WHOLE if scalar else ())) or (scalar and tensor.numel() != 1):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"{key} holds {tensor.numel()} numbers of type {kind}; weights are real numbers, an alpha is one"
        )
    return tensor.float().reshape(()) if scalar else tensor.float()


def _pairs(
    names: Names, tensors: Mapping[str, Tensor], settings: Mapping[str, Settings]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The low-rank pairs under peft's names, kohya's magnitudes in peft's shape; and their alphas.

    Without any word of it alpha is the rank, as every reader takes it.

    Raises:
        ValueError: halves that lack or do not fit.
    """
    state: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for module, keys in names.parts.items():
        own = {part: tensors[key] for part, key in keys.items()}
        scaled = {"alpha", "dora_scale", "magnitude_vector"} & own.keys()
        if not {"A", "B", "mid"} & own.keys() and not (scaled and own.keys() <= {*scaled, "bias"}):
            continue
        missing = {"A", "B"} - own.keys()
        if missing:
            raise ValueError(f"{module} lacks its lora_{sorted(missing)[0]} half")
        other = own.keys() & {*PRODUCTS, "weight"}
        if other:
            raise ValueError(f"{module} is changed in two ways, by {keys['A']} and by {keys[sorted(other)[0]]}")
        a, b = own["A"], own["B"]
        if "mid" in own:
            a = through_mid(own["mid"], a)
        if a.dim() not in (2, 4) or b.dim() != a.dim() or b.shape[1] != len(a) or b[0, 0].numel() != 1:
            raise ValueError(f"{module} has halves that do not fit: {tuple(a.shape)} and {tuple(b.shape)}")
        state |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        magnitude = own.get("magnitude_vector", own.get("dora_scale"))
        if magnitude is not None:
            if magnitude.numel() != len(b) or ("dora_scale" in own and len(magnitude) != len(b)):
                raise ValueError(f"{module} has a DoRA magnitude per input, not per output; peft has no such adapter")
            shape = (-1,) if a.dim() == 2 else (1, -1, 1, 1)  # peft's of linear layers and of convolutions
            state[f"{module}.lora_magnitude_vector"] = magnitude.reshape(shape)
        component, _, rest = module.partition(".")
        said = settings[component].low_rank(rest, len(a)) if component in settings else None
        alphas[module] = float(own["alpha"]) if "alpha" in own else float(len(a)) if said is None else said
    return state, alphas


def _differences(
    names: Names, tensors: Mapping[str, Tensor], settings: Mapping[str, Settings]
) -> dict[str, Difference]:
    """Everything else, by the name of the weight or bias that it is added to.

    Raises:
        ValueError: factors that lack or do not fit; magnitudes beside them.
    """
    differences = {}
    for module, keys in names.parts.items():
        own = {part: tensors[key] for part, key in keys.items()}
        factors = {part: tensor for part, tensor in own.items() if part in PRODUCTS}
        try:
            if "bias" in own:
                differences[f"{module}.bias"] = Difference({"bias": own["bias"]})
            if "weight" in own and (factors or "alpha" in own):
                raise ValueError(f"a whole difference, {keys['weight']}, and factors or an alpha beside it")
            if "weight" in own:
                differences[f"{module}.weight"] = Difference({"weight": own["weight"]})
            elif factors:
                differences[f"{module}.weight"] = Difference(factors, _scale(module, own, rank_of(factors), settings))
        except ValueError as error:
            raise ValueError(f"{module} has {error}") from error
        magnitude = keys.get("dora_scale", keys.get("magnitude_vector"))
        if magnitude and (factors or "weight" in own):
            raise ValueError(f"{module} has DoRA magnitudes beside what is no low-rank pair, in {magnitude}; not read")
    return differences


def _scale(module: str, own: Mapping[str, Tensor], rank: int | None, settings: Mapping[str, Settings]) -> float:
    """s of LoHa or LoKr: alpha / r, 1 where nothing is factored or nothing is said; peft's from its settings."""
    if "alpha" in own:
        return float(own["alpha"]) / rank if rank else 1.0
    component, _, rest = module.partition(".")
    said = settings[component].product(rest, rank) if component in settings else None
    return 1.0 if said is None else said


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    _must_exist(path)
    tensors, header = tensor_files.read_tensors(path, f"--adapter: {path}")
    return tensors, header.metadata


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"--adapter: there is no {path}; train one with 'smplora train'")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What a safetensors file of an adaptation holds.

    Raises:
        CheckpointError: missing or damaged file, or values that are not numbers.
    """
    tensors, _ = _read(path)
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
    _must_exist(path)
    return tensor_files.read_header(path, f"--adapter: {path}").metadata
