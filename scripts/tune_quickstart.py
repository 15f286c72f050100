"""How the quickstart's settings were chosen: on seeds and splits other than the one that it ships.

    python scripts/tune_quickstart.py [--seeds 100 101]      -> benchmarks/results/tuning.json, about 20 minutes on 2 cores

Everything but objective, lambda and seed is the quickstart's default. LoRA is measured at several steps.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.quickstart import QuickstartConfig
from smplora.core.files import write_json
from smplora.core.reading import read_json
from smplora.data.digits import write_private_digits
from smplora.data.split import write_split
from smplora.experiments.quickstart import NOISE_PAIRS, private_split, training
from smplora.experiments.tasks import audit_once, evaluate_once, train

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "tuning.json"
GRID = [("lora", 0.0), *(("smp_lora", x) for x in (0.05, 0.3, 1.0)), *(("mp_lora", x) for x in (0.005, 0.05))]
STOPS = (200, 400, 600, 1000)


def run(objective: str, mi_lambda: float, seed: int, folder: Path) -> list[dict[str, object]]:
    """Train, audit, evaluate; one row per adapter."""
    root = folder / f"{objective}-{mi_lambda:g}-{seed}"
    quick = QuickstartConfig(seed=seed, split_seed=seed, output_dir=str(root))
    images = write_private_digits(root / "images")
    write_split(private_split(quick, root), root)
    config = replace(training(quick, objective, {"train_data_dir": str(images)}, root), mi_lambda=mi_lambda)
    trained = train(config, progress=False)
    stops = [trained / "checkpoints" / f"checkpoint-{s}" for s in STOPS] if objective == "lora" else []
    for subject in [*stops, trained]:
        audit_once(AuditConfig(adapter=str(subject), seed=seed, noise_pairs=NOISE_PAIRS))
        evaluate_once(EvaluateConfig(adapter=str(subject), seed=seed, num_images=quick.num_images))
    return [row(subject, mi_lambda, seed) for subject in [*stops, trained]]


def row(subject: Path, mi_lambda: float, seed: int) -> dict[str, object]:
    """What the choice looks at."""
    audit, quality = read_json(subject / "audit" / "audit.json"), read_json(subject / "quality" / "quality.json")
    attacks = {
        a["name"]: {g: round(a[g]["auc"]["value"], 3) for g in ("test", "aux_members")} for a in audit["attacks"]
    }
    held_out = quality["against"]["held_out"]
    return {
        "seed": seed,
        "objective": audit["subject"]["objective"],
        "lambda": mi_lambda,
        "step": audit["subject"]["step"],
        "auc": attacks,
        "kid": round(held_out["kid"]["value"], 4),
        "fid": round(held_out["fid"]["value"], 2),
        "held_out_loss": round(quality["held_out_loss"]["value"], 4),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the grid on two processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    args = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: list[dict[str, object]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(2, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        futures = [pool.submit(run, o, x, seed, Path(name)) for seed in args.seeds for o, x in GRID]
        for future in futures:
            for found in future.result():
                rows.append(found)
                print(json.dumps(found), flush=True)
                RESULT.parent.mkdir(parents=True, exist_ok=True)
                write_json(
                    RESULT,
                    {
                        "command": f"python scripts/tune_quickstart.py --seeds {' '.join(map(str, args.seeds))}",
                        "rows": rows,
                    },
                )


if __name__ == "__main__":
    main()
