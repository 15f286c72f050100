"""The paper's Fig. 1b, Fig. 2 and Table 3 on the bundled model, settings of the quickstart: gradients measured
at every step, Hessian norms at every hundredth. About 8 minutes a run on one core; finished runs are not repeated.

    python benchmarks/theory.py RUNS             -> benchmarks/results/theory.json
    python benchmarks/theory.py RUNS --collect   the same of what is in RUNS, as far as it got
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from smplora.config.train import TrainConfig
from smplora.core.files import write_json
from smplora.data.digits import write_private_digits
from smplora.experiments.tasks import train
from smplora.runs.folder import GRADIENTS, HESSIAN, RunFolder
from smplora.training.theory.record import summary

RESULTS = Path(__file__).parent / "results"
GAMES = {"mp_lora-0.05-s0": 0.05, "smp_lora-1-s0": 1.0, "smp_lora-0.05-s0": 0.05, "lora-0-s0": 0.0}
SETTINGS: dict[str, Any] = {
    **{"aux_size": 50, "max_train_steps": 1500, "train_batch_size": 10, "learning_rate": 3e-3, "rank": 32},
    **{"lora_targets": "all", "proxy_learning_rate": 1e-3, "validation_steps": 0, "monitor_steps": 0},
    **{"gradient_steps": 1, "hessian_steps": 100},
}


def main() -> None:
    """Train what is missing and collect."""
    runs = Path(sys.argv[1])
    if not (runs / "digits").exists():
        write_private_digits(runs / "digits")
    found: dict[str, Any] = {"command": "python benchmarks/theory.py RUNS", "settings": SETTINGS, "runs": {}}
    for name, mi_lambda in GAMES.items():
        changes = {"objective": name.split("-")[0], "mi_lambda": mi_lambda, "output_dir": str(runs / name)}
        config = TrainConfig(train_data_dir=str(runs / "digits"), **SETTINGS, **changes)
        if "--collect" not in sys.argv:
            train(config)
        run = RunFolder(runs / name)
        gradients, hessian = run.metrics(GRADIENTS), run.metrics(HESSIAN)
        if gradients:
            said = {"steps": gradients[-1]["step"], **summary(config, gradients, hessian), "hessian": hessian}
            found["runs"][name] = said
    write_json(RESULTS / "theory.json", found)


if __name__ == "__main__":
    main()
