"""Time and memory of a training step of the privacy game, as ratios to plain LoRA in the same run.

    python benchmarks/step_time.py                   -> benchmarks/results/step_time.json (the bundled model)
    python benchmarks/step_time.py --model mid       -> step_time_mid_DEVICE.json (35 M parameters, 32 x 32 latents)
    python benchmarks/step_time.py --model sd15      -> step_time_sd15_DEVICE.json

``sd15`` is Stable Diffusion 1.5's true configuration with random weights, which cost what trained ones cost: 512 pixels
in bf16 on a GPU, 128 pixels in fp32 on a CPU; ``mid`` the same with narrower layers. "bare" is a loop of a few lines
with diffusers, peft and torch; "released" does the work of the paper's released code in each step: the game's term
takes a second forward and backward pass of the batch. All take turns on one and the same adapted model, so that a
machine that slows down slows all of them; of each round's ratios the median counts, and the range is written beside it.
On a CPU it is the processor time of the one thread that counts, which other processes disturb less than the clock. A
round before measures memory: weights, optimizer state and the largest sum of everything else that is alive at once. The
number of steps is a multiple of a pass over the images (16), so that as many aux members come up in each turn as are
expected. The paper reports 1.25 (20 against 16 hours) for SMP-LoRA on an A100.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from copy import copy
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from common import MODELS, base_model, command, parser, train_config, write_result
from smplora.config.catalogue.objectives import OBJECTIVES
from smplora.config.train import TrainConfig
from smplora.core.device import choose_device
from smplora.core.registry import build
from smplora.data.split import MANIFEST
from smplora.models.text import TOKENS
from smplora.objectives.game import SMPLoRAGame
from smplora.runs.folder import RunFolder
from smplora.training.batches import Feed
from smplora.training.distributed import make_accelerator
from smplora.training.loop import optimise
from smplora.training.memory import PeakMemory
from smplora.training.resolve import load_split, resolved
from smplora.training.setup import Setup, prepare

SETTINGS: dict[str, dict[str, Any]] = {  # others train on other models' predictions or with other gradients
    "lora": {"objective": "lora"},
    "mp_lora": {"objective": "mp_lora"},
    "smp_lora": {"objective": "smp_lora"},
    "smp_lora, sharing aux": {"objective": "smp_lora", "proxy_sharing": "aux"},
    "smp_lora, sharing all": {"objective": "smp_lora", "proxy_sharing": "all"},
    "smp_lora, every 4th": {"objective": "smp_lora", "proxy_interval": 4},
    "smp_lora, sharing aux, every 4th": {"objective": "smp_lora", "proxy_sharing": "aux", "proxy_interval": 4},
}
BARE, RELEASED = "bare", "released"
PASS = 16  # images that are trained on
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


def one_turn(config: TrainConfig, setup: Setup, folder: Path, steps: int) -> float:
    """Train ``steps`` steps with the objective and batch size of ``config``; seconds per step."""
    run = RunFolder(folder / f"{config.objective}-{time.time_ns()}")
    setup = replace(setup, game=with_objective(setup.game, config), feed=fed(setup, config), steps=steps)
    run.open(config, setup.model)
    stopwatch = Stopwatch(setup.model.device)
    optimise(config, setup, run, stopwatch, 0, False)  # type: ignore[arg-type]
    return stopwatch.seconds_per_step


def with_objective(game: SMPLoRAGame, config: TrainConfig) -> SMPLoRAGame:
    """With the same proxy."""
    other = copy(game)
    other.objective = build(OBJECTIVES, config.objective, "objective", config)
    return other


def fed(setup: Setup, config: TrainConfig) -> Feed:
    """The batches of ``config``."""
    return replace(setup.feed, batch_size=config.train_batch_size)


def baseline(kind: str, config: TrainConfig, setup: Setup, steps: int) -> float:
    """Seconds per step of ``BARE`` or ``RELEASED``."""
    model, device = setup.model, setup.model.device
    batch, _ = next(fed(setup, config).adapter(0))
    conditioning = model.text.embed(batch.conditioning) if TOKENS in batch.conditioning else batch.conditioning
    optimizer = torch.optim.AdamW(setup.parameters, lr=1e-6, fused=True)
    game = with_objective(setup.game, replace(config, objective="smp_lora"))
    stopwatch = Stopwatch(device)

    def error_maps() -> torch.Tensor:
        noise = torch.randn_like(batch.mean)
        timesteps = torch.randint(0, model.num_train_timesteps, (len(batch),), device=device)
        noised = model.scheduler.add_noise(batch.mean, noise, timesteps)
        with setup.autocast():
            predicted = model.denoiser(noised, timesteps, **conditioning).sample
        return (predicted.float() - noise).square()

    for step in range(steps):
        loss = error_maps().mean()
        loss.backward()
        if kind == RELEASED:
            game.loss(error_maps()).backward()
        torch.nn.utils.clip_grad_norm_(setup.parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if kind == RELEASED:
            with torch.no_grad():
                members, nonmembers = error_maps(), error_maps()
            game.update(members, nonmembers)
        stopwatch.after_step(step)
    return stopwatch.seconds_per_step


def peak_bytes(config: TrainConfig, setup: Setup, folder: Path) -> int:
    """Weights, optimizer state and what one step needs beside them; on a CPU without workspace inside operations."""
    if setup.model.device.type != "cuda":
        with PeakMemory() as memory:
            one_turn(config, setup, folder, 2)
        return lasting_bytes(setup, config.objective) + memory.peak
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    one_turn(config, setup, folder, 2)
    return lasting_bytes(setup, config.objective) + torch.cuda.max_memory_allocated() - before


def lasting_bytes(setup: Setup, objective: str) -> int:
    """What stays between steps: weights, and the optimizers' state."""
    model = setup.model
    parts = [model.denoiser, model.vae, *model.text.encoders.values()]
    optimizers = [setup.optimizer]
    if objective != "lora":
        parts.append(setup.game.proxy)
        optimizers.append(setup.game.optimizer)
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
        record |= {f"{name}_ratio": ratio(times[name], times["lora"])}
        if name in peaks:
            record |= {f"{name}_peak_ratio": round(peaks[name] / peaks["lora"], 3)}
    if times.get(BARE):
        record["lora_to_bare"] = ratio(times["lora"], times[BARE])
        ours = times["smp_lora, sharing aux"]
        record["released_to_smp_lora, sharing aux"] = ratio(times[RELEASED], ours)
        record["released_to_smp_lora"] = ratio(times[RELEASED], times["smp_lora"])
    return record


def ratio(times: list[float], base: list[float]) -> list[float]:
    """The median of the rounds, the smallest and the largest."""
    ratios = [t / b for t, b in zip(times, base, strict=True)]
    return [round(of(ratios), 2) for of in (median, min, max)]


def main(arguments: list[str] | None = None) -> None:
    """Measure in turns and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--model", choices=MODELS, default="tiny")
    options.add_argument("--device", default="auto")
    options.add_argument(
        "--steps", type=int, help="timed steps per turn; default: one pass at batch 1, for sd15 on a CPU 1"
    )
    options.add_argument(
        "--only", nargs="+", choices=SETTINGS, help="beside plain LoRA; default: all, and two baselines"
    )
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--batches", type=int, nargs="+", help="default 1 4")
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    device = choose_device("cpu" if args.model == "tiny" else args.device)
    on_gpu = device.type == "cuda"
    true_size = args.model == "sd15"
    few = true_size and not on_gpu
    resolution = {"tiny": 32, "mid": 256, "sd15": 512 if on_gpu else 128}[args.model]
    precision = "bf16" if on_gpu else "no"
    record: dict[str, Any] = {
        "command": command(options, args, always=["model", "rounds"]),
        "model": MODELS[args.model] + ", random weights" * (args.model != "tiny"),
        "setting": f"rank 32, all targets, {resolution} pixels, mixed precision {precision}",
        "device": torch.cuda.get_device_name() if on_gpu else "CPU, one thread",
        "paper": PAPER,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = train_config(
            folder / "images",
            folder / "run",
            device=str(device),
            resolution=resolution,
            cache_latents_to_disk=False,
            mixed_precision=precision,
            rank=32,
            lora_targets="all",
            aux_size=PASS // 2,
            test_size=PASS // 2,
            max_train_steps=args.steps or PASS,
            checkpointing_steps=10**9,
            logging_steps=10**9,
        )
        model = base_model(args.model, device)
        split = load_split(config, folder / MANIFEST)
        config = resolved(config, model, split)
        setup = prepare(config, model, split, make_accelerator(device))
        load_before = os.getloadavg()[0]
        for batch in args.batches or (1, 4):
            names = [n for n in SETTINGS if not args.only or n in ("lora", *args.only)]
            chosen = {n: replace(config, train_batch_size=batch, **SETTINGS[n]) for n in names}
            plain = chosen["lora"]
            one_turn(replace(plain, objective="smp_lora"), setup, folder, 1)  # makes the state of both optimizers
            peaks = {name: peak_bytes(own, setup, folder) for name, own in chosen.items()}
            baselines = () if args.only else (BARE, RELEASED)
            times: dict[str, list[float]] = {name: [] for name in (*chosen, *baselines)}
            steps = args.steps or (1 if few else max(PASS // batch, 8))
            for _ in range(args.rounds):
                for name, own in chosen.items():
                    times[name].append(one_turn(own, setup, folder, steps))
                for kind in baselines:
                    times[kind].append(baseline(kind, plain, setup, steps))
            record[f"batch_{batch}"] = measured(times, peaks)
            print(json.dumps(record), flush=True)
        record["load_average"] = [round(load_before, 1), round(os.getloadavg()[0], 1)]
    write_result(args.results, "step_time" if args.model == "tiny" else f"step_time_{args.model}_{device.type}", record)


if __name__ == "__main__":
    main()
