"""Which files are smplora's own: nothing else is ever replaced or deleted, nothing through a link."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from smplora.core.errors import CheckpointError, ConfigError
from smplora.core.reading import read_json
from smplora.core.tensor_files import read_header

CARD_MARK = "<!-- smplora writes this file anew after each audit; delete this line to keep your changes -->"
PAGE_MARKS = (b'<meta name="generator" content="smplora', b"<footer>smplora ", b"<footer><p>smplora ")
LARGEST = 2**26  # of a file of ours that is read to see whose it is


def refuse_to_replace(folder: Path, names: Iterable[str], option: str, proofs: Sequence[str] = ()) -> None:
    """Refuse to write over files that smplora did not write.

    Args:
        folder: where to write.
        names: of the files that are to be written, as paths in ``folder``.
        option: that says where to write.
        proofs: names of files in ``folder`` that the same command writes and that say so. Pictures cannot: they are
            taken for ours where one of these is.

    Raises:
        ConfigError: naming the first of them.
    """
    for path in (folder / name for name in names):
        if os.path.lexists(path) and not is_ours(path, [folder / name for name in proofs]):
            kind = "a link" if path.is_symlink() else "not a file that smplora wrote"
            raise ConfigError(
                f"--{option}: '{path}' is there and is {kind}; it is not replaced: move it, or give another place"
            )


def is_ours(path: Path, proofs: Sequence[Path] = ()) -> bool:
    """Whether smplora provably wrote a file: by what stands in it or, of kinds that cannot say, by one of ``proofs``.
    Adapters always say so; for a pipeline's weights, a folder below, the card does. Links are nobody's."""
    if path.is_symlink() or not path.is_file():
        return False
    marked = _says_so(path)
    if marked is None and path.suffix == ".safetensors" and path.parent in [proof.parent for proof in proofs]:
        return False
    return any(is_ours(proof) for proof in proofs) if marked is None else marked


def _says_so(path: Path) -> bool | None:
    """What a file says of itself; None where its kind cannot say."""
    try:
        if path.suffix == ".safetensors":
            return True if any(name.startswith("smplora_") for name in read_header(path, "").metadata) else None
        if path.stat().st_size > LARGEST:
            return None
        if path.suffix == ".npz":
            return {"seal.npy"} <= set(zipfile.ZipFile(path).namelist())
        if path.suffix == ".html":
            return any(mark in path.read_bytes() for mark in PAGE_MARKS)
        if path.suffix == ".md":
            return CARD_MARK in path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = read_json(path)
            named = content.get("format") if isinstance(content, dict) else None
            return named.startswith("smplora.") if isinstance(named, str) else None
    except (OSError, ValueError, CheckpointError, zipfile.BadZipFile):
        return False
    return None
