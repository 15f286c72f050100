"""Adapter files, in the layouts of diffusers (peft's names) and kohya: safetensors, and nothing about the images.

``load_lora_weights`` of diffusers' pipelines reads both with the right alpha for every choice of targets.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smplora import __version__
from smplora.errors import CheckpointError
from smplora.files import write_atomically
from smplora.kohya import kohya_metadata, kohya_state

ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
KOHYA_FILE = "kohya_lora_weights.safetensors"  # the same adapter for ComfyUI, Forge and A1111


def adapter_bytes(
    state: dict[str, Tensor], *, rank: int, alpha: float, targets: dict[str, tuple[str, ...]], objective: str
) -> bytes:
    """The file's content, a function of its arguments alone.

    Args:
        state: peft's names and tensors, as "unet.<module>.lora_A.weight".
        rank, alpha, targets: what a loader needs to rebuild the adapter.
        objective: how it was trained; the only other fact that is told.
    """
    peft_config = {
        f"{component}.{key}": value
        for component, modules in targets.items()
        for key, value in {"r": rank, "lora_alpha": alpha, "target_modules": list(modules)}.items()
    }
    metadata = {"lora_adapter_metadata": json.dumps(peft_config, sort_keys=True), **_common_metadata(objective)}
    return _canonical(safetensors.torch.save(state, metadata))


def kohya_bytes(
    state: dict[str, Tensor],
    *,
    rank: int,
    alpha: float,
    objective: str,
    family: str,
    layers_per_block: int,
    resolution: int,
) -> bytes:
    """The content of the file for ComfyUI, Forge and A1111, a function of its arguments alone (see kohya.py)."""
    tensors = kohya_state(state, alpha=alpha, family=family, layers_per_block=layers_per_block)
    metadata = kohya_metadata(rank=rank, alpha=alpha, family=family, resolution=resolution)
    return _canonical(safetensors.torch.save(tensors, {**metadata, **_common_metadata(objective)}))


def _common_metadata(objective: str) -> dict[str, str]:
    return {"format": "pt", "smplora_version": __version__, "smplora_objective": objective}


def _canonical(content: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the library writes them in random order, and a file that is
    a function of its content can be compared and signed."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def write_adapter(path: Path, content: bytes) -> str:
    """Write atomically; returns the SHA-256."""
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_adapter(path: Path) -> tuple[dict[str, Tensor], str]:
    """The adapter's tensors under peft's names, and the file's SHA-256.

    Raises:
        CheckpointError: missing or damaged file, or tensors that are not numbers.
    """
    try:
        content = path.read_bytes()
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"--adapter: there is no {path}; train one with 'smplora train'") from error
    except SafetensorError as error:
        raise CheckpointError(f"--adapter: {path} is damaged or no safetensors file ({error})") from error
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"--adapter: {path} holds values that are not numbers, in {broken[0]} among others; train again"
        )
    return state, hashlib.sha256(content).hexdigest()
