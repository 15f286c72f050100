"""Time of a training step of each objective, as ratios to plain LoRA in the same run.

    python benchmarks/step_time.py [--steps 40] [--rounds 5]     -> benchmarks/results/step_time.json

The objectives take turns, so that a machine that slows down slows all of them; the median over the rounds counts.
The paper reports 1.25 (20 against 16 hours) for SMP-LoRA on an A100.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from smplora.config import TrainConfig
from smplora.examples import write_private_digits
from smplora.models import load_model
from smplora.objectives import OBJECTIVES
from smplora.run import RunFolder
from smplora.split import MANIFEST
from smplora.train import load_split, optimise, resolved
from smplora.trainstate import prepare

RESULTS = Path(__file__).parent / "results"


def seconds_per_step(objective: str, steps: int, batch: int, folder: Path) -> float:
    """Train ``steps`` steps on the bundled model, one thread; preparation is not counted."""
    config = TrainConfig(
        train_data_dir=str(folder / "images"),
        output_dir=str(folder / f"{objective}-{time.time_ns()}"),
        objective=objective,
        train_batch_size=batch,
        rank=32,
        lora_targets="all",
        max_train_steps=steps,
        checkpointing_steps=10**9,
        logging_steps=10**9,
    )
    run = RunFolder(Path(config.output_dir))
    model, split = load_model("tiny", torch.device("cpu")), load_split(config, run.path / MANIFEST)
    config = resolved(config, model, split)
    run.open(config, model.digest)
    setup = prepare(config, model, split, run)
    start = time.perf_counter()
    optimise(config, setup, run, 0, False)
    return (time.perf_counter() - start) / steps


def main() -> None:
    """Measure in turns and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, object] = {
        "command": f"python benchmarks/step_time.py --steps {args.steps} --rounds {args.rounds}",
        "model": "the bundled model, rank 32, all targets, one thread",
        "paper": 1.25,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_private_digits(folder / "images")
        for batch in (1, 10):
            times: dict[str, list[float]] = {objective: [] for objective in OBJECTIVES}
            for _ in range(args.rounds):
                for objective, values in times.items():
                    values.append(seconds_per_step(objective, args.steps, batch, folder))
            record[f"batch_{batch}"] = {
                "lora_ms": round(1000 * median(times["lora"]), 1),
                **{
                    f"{o}_ratio": round(median(t / base for t, base in zip(times[o], times["lora"], strict=True)), 2)
                    for o in times
                    if o != "lora"
                },
            }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step_time.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
