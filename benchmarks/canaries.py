"""What canaries prove of LoRA, SMP-LoRA and DP-LoRA: epsilon and mu from one run each, beside what DP-LoRA promises.

    python benchmarks/canaries.py [--folder DIR] [--steps 1500] [--canaries 200] [--objectives lora smp_lora dp_lora]

Results: benchmarks/results/canaries.json; objectives that are not named keep what was measured before.

The quickstart's recipe on 50 images a cell, and as many canaries as said, of which a coin puts half in; quick audits.
"held_out": digits that nothing else is done with, with their captions. "patterns": 4 x 4 random colours, enlarged
bicubically, with a caption of its own each, as somebody might make them up who can spare no images. One seed: the
standard error of an AUC is about 0.04.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import RECIPE, audited, ends, parser, record_of, train_config, write_result
from smplora.core.random_streams import stream_seed
from smplora.core.reading import read_json
from smplora.data.digits import RESOLUTION, write_private_digits
from smplora.data.folder import write_folder
from smplora.experiments.tasks import train
from smplora.runs.folder import PRIVACY

OBJECTIVES = ("lora", "smp_lora", "dp_lora")
KINDS = ("held_out", "patterns")


def folders(root: Path, number: int) -> tuple[Path, dict[str, Path]]:
    """Images to train on, and canaries of both kinds; no digit is in two of them."""
    digits, images, own = write_private_digits(root / "digits"), root / "images", root / "held_out"
    rows = [json.loads(line) for line in (digits / "metadata.jsonl").read_text().splitlines()]
    order = np.random.default_rng(0).permutation(len(rows))
    for folder, part in ((own, order[:number]), (images, order[number:])):
        folder.mkdir(exist_ok=True)
        for i in part:
            shutil.copy(digits / rows[i]["file_name"], folder)
        (folder / "metadata.jsonl").write_text("".join(json.dumps(rows[i]) + "\n" for i in part))
    made = ((f"{k:05d}.png", pattern(k), [f"pattern number {k}"]) for k in range(number))
    return images, {"held_out": own, "patterns": write_folder(root / "patterns", made)}


def pattern(number: int) -> Image.Image:
    """A picture of smooth colours, a function of its number."""
    rng = np.random.default_rng(stream_seed(0, "canary", number))
    patches = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return patches.resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC)


def measured(root: Path, objective: str, kind: str, args: Namespace) -> dict[str, Any]:
    """Train with canaries, unless that was done, and audit."""
    images, kinds = folders(root, args.canaries)
    own: dict[str, dict[str, Any]] = {
        "smp_lora": {"mi_lambda": 1.0, "proxy_learning_rate": 1e-3},
        "dp_lora": {
            "target_epsilon": 8.0, "target_delta": args.delta, "max_grad_norm": 0.02, "train_batch_size": 50,
            "max_train_steps": args.steps // 10,
        },
    }  # fmt: skip
    options = {**RECIPE, "objective": objective, "max_train_steps": args.steps, "canaries_dir": str(kinds[kind])}
    options |= {"device": "cpu", **own.get(objective, {}), **args.train}
    run = train(train_config(images, root / f"{objective}-{kind}", **options))
    found = audited(**{"adapter": str(run), "device": "cpu", "target_delta": args.delta, **args.audit})
    assert found.canaries is not None
    one = found.canaries.one_run
    promise = read_json(run / PRIVACY) if objective == "dp_lora" else None
    return {
        "inside": found.canaries.inside,
        "outside": found.canaries.outside,
        "attack": found.canaries.attack,
        "auc": ends(found.canaries.auc, 2),
        "guesses": one.guesses,
        "right": one.right,
        "epsilon": round(one.value, 3),
        "mu": round(one.mu or 0.0, 3),
        "gaussian_epsilon": None if one.gaussian_epsilon is None else round(one.gaussian_epsilon, 3),
        "ceiling": round(one.ceiling, 3),
        "promised_epsilon": promise and promise["epsilon"],
        "test_auc": ends(found.strongest["test"].auc, 2),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__, "train", "audit")
    options.add_argument("--folder", type=Path)
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--canaries", type=int, default=200)
    options.add_argument("--delta", type=float, default=1e-3)
    options.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    args = options.parse_args(arguments)
    whole = {"objectives": list(OBJECTIVES), "kinds": list(KINDS)}
    record = record_of(options, args, "canaries", ["steps", "canaries"], **whole)
    with tempfile.TemporaryDirectory() as temporary:
        for objective in args.objectives:
            for kind in args.kinds:
                root = args.folder or Path(temporary)
                record.setdefault(objective, {})[kind] = measured(root, objective, kind, args)
                write_result(args.results, "canaries", record, show=False)


if __name__ == "__main__":
    main()
