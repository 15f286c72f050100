"""Named random streams: seeds are a function of (seed, name, step), so a resumed run draws what it would have drawn."""

from __future__ import annotations

from hashlib import blake2b

import torch


def stream_seed(*names: int | str) -> int:
    """A 63-bit seed from a root seed and names, the same on every machine."""
    digest = blake2b("\x1f".join(str(name) for name in names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*names: int | str) -> torch.Generator:
    """A CPU generator seeded by ``stream_seed``: draws are made on the CPU, so that a GPU sees the same ones."""
    return torch.Generator().manual_seed(stream_seed(*names))
