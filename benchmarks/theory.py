"""The paper's Fig. 1b, Fig. 2 and Table 3 on the bundled model, settings of the quickstart: gradients measured
at every step, Hessian norms at every hundredth. About 8 minutes a run on one core; finished runs are not repeated.

    python benchmarks/theory.py RUNS             -> benchmarks/results/theory.json
    python benchmarks/theory.py RUNS --collect   the same of what is in RUNS, as far as it got
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import RECIPE, command, parser, train_config, write_result
from smplora.experiments.tasks import train
from smplora.results.record import as_json
from smplora.runs.folder import GRADIENTS, HESSIAN, RunFolder
from smplora.training.theory.record import summary

GAMES = {"mp_lora-0.05-s0": 0.05, "smp_lora-1-s0": 1.0, "smp_lora-0.05-s0": 0.05, "lora-0-s0": 0.0}
SETTINGS: dict[str, Any] = {
    **RECIPE, "max_train_steps": 1500, "proxy_learning_rate": 1e-3, "validation_steps": 0, "monitor_steps": 0,
    "gradient_steps": 1, "hessian_steps": 100,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing and collect."""
    options = parser(__file__, __doc__, "train")
    options.add_argument("runs", type=Path, metavar="RUNS")
    options.add_argument("--collect", action="store_true")
    options.add_argument(
        "--games", nargs="+", choices=GAMES, default=list(GAMES), metavar="NAME", help=", ".join(GAMES)
    )
    args = options.parse_args(arguments)
    settings = {**SETTINGS, **args.train}
    rows: dict[str, Any] = {}
    for name in args.games:
        game = {"objective": name.split("-")[0], "mi_lambda": GAMES[name]}
        config = train_config(args.runs / "digits", args.runs / name, **settings, **game)
        if not args.collect:
            train(config)
        run = RunFolder(args.runs / name)
        gradients, hessian = run.metrics(GRADIENTS), run.metrics(HESSIAN)
        if gradients:
            rows[name] = {
                "steps": gradients[-1]["step"],
                **as_json(summary(config, gradients, hessian)),
                "hessian": hessian,
            }
    record = {"command": command(options, args, "RUNS"), "settings": settings, "runs": rows}
    write_result(args.results, "theory", record, show=False)


if __name__ == "__main__":
    main()
