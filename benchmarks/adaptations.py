"""Every adaptation method on the bundled model, plain and with SMP, and DP-LoRA at several strengths: what leaks, and
how good the images are.

    python benchmarks/adaptations.py --root runs/adaptations

One seed, cells of 50, three attacks: it shows that each method trains, leaks and is audited, and in which direction SMP
moves it. It compares no methods with each other: learning rates were not tuned to equal quality. Finished runs, audits
and evaluations in ``--root`` are taken as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from smplora.api import audit, evaluate, train
from smplora.core.environment import environment
from smplora.core.files import read_json, write_json
from smplora.data.digits import write_private_digits
from smplora.runs.folder import PRIVACY

RESULTS = Path(__file__).parent / "results" / "adaptations.json"
METHODS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 3e-4},
    "dreambooth": {"learning_rate": 3e-4, "class_prompt": "a handwritten digit"},
    "textual_inversion": {"learning_rate": 1e-2, "num_vectors": 4, "initializer_token": "handwritten"},
}
PRIVATE: dict[str, dict[str, Any]] = {  # 100 images, half of them in each step
    "dp_lora-epsilon_8": {"target_epsilon": 8.0},
    "dp_lora-epsilon_100": {"target_epsilon": 100.0},
    "dp_lora-noise_0.01": {"noise_multiplier": 0.01},
}
FEW_STEPS: dict[str, Any] = {
    "objective": "dp_lora", "train_batch_size": 50, "max_train_steps": 200, "checkpointing_steps": 200,
    "max_grad_norm": 0.02, "learning_rate": 3e-3, "rank": 8,
}  # fmt: skip
COMMON: dict[str, Any] = {
    "mi_lambda": 1.0, "proxy_learning_rate": 1e-3, "aux_size": 50, "test_size": 50, "train_batch_size": 10,
    "max_train_steps": 600, "checkpointing_steps": 600, "monitor_steps": 0, "validation_steps": 0, "run_page": False,
    "device": "cpu",
}  # fmt: skip


def measured(folder: Path) -> dict[str, Any]:
    """Audit and evaluate a run, unless that was done; the numbers that the log tells."""
    if not (folder / "audit" / "audit.json").exists():
        audit(folder, device="cpu")
    if not (folder / "quality" / "quality.json").exists():
        evaluate(folder, device="cpu")
    audited, quality = (read_json(folder / name) for name in ("audit/audit.json", "quality/quality.json"))
    return {
        "label": audited["subject"]["label"],
        "auc": {
            group: {a["name"]: {k: a[group]["auc"][k] for k in ("value", "low", "high")} for a in audited["attacks"]}
            for group in ("test", "aux_members")
        },
        "verdict": audited["verdict"]["level"],
        "held_out_loss": quality["held_out_loss"],
        "kid": quality["against"]["held_out"]["kid"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    root = parser.parse_args().root.resolve()
    images = root / "digits"
    if not images.exists():
        write_private_digits(images)
    runs = {
        f"{method}-{objective}": {"adaptation": method, "objective": objective, **options}
        for method, options in METHODS.items()
        for objective in ("lora", "smp_lora")
    } | {name: {**FEW_STEPS, **options} for name, options in PRIVATE.items()}
    rows = {}
    for name, options in runs.items():
        train(train_data_dir=images, output_dir=root / name, **{**COMMON, **options})
        rows[name] = measured(root / name)
        if (root / name / PRIVACY).exists():
            rows[name]["privacy"] = read_json(root / name / PRIVACY)
    settings = {"common": COMMON, "runs": runs}
    write_json(
        RESULTS, {"command": "python benchmarks/adaptations.py", **settings, "rows": rows, "environment": environment()}
    )
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
