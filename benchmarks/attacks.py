"""What each attack finds on a plain LoRA of the quickstart's recipe, and what it costs.

    python benchmarks/attacks.py [--folder DIR] [--tier standard]     -> benchmarks/results/attacks.json

600 steps of 10 private digits, rank 32 on all linear layers, 50 images a cell, one thread. A finished run or audit in
DIR is used as it is. One seed: the standard error of an AUC is about 0.05.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from smplora.config.audit import AuditConfig
from smplora.config.train import TrainConfig
from smplora.core.files import read_json
from smplora.data.digits import write_private_digits
from smplora.experiments.tasks import audit, train

RESULTS = Path(__file__).parent / "results"


def result(folder: Path, tier: str) -> dict[str, Any]:
    """The audit of that tier, made if it is not there."""
    run, place = folder / "lora", folder / tier
    if not (run / "DONE.json").exists():
        images = write_private_digits(folder / "images")
        recipe = TrainConfig(
            train_data_dir=str(images),
            output_dir=str(run),
            aux_size=50,
            test_size=50,
            rank=32,
            lora_targets="all",
            learning_rate=3e-3,
            train_batch_size=10,
            max_train_steps=600,
            checkpointing_steps=200,
            device="cpu",
        )
        train(recipe)
    if not (place / "audit.json").exists():
        audit(AuditConfig(adapter=str(run), tier=tier, device="cpu", output_dir=str(place)))  # type: ignore[arg-type]
    content: dict[str, Any] = read_json(place / "audit.json")
    return content


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder")
    parser.add_argument("--tier", nargs="+", default=["standard"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"command": f"python benchmarks/attacks.py --tier {' '.join(args.tier)}"}
    with tempfile.TemporaryDirectory() as temporary:
        for tier in args.tier:
            content = result(Path(args.folder or temporary), tier)
            record[tier] = {
                "elapsed_s": content["elapsed_s"],
                "auc": {
                    attack["name"]: {
                        group: [round(attack[group]["auc"][key], 2) for key in ("value", "low", "high")]
                        for group in ("test", "aux_members")
                    }
                    for attack in content["attacks"]
                },
            }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "attacks.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
