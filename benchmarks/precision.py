"""A training step of LoRA in bf16, and compiled, beside fp32: what `--mixed_precision auto` and `--compile` go by.

    python benchmarks/precision.py [--models mid tiny]     -> benchmarks/results/precision_DEVICE.json

Models are those of step_time.py. The variants take turns; of each round's ratios fp32 / variant (above 1: faster) the
median counts, with the smallest and largest. On a CPU it is the processor time of one thread. Compiled steps are timed
after the first, which compiles.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from common import MODELS, base_model, command, parser, train_config, write_result
from smplora.core.device import choose_device
from smplora.data.split import MANIFEST
from smplora.training.distributed import make_accelerator
from smplora.training.resolve import load_split, resolved
from smplora.training.setup import prepare
from step_time import one_turn, ratio

PIXELS = {"tiny": 32, "mid": 256, "sd15": 128}
FP32 = "fp32"
VARIANTS: dict[str, dict[str, Any]] = {FP32: {}, "bf16": {"mixed_precision": "bf16"}, "compiled": {"compile": True}}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--models", nargs="+", choices=MODELS, default=["mid", "tiny"])
    options.add_argument("--device", default="auto")
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--batch", type=int, default=4)
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    device = choose_device(args.device)
    names = [name for name in VARIANTS if name != "compiled" or device.type != "cpu"]
    record: dict[str, Any] = {
        "command": command(options, args),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else torch.cpu.get_capabilities()["cpu_name"],
        "faster_than_fp32": {},
    }
    for size in args.models:
        with tempfile.TemporaryDirectory() as name:
            setups = {}
            for variant in names:
                config = train_config(
                    Path(name) / "images", Path(name) / variant, device=str(device), resolution=PIXELS[size], rank=32,
                    cache_latents_to_disk=False, lora_targets="all", aux_size=8, test_size=8,
                    max_train_steps=args.steps,
                    train_batch_size=args.batch, checkpointing_steps=10**9, logging_steps=10**9, objective="lora",
                    **VARIANTS[variant],
                )  # fmt: skip
                model = base_model(size, device)
                split = load_split(config, Path(name) / MANIFEST)
                config = resolved(config, model, split)
                setups[variant] = config, prepare(config, model, split, make_accelerator(device))
            times: dict[str, list[float]] = {variant: [] for variant in names}
            for number in range(args.rounds + 1):
                for variant, (config, setup) in setups.items():
                    seconds = one_turn(config, setup, Path(name), args.steps)
                    if number:  # the first makes optimizer states, and compiles
                        times[variant].append(seconds)
        record["faster_than_fp32"][size] = {v: ratio(times[FP32], times[v]) for v in names if v != FP32}
    write_result(args.results, f"precision_{device.type}", record)


if __name__ == "__main__":
    main()
