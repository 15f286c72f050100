"""Safetensors files from outside: what a file is, and its header, checked before any library opens it.

The format: 8 bytes with the header's length (little-endian), the header (JSON: name -> dtype, shape, data_offsets, and
``__metadata__``), then the tensors without a gap (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from smplora.core.errors import CheckpointError
from smplora.core.reading import Unreadable, decoded, open_regular, parse_json

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_HEADER = 25 * 2**20  # bytes; the whole of SDXL takes well below one million
MOST_TENSORS = 50_000  # the whole of SDXL has about 2,500; an adapter of all its layers in seven factors each 8,000
LONGEST_NAME = 1000
INSTEAD = (  # how files begin that are something else
    (rb"version https://git-lfs", "a git-lfs pointer: the file itself was not downloaded ('git lfs pull' does it)"),
    (rb"(\xef\xbb\xbf)?\s*<[!?a-z]", "an HTML page, not the file: it was saved from a page that shows it or asks to"
     " sign in"),
    (rb"PK\x03\x04", "a zip archive: unpack it, or if PyTorch wrote it (a pickle, which can run any program) ask for"
     " .safetensors"),
    (rb"\x80[\x02-\x05]", "a pickle, which can run any program when it is read: ask for .safetensors"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "a compressed file: unpack it"),
    (rb"GGUF|GGML", "a GGUF file, which smplora does not read: take the .safetensors file"),
    (rb"\x93NUMPY", "a NumPy array: take the .safetensors file"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|%PDF", "a picture or document: take the .safetensors file"),
    (rb"\s*[\[{]", "JSON, perhaps a server's message: download the file again"),
    (rb"[\t\n\r -~]+$", "a text, perhaps a server's message: download the file again"),
)  # fmt: skip
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of its content."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read_header(path: Path, said: str) -> Header:
    """The header of a safetensors file, in time and memory that ``LARGEST_HEADER`` bounds, whatever the file holds.

    Args:
        said: how messages begin, "--adapter: lora.safetensors"; a verb follows.

    Raises:
        CheckpointError: no such file, a pipe or device, another kind of file, damaged, or larger than the limits.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(512)
            length = int.from_bytes(start[:8], "little")
            text = start[8 : 8 + length] + (file.read(length - 504) if 504 < length <= LARGEST_HEADER else b"")
    except FileNotFoundError as error:
        raise CheckpointError(f"{said} does not exist") from error
    except (OSError, Unreadable) as error:
        raise CheckpointError(f"{said} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if start[8:9] != b"{" or length > LARGEST_HEADER:  # any two bytes may begin the length
        raise CheckpointError(f"{said} {_what_else(start, length)}")
    room = size - 8 - length
    if room < 0:
        raise CheckpointError(
            f"{said} is not a safetensors file, or is damaged (it is cut short: its header alone has {length} bytes); "
            "download it again"
        )
    try:
        return _understood(parse_json(decoded(text)), room)
    except ValueError as error:
        raise CheckpointError(f"{said} is not a safetensors file, or is damaged ({error})") from error


def _what_else(start: bytes, length: int) -> str:
    """What a file is that does not begin as it should, in words that follow its name."""
    if len(start) < 10:
        what = "cut short" if start else "empty"
        return f"is not a safetensors file, or is damaged (it is {what}); download it again"
    instead = next((what for mark, what in INSTEAD if re.match(mark, start, re.IGNORECASE | re.DOTALL)), None)
    if instead:
        return f"is {instead}"
    if start[8:9] == b"{":
        return f"has a header of {length} bytes; allowed: {LARGEST_HEADER} at most"
    return "is not a safetensors file, or is damaged (it does not begin as one)"


def read_tensors(path: Path, said: str) -> tuple[dict[str, Tensor], Header]:
    """All tensors, and the header.

    Raises:
        CheckpointError: see ``read_header``.
    """
    header = read_header(path, said)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in header.shapes}, header
    except (SafetensorError, OSError, AttributeError, RuntimeError) as error:  # the last two: a dtype torch lacks
        raise CheckpointError(f"{said} is not a safetensors file, or is damaged ({error})") from error


def _understood(content: Any, room: int) -> Header:
    """The header out of its JSON.

    Args:
        room: bytes behind it.

    Raises:
        ValueError: not as the format has it.
    """
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ does not map text to text")
    if len(content) > MOST_TENSORS:
        raise ValueError(f"it has {len(content)} tensors; allowed: {MOST_TENSORS} at most")
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    places = []
    for name, entry in content.items():
        dtypes[name], shapes[name], begin, end = _tensor(name, entry)
        places.append((begin, end, name))
    end = 0
    for begin, finish, name in sorted(places):
        if begin != end:
            raise ValueError(f"{name} begins at byte {begin}, where {end} was due")
        end = finish
    if end > room:
        raise ValueError(f"it is cut short: {room} of {end} bytes of tensors are there; download it again")
    if end < room:
        raise ValueError(f"{room - end} bytes more than its header names")
    return Header(shapes, dtypes, metadata)


def _tensor(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, first byte, byte behind the last one) of one tensor."""
    if len(name) > LONGEST_NAME:
        raise ValueError(f"it has a name of {len(name)} characters; allowed: {LONGEST_NAME} at most")
    if not name.isprintable():  # nor would every line that quotes it be one
        raise ValueError(f"it has a name with control characters, {name!r:.80}")
    told = entry if isinstance(entry, dict) else {}
    dtype, shape, place = (told.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{name} has dtype {dtype!r:.40}, which the format does not know")
    if not (isinstance(shape, list) and isinstance(place, list) and _counts(shape) and _counts(place)):
        raise ValueError(f"{name} has no shape or no place of whole numbers")
    if len(place) != 2 or (place[1] - place[0]) * 8 != math.prod(shape) * BITS[dtype]:
        raise ValueError(f"{name} has a place that its shape {shape} and dtype {dtype} do not take")
    return dtype, tuple(shape), place[0], place[1]


def _counts(values: list[Any]) -> bool:
    """Whether these are few whole numbers, 0 or more."""
    return len(values) <= 16 and all(type(n) is int and 0 <= n < 2**63 for n in values)
