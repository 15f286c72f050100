"""The parts of a pipeline of flow matching in a folder of diffusers' format: checked, then read by the libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from smplora.core.console import say_once
from smplora.core.errors import CheckpointError
from smplora.core.tensor_files import read_header
from smplora.models.diffusers_format import ADAPTER, OPTION, check_keys, check_weight_files, quiet
from smplora.models.stated import Stated, building, check_network, check_sizes, checked, read_text_file, unusable

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
SCALE = ".scale_weight"  # of an fp8 matrix, beside it
OTHER_SCALES = (".weight_scale", ".weight_scale_inv")  # of other programs, for parts of matrices too
OF_EIGHT_BITS = (SCALE, ".scale_input", "scaled_fp8")  # the last marks the file
TRANSFORMER = "transformer"
SCHEDULER = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class Parts:
    """What a pipeline consists of, by diffusers' names of its components."""

    networks: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    scheduler: Any


def read_parts(
    folder: Path,
    given: str,
    variant: str | None,
    networks: Mapping[str, Any],
    tokenizers: Mapping[str, Any],
    file: str | None = None,
) -> Parts:
    """Everything that has weights, the tokenizers and the noise schedule.

    Args:
        given: "--option got 'x'".
        variant: suffix of the weight files, such as "fp16".
        networks, tokenizers: the classes to read, by component.
        file: of the transformer's weights, in place of those in the folder.

    Raises:
        FileNotFoundError: a part is not there.
        CheckpointError: a file that cannot be used.
    """
    for part in (*networks, *tokenizers, "scheduler"):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"it has no folder {part}")
        if (folder / part / ADAPTER).exists():  # the library would load another model by it
            raise CheckpointError(f"{given}, whose {part}/{ADAPTER} is of an adapter; merge it into its model")
        check_network(folder / part, given, f"{part}/")
    local: dict[str, Any] = {"local_files_only": True}
    read: dict[str, Any] = {}
    for part, kind in networks.items():
        if file and part == TRANSFORMER:
            read[part] = transformer_in_file(file, kind, folder)
            continue
        check_weight_files(folder, part, variant, given)
        more: dict[str, Any] = {"variant": variant, "use_safetensors": True, "output_loading_info": True}
        kept = stored_type(folder / part, given, variant)  # not twice the memory until it is where it computes
        more["dtype" if kind.__module__.startswith("transformers") else "torch_dtype"] = kept
        with building(unusable(f"{given}, whose {part}/ with its config.json")):
            read[part], told = kind.from_pretrained(str(folder), subfolder=part, **local, **more)
            check_keys(told, f"{given}, whose {part}/")
    words = {}
    for part, kind in tokenizers.items():
        with building(unusable(f"{given}, whose {part}/")):
            words[part] = kind.from_pretrained(str(folder), subfolder=part, trust_remote_code=False, **local)
    return Parts(read, words, _scheduler(folder, given))


def transformer_in_file(file: str, kind: Any, folder: Path) -> Any:
    """A transformer of the class ``kind`` from one .safetensors file, as ComfyUI has them, with the configuration in
    ``folder``. diffusers converts the names.

    Raises:
        CheckpointError: a file that is damaged, quantised or lacks weights. What is in it besides is said.
    """
    given = f"--{OPTION} got '{file}', which"
    header = read_header(Path(file), given)
    kinds = {*header.dtypes.values()}
    if strange := sorted(kinds - {"F32", *TYPES, *EIGHT_BITS}):
        raise CheckpointError(f"{given} has {', '.join(strange)} numbers; take the file in bf16, fp16, fp32 or fp8")
    options = {"config": str(folder), "subfolder": TRANSFORMER, "local_files_only": True}
    eight = bool(kinds & {*EIGHT_BITS})
    kept = torch.bfloat16 if eight else TYPES.get("".join(kinds), torch.float32)
    settings = folder / TRANSFORMER / "config.json"

    def wrong(error: Exception) -> CheckpointError:
        if isinstance(error, (NotImplementedError, LookupError)):  # a tensor never filled is moved; none is to convert
            example = f", such as {error.args[0]}" if isinstance(error, KeyError) else ""
            return CheckpointError(
                f"{given} lacks weights that {kind.__name__} has by {settings}{example}; --model_config takes the "
                "folder of the file's own model"
            )
        return unusable(f"{given} does not fit {settings} and")(error)

    with building(wrong), quiet():
        network = kind.from_single_file(in_sixteen_bits(file) if eight else file, torch_dtype=kept, **options)
    if eight:
        say_once(f"{given} has weights in 8 bits: they are read as bf16, times their scales")
    held = sum(prod(shape) for name, shape in header.shapes.items() if not name.endswith(OF_EIGHT_BITS))
    rest = held - sum(tensor.numel() for tensor in network.state_dict().values())
    if rest:
        say_once(f"{given} also holds {rest:,} numbers that are not the transformer's, which are not used")
    return network


def in_sixteen_bits(file: str) -> dict[str, Tensor]:
    """The tensors of a file with fp8 weights: W = scale * w in bf16, with ComfyUI's scale of each matrix, else 1. Its
    scales of inputs are for products in 8 bits, which are not computed here.

    Raises:
        ValueError: scales of parts of a matrix, or by names that are not known.
    """
    tensors = load_file(file)
    if other := [name for name in tensors if name.endswith(OTHER_SCALES)]:
        raise ValueError(f"{other[0]} is a scale by a name that is not known; known is {SCALE}")
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(OF_EIGHT_BITS):
            continue
        if tensor.element_size() == 1:
            scale = tensors.get(f"{name.removesuffix('.weight')}{SCALE}", torch.ones(()))
            if scale.numel() != 1:
                raise ValueError(f"{name} has {scale.numel()} scales, known is one")
            tensor = (tensor.float() * scale.float().reshape(())).bfloat16()
        found[name] = tensor
    return found


def stored_type(part: Path, given: str, variant: str | None) -> torch.dtype:
    """The type of a part's numbers: what they all have in the files of the variant, or fp32."""
    files = [
        p for p in sorted(part.iterdir()) if p.suffix == ".safetensors" and f".{variant}" * bool(variant) in p.name
    ]
    kinds = {kind for path in files for kind in read_header(path, f"{given}, whose {part.name}/").dtypes.values()}
    return TYPES.get("".join(kinds - {"I64"}), torch.float32)


def padded_ids(tokenizer: Any, captions: Sequence[str], longest: int) -> Tensor:
    """Token ids [b, longest]; longer captions are cut."""
    options = {"padding": "max_length", "max_length": longest, "truncation": True, "return_tensors": "pt"}
    ids: Tensor = tokenizer(list(captions), **options).input_ids
    return ids


def _scheduler(folder: Path, given: str) -> Any:
    """The noise schedule of flow matching.

    Raises:
        CheckpointError: of another class, or with settings that cannot be.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    whose = f"{given}, whose scheduler/scheduler_config.json"
    content = read_text_file(folder / "scheduler" / "scheduler_config.json", whose)
    checked(content, Stated, whose)
    check_sizes(content, whose)
    if content.get("_class_name") != SCHEDULER:
        raise CheckpointError(f"{whose} has _class_name {content.get('_class_name')!r}; allowed: {SCHEDULER}")
    with building(unusable(f"{given}, whose scheduler/")):
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(content)
        levels = scheduler.sigmas
        falling = bool((levels.diff() < 0).all() and levels[-1] > 0 and levels[0] <= 1)
    if not falling or content.get("invert_sigmas"):
        raise CheckpointError(
            f"{whose} gives noise levels that do not fall from 1 to nearly 0 (shift {content.get('shift')}, "
            f"invert_sigmas {content.get('invert_sigmas', False)}); restore the model's own"
        )
    return scheduler
