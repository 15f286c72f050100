"""What digests of checkpoints and base models cost, beside saving and loading alone.

    python benchmarks/hashing.py [--adapter_mb 200] [--base_mb 2000] [--rounds 3]     -> benchmarks/results/hashing.json

A checkpoint of one file of random numbers is written with its SHA-256 and read with the check of it; a base model in
one .safetensors file is loaded, its digest (BLAKE2b) taken and its numbers checked to be finite. "share" is the time of
each check over the time without checks. Medians over rounds, one thread; files are in the page cache when they are
read, so that loading is as fast and the shares are as large as they can be.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common import command, parser, write_result
from smplora.core.files import files_sha256
from smplora.models.identity import check_weights, weights_digest
from smplora.runs.checkpoints import Checkpoint, damage, read_checkpoint, write_checkpoint

PARTS = 20


def seconds(work: Callable[[], Any]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def random_tensors(megabytes: int) -> dict[str, torch.Tensor]:
    """In fp32."""
    rng = torch.Generator().manual_seed(0)
    size = megabytes * 10**6 // 4 // PARTS
    return {f"part_{k}": torch.randn(size, generator=rng) for k in range(PARTS)}


def copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In memory: what is loaded is read from the file when it is first used."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def checkpoint_times(folder: Path, megabytes: int) -> dict[str, float]:
    """Of one checkpoint: to save and to load, with digests, and the digests alone."""
    whole = Checkpoint(1, 1, 1, {"adapter_state": random_tensors(megabytes)})
    target = folder / "checkpoint-1"
    times = {"save": seconds(lambda: write_checkpoint(whole, lambda _: None, target))}
    times["save_hash"] = seconds(lambda: files_sha256([target / "adapter_state.safetensors"]))
    times["load_hash"] = seconds(lambda: damage(target))
    times["load"] = times["load_hash"] + seconds(lambda: copied(read_checkpoint(target).tensors["adapter_state"]))
    shutil.rmtree(target)
    return times


def base_times(folder: Path, megabytes: int) -> dict[str, float]:
    """Of one base model: to load, digest and check of its numbers."""
    path = folder / "base.safetensors"
    if not path.exists():
        save_file(random_tensors(megabytes), path)
    network = nn.Module()

    def load() -> None:
        for name, tensor in copied(load_file(path)).items():
            network.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    alone = seconds(load)
    digest = seconds(lambda: weights_digest([("unet", network)]))
    finite = seconds(lambda: check_weights([("unet", network)], ""))
    return {"base_load": alone + digest + finite, "base_load_hash": digest, "base_load_finite": finite}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--adapter_mb", type=int, default=200)
    options.add_argument("--base_mb", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        rounds = [
            checkpoint_times(Path(temporary), args.adapter_mb) | base_times(Path(temporary), args.base_mb)
            for _ in range(args.rounds)
        ]
    times = {name: median(found[name] for found in rounds) for name in rounds[0]}
    checks = {"save": ["save_hash"], "load": ["load_hash"], "base_load": ["base_load_hash", "base_load_finite"]}
    record: dict[str, Any] = {"command": command(options, args, always=["adapter_mb", "base_mb", "rounds"])}
    for name, extra in checks.items():
        alone = times[name] - sum(times[e] for e in extra)
        shares = {e.removeprefix(f"{name}_"): round(times[e] / alone, 3) for e in extra}
        record[name] = {"seconds": round(times[name], 3), "alone_seconds": round(alone, 3), "share": shares}
    record["load_average"] = [round(load_before, 1), round(os.getloadavg()[0], 1)]
    write_result(args.results, "hashing", record)


if __name__ == "__main__":
    main()
