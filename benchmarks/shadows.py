"""What LiRA and RMIA with shadow adapters find beside the calibrated loss, on LoRA, SMP-LoRA and Distill-LoRA.

    python benchmarks/shadows.py [--folder DIR] [--steps 600] [--shadows 8] [--objectives lora smp_lora distill_lora]

Results: benchmarks/results/shadows.json; objectives that are not given keep what was measured before.

The quickstart's recipe: 10 private digits a step, rank 32 on all linear layers, 50 images a cell; SMP-LoRA with lambda
1 and a proxy rate of 1e-3; Distill-LoRA of twice the steps, its teachers of four thirds. Shadows have the objective of
the adapter that they are to attack. What is done in DIR is used as it is, so that a killed call goes on. One seed: the
standard error of an AUC is about 0.05.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.data.digits import write_private_digits
from smplora.experiments.tasks import audit, evaluate, train

RESULTS = Path(__file__).parent / "results"
ATTACKS = ["loss", "calibrated_loss", "quantile", "lira", "lira_offline", "rmia"]
OBJECTIVES = ("lora", "smp_lora", "distill_lora")


def options(objective: str, steps: int) -> dict[str, Any]:
    """What sets an objective apart."""
    own = {
        "smp_lora": {"mi_lambda": 1.0, "proxy_learning_rate": 1e-3},
        "distill_lora": {"max_train_steps": 2 * steps, "teacher_steps": 4 * steps // 3},
    }
    return {"max_train_steps": steps, **own.get(objective, {})}


def audited(folder: Path, objective: str, steps: int, shadows: int) -> dict[str, Any]:
    """The audit of a run, which is trained if it is not there."""
    images = folder / "images"
    if not images.exists():
        write_private_digits(images)
    own = options(objective, steps)
    run = TrainConfig(
        train_data_dir=str(images),
        output_dir=str(folder / objective),
        objective=objective,
        **own,
        aux_size=50,
        test_size=50,
        rank=32,
        lora_targets="all",
        learning_rate=3e-3,
        train_batch_size=10,
        checkpointing_steps=own["max_train_steps"],
        monitor_steps=0,
        validation_steps=0,
        device="cpu",
    )
    adapter = str(train(run))
    quality = evaluate(EvaluateConfig(adapter=adapter, num_images=300, device="cpu"))
    found = audit(AuditConfig(adapter=adapter, shadows=shadows, attacks=ATTACKS, device="cpu"))
    return {**found, "fid": quality["against"]["held_out"]["fid"]}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--shadows", type=int, default=8)
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    args = parser.parse_args()
    command = f"python benchmarks/shadows.py --steps {args.steps} --shadows {args.shadows}"
    path = RESULTS / "shadows.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    record: dict[str, Any] = before if before.get("command") == command else {"command": command}
    with tempfile.TemporaryDirectory() as temporary:
        for objective in args.objectives:
            content = audited(Path(args.folder or temporary), objective, args.steps, args.shadows)
            record[objective] = {
                "shadows": content["shadows"],
                "fid": [round(content["fid"][key], 1) for key in ("value", "low", "high")],
                "attacks": {
                    attack["name"]: {
                        group: {
                            "auc": [round(attack[group]["auc"][key], 2) for key in ("value", "low", "high")],
                            "tpr_at_10_percent": attack[group]["tpr_at_fpr"]["0.1"]["value"],
                        }
                        for group in ("test", "aux_members")
                    }
                    for attack in content["attacks"]
                },
            }
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
