"""Latents, text embeddings and generated images kept between commands: private, keyed by content, checked on reuse,
easy to remove.

Latents can be decoded into the images that they were made of. They lie in the user's own cache folder, readable by the
user alone, never beside the images, and what has not been used for a month is removed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smplora.core.console import say, say_once
from smplora.core.errors import ConfigError
from smplora.core.files import UNFINISHED, write_atomically
from smplora.core.surroundings import expanded, home

FORMAT = "smplora.cache/1"
FOLDER = "encoded"  # inside the cache folder: all that is written
TAG = "CACHEDIR.TAG"  # marks the folder as ours, and tells backups to leave it out (bford.info/cachedir)
TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# smplora's: 'smplora cache --clear' empties it\n"
ENTRY = re.compile(rf"[0-9a-f]{{64}}\.safetensors|{re.escape(UNFINISHED)}\w{{8}}")  # the names of what we write
KEPT_S = 30 * 24 * 3600.0


class Cache:
    """Tensors by key on disk. Whatever is damaged or of somebody else is as if it were not there."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, with mode 0700, and remove what has not been used for a month.

        Raises:
            ConfigError: the folder cannot be made, or is another user's.
        """
        self.folder = folder / FOLDER
        self.written = 0
        try:
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True, mode=0o700)
            if hasattr(os, "getuid") and self.folder.stat().st_uid != os.getuid():
                raise PermissionError("it belongs to another user")
            entries, foreign = contents(self.folder)
            if foreign:
                raise FileExistsError(f"'{FOLDER}' in it has files that are not smplora's, such as '{foreign[0].name}'")
            self.folder.chmod(0o700)
            if not (self.folder / TAG).exists():
                write_atomically(self.folder / TAG, TAG_TEXT, flush=False)
            remove(entries, time.time() - KEPT_S)
        except (OSError, ValueError) as error:  # a ValueError: a NUL in its name
            reason = error.strerror or error if isinstance(error, OSError) else error
            raise ConfigError(
                f"--cache_dir got '{folder}', which cannot be used ({reason}); give another folder, "
                "or --cache_latents_to_disk false"
            ) from error
        if new:
            note = "readable by you alone; 'smplora cache --clear' removes them"
            say(f"latents, text embeddings, generated images and signals of audits are kept in {folder}, {note}")

    def load(self, *key: str) -> dict[str, Tensor] | None:
        """The tensors that were saved under ``key``, or None."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                intact = file.metadata() == _header(path.stem, tensors)
            if intact:
                os.utime(path)
                return tensors
        except (OSError, SafetensorError):
            pass
        return None

    def save(self, tensors: Mapping[str, Tensor], *key: str) -> None:
        """Keep ``tensors`` under ``key``; a full disk is no error."""
        path = self._path(key)
        stored = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        try:
            content = safetensors.torch.save(stored, metadata=_header(path.stem, stored))
            write_atomically(path, content, flush=False)
            self.written += 1
        except OSError:
            pass

    def _path(self, key: tuple[str, ...]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.safetensors"


def contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """What lies in a cache's folder: entries, known by their names, and what is somebody else's, links among it.

    Raises:
        OSError: it cannot be read.
    """
    if folder.is_symlink():
        return [], [folder]
    ours: list[Path] = []
    foreign: list[Path] = []
    for entry in os.scandir(folder):
        plain = entry.is_file(follow_symlinks=False)
        if not (plain and entry.name == TAG):  # a tag of somebody else's says the same
            (ours if plain and ENTRY.fullmatch(entry.name) else foreign).append(Path(entry))
    return ours, sorted(foreign)


def remove(entries: Iterable[Path], before: float = math.inf) -> int:
    """Delete the entries that were last used before a time in seconds and are provably ours: by the header of the file,
    or by the name of a half-written one. Returns how many."""
    removed = 0
    for path in entries:
        with suppress(OSError, SafetensorError):  # another process removed it, or it is no entry
            if path.lstat().st_mtime < before and (path.name.startswith(UNFINISHED) or _is_entry(path)):
                path.unlink()
                removed += 1
    return removed


def _is_entry(path: Path) -> bool:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return (metadata.get("format"), metadata.get("name")) == (FORMAT, path.stem)


def _header(name: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata of an entry: its own name, so that a renamed file is foreign, and a digest of its content."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}\n".encode())
        digest.update(tensors[key].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {"format": FORMAT, "name": name, "sha256": digest.hexdigest()}


def cache_folder(cache_dir: str | None) -> Path:
    """``--cache_dir``, or SMPLORA_CACHE, or smplora in the user's cache folder (XDG_CACHE_HOME, else ~/.cache).

    Raises:
        ConfigError: none of them is there: the user has no home folder.
    """
    if folder := cache_dir or os.environ.get("SMPLORA_CACHE"):
        return expanded(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "smplora"
    if (user := home()) is None:
        raise ConfigError("there is no home folder to keep anything in (HOME is not set); give --cache_dir")
    return user / ".cache" / "smplora"


def open_cache(cache_dir: str | None, keep: bool) -> Cache | None:
    """The cache in ``cache_folder(cache_dir)``, or None where nothing is to be kept. A usual place that cannot be used,
    which nobody asked for, is said and done without.

    Raises:
        ConfigError: the folder that was asked for cannot be used.
    """
    try:
        return Cache(cache_folder(cache_dir)) if keep else None
    except ConfigError as error:
        if cache_dir or os.environ.get("SMPLORA_CACHE"):
            raise
        say_once(f"nothing is kept for the next command: {str(error).replace('--cache_dir got ', '')}")
        return None
