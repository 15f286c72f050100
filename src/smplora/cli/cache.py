"""``smplora cache``."""

from __future__ import annotations

import json

from smplora.config.data import CacheConfig
from smplora.core.cache import FOLDER, TAG, TAG_TEXT, cache_folder, contents, remove
from smplora.core.console import say


def cache(config: CacheConfig) -> None:
    """``smplora cache``: say where the cache is and how large; ``--clear`` removes what smplora wrote, nothing else."""
    folder = cache_folder(config.cache_dir) / FOLDER
    entries, foreign = contents(folder) if folder.is_dir() else ([], [])
    size = sum(path.stat().st_size for path in entries)
    removed = remove(entries) if config.clear else 0
    left = len(foreign) + (len(entries) - removed) * config.clear
    tag = folder / TAG
    if config.clear and not left and tag.is_file() and tag.read_bytes() == TAG_TEXT.encode():
        tag.unlink()
        folder.rmdir()
    if config.json:
        numbers = {"entries": len(entries), "bytes": size, "cleared": config.clear, "others": left}
        print(json.dumps({"folder": str(folder), **numbers}))
        return
    done = "removed" if config.clear else "use --clear to remove them"
    others = f"; other files in it: {left}, which smplora does not touch" * bool(left)
    sizes = f"{len(entries)} latents, text embeddings, images and signals, {size / 2**20:.1f} MiB"
    say(f"{folder}: {sizes}; {done}{others}")
