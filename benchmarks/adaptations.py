"""Every adaptation method on the bundled model, plain and with SMP, and DP-LoRA at several strengths: what leaks, and
how good the images are.

    python benchmarks/adaptations.py --root runs/adaptations        -> benchmarks/results/adaptations.json

One seed, cells of 50, the attacks of the quick tier: it shows that each method trains, leaks and is audited, and in
which direction SMP moves it. It compares no methods with each other: learning rates were not tuned to equal quality.
Finished runs, audits and evaluations in ``--root`` are taken as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import audited, command, evaluated, parser, train_config, write_result
from smplora.core.environment import environment
from smplora.core.reading import read_json
from smplora.experiments.tasks import train
from smplora.results.attack import GROUPS
from smplora.results.record import as_json
from smplora.runs.folder import PRIVACY

METHODS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 3e-4},
    "dreambooth": {"learning_rate": 3e-4, "class_prompt": "a handwritten digit"},
    "textual_inversion": {"learning_rate": 1e-2, "num_vectors": 4, "initializer_token": "handwritten"},
}
FEW_STEPS: dict[str, Any] = {  # 100 images, half of them in each step
    "objective": "dp_lora", "train_batch_size": 50, "max_train_steps": 200, "checkpointing_steps": 200,
    "max_grad_norm": 0.02, "learning_rate": 3e-3, "rank": 8,
}  # fmt: skip
PRIVATE: dict[str, dict[str, Any]] = {
    "dp_lora-epsilon_8": {**FEW_STEPS, "target_epsilon": 8.0},
    "dp_lora-epsilon_100": {**FEW_STEPS, "target_epsilon": 100.0},
}
COMMON: dict[str, Any] = {
    "mi_lambda": 1.0, "proxy_learning_rate": 1e-3, "aux_size": 50, "test_size": 50, "train_batch_size": 10,
    "max_train_steps": 600, "checkpointing_steps": 600, "monitor_steps": 0, "validation_steps": 0, "run_page": False,
    "device": "cpu",
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    f"{method}-{objective}": {"adaptation": method, "objective": objective, **options}
    for method, options in METHODS.items()
    for objective in ("lora", "smp_lora")
} | PRIVATE


def measured(folder: Path, audit: dict[str, Any], evaluate: dict[str, Any]) -> dict[str, Any]:
    """Audit and evaluate a run, unless that was done; the numbers of docs/log."""
    common: dict[str, Any] = {"adapter": str(folder), "device": "cpu"}
    result, quality = audited(**common, **audit), evaluated(**common, **evaluate)
    auc = {
        group: {
            a.name: {k: getattr(n.auc, k) for k in ("value", "low", "high")}
            for a in result.attacks
            if (n := a.on(group))
        }
        for group in GROUPS
    }
    row = {
        "label": result.subject.label,
        "auc": auc,
        "verdict": result.verdict.level,
        "held_out_loss": as_json(quality.held_out_loss),
        "kid": as_json(quality.against.held_out.kid),
    }
    private = folder / PRIVACY
    return {**row, "privacy": read_json(private)} if private.exists() else row


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__, "train", "audit", "evaluate")
    options.add_argument("--root", type=Path, required=True)
    options.add_argument("--methods", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME", help=", ".join(RUNS))
    args = options.parse_args(arguments)
    root = args.root.resolve()
    rows = {}
    for name in args.methods:
        train(train_config(root / "digits", root / name, **{**COMMON, **RUNS[name], **args.train}))
        rows[name] = measured(root / name, args.audit, args.evaluate)
    record = {
        "command": command(options, args, "--root", "DIR"),
        "common": COMMON,
        "methods": METHODS | PRIVATE,
        "rows": rows,
    }
    write_result(args.results, "adaptations", {**record, "environment": environment()})


if __name__ == "__main__":
    main()
