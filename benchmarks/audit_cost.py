"""What `smplora audit --tier quick` costs beside the bare passes of the denoiser.

    python benchmarks/audit_cost.py [--cell 4] [--rounds 1]     -> benchmarks/results/audit_cost.json

A U-Net of 28 million parameters on latents of 32 x 32 (random weights: they cost what trained ones cost) with a LoRA
of rank 8 that was trained for one step. "ratio" is the processor time of the whole audit, from reading the run to
audit.json, over the processor time inside of the U-Net's forward passes; its median and range over rounds, each with
an empty cache.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from common import checked, command, parser, write_result
from smplora.config.audit import AuditConfig
from smplora.config.train import TrainConfig
from smplora.core.files import BUNDLED_FOLDER
from smplora.experiments.tasks import audit, train


def mid_sized(folder: Path, widths: list[int], pixels: int) -> int:
    """Write a base model with a larger U-Net than the bundled one's; returns its parameters."""
    shutil.copytree(BUNDLED_FOLDER, folder)
    settings = json.loads((folder / "unet" / "config.json").read_text())
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({
        **settings, "block_out_channels": widths, "layers_per_block": 2, "norm_num_groups": 32,
        "sample_size": pixels // 4,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"], "attention_head_dim": 8,
    })  # fmt: skip
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    return sum(p.numel() for p in unet.parameters())


def a_run(root: Path, cell: int, size: int) -> Path:
    """A LoRA after one step, on pictures of noise."""
    images = root / "images"
    images.mkdir()
    rng = torch.Generator().manual_seed(0)
    for k in range(4 * cell + 2):
        pixels = torch.randint(0, 256, (size, size, 3), generator=rng, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(images / f"{k:03d}.png")
        (images / f"{k:03d}.txt").write_text(f"picture {k % 5}")
    config = TrainConfig(
        train_data_dir=str(images), output_dir=str(root / "run"), pretrained_model_name_or_path=str(root / "base"),
        resolution=size, objective="lora", rank=8, aux_size=cell, test_size=cell, test_nonmember_size=cell,
        reference_size=2, max_train_steps=1, checkpointing_steps=1, train_batch_size=2, device="cpu",
        monitor_steps=0, validation_steps=0, run_page=False,
    )  # fmt: skip
    return train(checked(config), progress=False)


def one_round(run: Path, folder: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Processor seconds of an audit, and of the passes in it."""
    inside, passes, forward = 0.0, 0, UNet2DConditionModel.forward

    def timed(self: UNet2DConditionModel, sample: torch.Tensor, *others: Any, **named: Any) -> Any:
        nonlocal inside, passes
        begun = time.process_time()
        answer = forward(self, sample, *others, **named)
        inside, passes = inside + time.process_time() - begun, passes + len(sample)
        return answer

    UNet2DConditionModel.forward = timed
    try:
        begun = time.process_time()
        places = {"output_dir": str(folder / "audit"), "cache_dir": str(folder / "cache")}
        audit(AuditConfig(**{"adapter": str(run), "device": "cpu", **places, **settings}))
        return {"audit_s": time.process_time() - begun, "passes_s": inside, "image_passes": passes}
    finally:
        UNet2DConditionModel.forward = forward


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__, "audit")
    options.add_argument("--cell", type=int, default=4)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--widths", type=int, nargs=3, default=[96, 192, 288])
    options.add_argument("--pixels", type=int, default=128)
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        parameters = mid_sized(root / "base", args.widths, args.pixels)
        run = a_run(root, args.cell, args.pixels)
        rounds = []
        for number in range(args.rounds):
            (root / str(number)).mkdir()
            rounds.append(one_round(run, root / str(number), args.audit))
    ratios = sorted(one["audit_s"] / one["passes_s"] for one in rounds)
    record = {
        "command": command(options, args, always=["cell", "rounds"]),
        "parameters": parameters,
        "image_passes": rounds[0]["image_passes"],
        "passes_s": round(median(one["passes_s"] for one in rounds), 1),
        "ratio": {"median": round(median(ratios), 3), "low": round(ratios[0], 3), "high": round(ratios[-1], 3)},
    }
    write_result(args.results, "audit_cost", record)


if __name__ == "__main__":
    main()
