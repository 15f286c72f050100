"""``smplora cache``."""

from __future__ import annotations

import json
import os
import shutil
import sys

from smplora.config.data import CacheConfig
from smplora.core.cache import FOLDER, cache_folder


def cache(config: CacheConfig) -> None:
    """``smplora cache``: say where the cache is and how large; ``--clear`` removes it."""
    folder = cache_folder(config.cache_dir) / FOLDER
    sizes = [e.stat().st_size for e in os.scandir(folder)] if folder.is_dir() else []
    if config.clear:
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    if config.json:
        print(json.dumps({"folder": str(folder), "entries": len(sizes), "bytes": sum(sizes), "cleared": config.clear}))
        return
    done = "removed" if config.clear else "use --clear to remove them"
    print(
        f"{folder}: {len(sizes)} latents, text embeddings, images and signals, {sum(sizes) / 2**20:.1f} MiB; {done}",
        file=sys.stderr,
    )
