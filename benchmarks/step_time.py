"""Time and memory of a training step of each objective, as ratios to plain LoRA in the same run.

    python benchmarks/step_time.py                   -> benchmarks/results/step_time.json (the bundled model)
    python benchmarks/step_time.py --model sd15      -> benchmarks/results/step_time_sd15_DEVICE.json

``sd15`` is Stable Diffusion 1.5's true configuration with random weights, which cost what trained ones cost: 512 pixels
in bf16 on a GPU, 128 pixels in fp32 on a CPU. The objectives take turns on one and the same adapted model, so that a
machine that slows down slows all of them; of each round's ratios the median counts, and the range is written beside it.
On a CPU it is the processor time of the one thread that counts, which other processes disturb less than the clock. A
round before measures memory: weights, optimizer state and the largest sum of everything else that is alive at once. The
paper reports 1.25 (20 against 16 hours) for SMP-LoRA on an A100.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from smplora.config.catalogue.objectives import OBJECTIVES
from smplora.config.train import TrainConfig
from smplora.core.device import choose_device
from smplora.core.registry import build
from smplora.data.digits import write_private_digits
from smplora.data.split import MANIFEST
from smplora.models.diffusion import LatentDiffusion
from smplora.models.load import load_model
from smplora.models.single_file import CONFIGS, PADDING, clip_tokenizer
from smplora.models.text import ClipText
from smplora.runs.folder import RunFolder
from smplora.training.distributed import make_accelerator
from smplora.training.loop import optimise
from smplora.training.memory import PeakMemory
from smplora.training.resolve import load_split, resolved
from smplora.training.setup import Setup, prepare

RESULTS = Path(__file__).parent / "results"
PAPER = 1.25


class Stopwatch:
    """In the place of the run's monitor: when every step ended."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.marks = [self.now()]

    def now(self) -> float:
        """The clock's seconds on a GPU, else those of the processor."""
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() if self.on_gpu else time.process_time()

    def after_step(self, done: int) -> dict[str, str]:
        """Called by the training loop."""
        self.marks.append(self.now())
        return {}

    def finish(self) -> None:
        """Called at the end."""

    @property
    def seconds_per_step(self) -> float:
        """The mean of all steps."""
        return (self.marks[-1] - self.marks[0]) / (len(self.marks) - 1)


def sd15(device: torch.device) -> LatentDiffusion:
    """Stable Diffusion 1.5's true configuration, random weights."""
    torch.manual_seed(0)
    folder = str(CONFIGS / "sd1")
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, subfolder="unet"))
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
    encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder"))
    for part in (unet, vae, encoder):
        part.to(device).eval().requires_grad_(False)
    text = ClipText(encoder, clip_tokenizer(PADDING["sd1"][0]))
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    return LatentDiffusion(vae, text, unet, scheduler, "SD 1.5's configuration, random weights", "random")


def one_turn(config: TrainConfig, setup: Setup, folder: Path, steps: int) -> float:
    """Train ``steps`` steps with the objective and batch size of ``config``; seconds per step."""
    run = RunFolder(folder / f"{config.objective}-{time.time_ns()}")
    objective = build(OBJECTIVES, config.objective, "objective", config)
    feed = replace(setup.feed, batch_size=config.train_batch_size)
    setup = replace(setup, objective=objective, feed=feed, steps=steps)
    run.open(config, setup.model.digest)
    stopwatch = Stopwatch(setup.model.device)
    optimise(config, setup, run, stopwatch, 0, False)  # type: ignore[arg-type]
    return stopwatch.seconds_per_step


def peak_bytes(config: TrainConfig, setup: Setup, folder: Path) -> int:
    """Weights, optimizer state and what one step needs beside them; on a CPU without workspace inside operations."""
    if setup.model.device.type != "cuda":
        with PeakMemory() as memory:
            one_turn(config, setup, folder, 1)
        return lasting_bytes(setup, config.objective) + memory.peak
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    one_turn(config, setup, folder, 1)
    return lasting_bytes(setup, config.objective) + torch.cuda.max_memory_allocated() - before


def lasting_bytes(setup: Setup, objective: str) -> int:
    """What stays between steps: weights, and the optimizers' state."""
    model = setup.model
    parts = [model.denoiser, model.vae, *model.text.encoders.values()]
    optimizers = [setup.optimizer]
    if objective != "lora":
        parts.append(setup.proxy)
        optimizers.append(setup.proxy_optimizer)
    tensors = [t for part in parts for t in part.state_dict().values()]
    tensors += [t for o in optimizers for state in o.state.values() for t in state.values()]
    return sum(t.numel() * t.element_size() for t in tensors)


def measured(times: dict[str, list[float]], peaks: dict[str, int]) -> dict[str, Any]:
    """The record of one batch size."""
    record: dict[str, Any] = {
        "lora_ms": round(1000 * median(times["lora"]), 1),
        "lora_ms_range": [round(1000 * edge(times["lora"]), 1) for edge in (min, max)],
        "lora_peak_mib": round(peaks["lora"] / 2**20, 1),
    }
    for name in [n for n in times if n != "lora"]:
        ratios = [t / base for t, base in zip(times[name], times["lora"], strict=True)]
        record |= {
            f"{name}_ratio": round(median(ratios), 2),
            f"{name}_ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            f"{name}_peak_ratio": round(peaks[name] / peaks["lora"], 2),
        }
    return record


def main() -> None:
    """Measure in turns and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("tiny", "sd15"), default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, help="timed steps per turn; default 30, for sd15 on a CPU 1")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device("cpu" if args.model == "tiny" else args.device)
    on_gpu = device.type == "cuda"
    true_size = args.model == "sd15"
    steps = args.steps or (30 if on_gpu or not true_size else 1)
    resolution = (512 if on_gpu else 128) if true_size else 32
    precision = "bf16" if on_gpu else "no"
    record: dict[str, Any] = {
        "command": f"python benchmarks/step_time.py --model {args.model} --steps {steps} --rounds {args.rounds}",
        "model": "SD 1.5's true configuration, random weights" if true_size else "the bundled model",
        "setting": f"rank 32, all targets, {resolution} pixels, mixed precision {precision}",
        "device": torch.cuda.get_device_name() if on_gpu else "CPU, one thread",
        "paper": PAPER,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = TrainConfig(
            train_data_dir=str(write_private_digits(folder / "images")),
            output_dir=str(folder / "run"),
            device=str(device),
            resolution=resolution,
            cache_latents_to_disk=False,
            mixed_precision=precision,
            rank=32,
            lora_targets="all",
            aux_size=8,
            test_size=8,
            max_train_steps=steps,
            checkpointing_steps=10**9,
            logging_steps=10**9,
        )
        model = sd15(device) if true_size else load_model("tiny", device)
        split = load_split(config, folder / MANIFEST)
        config = resolved(config, model, split)
        setup = prepare(config, model, split, make_accelerator(device))
        load_before = os.getloadavg()[0]
        for batch in (1, 4) if true_size else (1, 10):
            options = {o: replace(config, objective=o, train_batch_size=batch) for o in OBJECTIVES}
            one_turn(options["smp_lora"], setup, folder, 1)  # makes the state of both optimizers
            peaks = {objective: peak_bytes(chosen, setup, folder) for objective, chosen in options.items()}
            times: dict[str, list[float]] = {objective: [] for objective in OBJECTIVES}
            for _ in range(args.rounds):
                for objective, chosen in options.items():
                    times[objective].append(one_turn(chosen, setup, folder, steps))
            record[f"batch_{batch}"] = measured(times, peaks)
            print(json.dumps(record), flush=True)
        record["load_average"] = [round(load_before, 1), round(os.getloadavg()[0], 1)]
    RESULTS.mkdir(exist_ok=True)
    file = f"step_time_sd15_{device.type}.json" if true_size else "step_time.json"
    (RESULTS / file).write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
