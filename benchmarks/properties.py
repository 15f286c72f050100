"""How far off an attacker is who asks a LoRA how many images it was trained on, and which share of them is a five.

    python benchmarks/properties.py --folder runs/properties        -> benchmarks/results/properties.json

The quickstart's options, 300 steps, 12 reference adapters for each question. Sizes: the private digits with their
captions. Shares: the same caption for all, 60 images of which 0.1, 0.5 and 0.9 are fives. Adapters of one question are
asked with the same reference adapters, which are trained on images that none of them has. One seed. What is done in the
folder is used as it is, so that a killed call goes on.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import RECIPE, command, parser, train_config, write_result
from smplora.config.train import TrainConfig
from smplora.core.environment import environment
from smplora.data import digits
from smplora.data.attributes import attribute_values
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.split import Split, write_split
from smplora.experiments.tasks import train
from smplora.results.properties import Question

SIZES, SHARES, SHARE_OF = (25, 50, 100, 200), (0.1, 0.5, 0.9), 60
COLUMN, FIVE = "digit", "five"


def without_captions(captioned: Path, folder: Path) -> Path:
    """The private digits with one caption for all; which digit it is stands in a column of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (captioned / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        (folder / row["file_name"]).write_bytes((captioned / row["file_name"]).read_bytes())
    told = [{**row, "text": "a handwritten digit", COLUMN: row["text"].split()[-1]} for row in rows]
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in told), encoding="utf-8")
    return folder


def mixed(samples: Sequence[Sample]) -> list[Sample]:
    """In random order."""
    ordered = sorted(samples, key=lambda s: s.digest)
    return [ordered[i] for i in np.random.default_rng(0).permutation(len(ordered))]


def written(members: Sequence[Sample], held: Sequence[Sample], folder: Path) -> Path:
    """A split that trains on ``members`` and leaves ``held`` to the attacker."""
    half, few = len(members) // 2, min(len(members), len(held) // 2)
    cells = {
        "aux_member": tuple(members[:half]),
        "test_member": tuple(members[half:]),
        "aux_nonmember": tuple(held[: few // 2]),
        "test_nonmember": tuple(held[few // 2 : few]),
        "reference": tuple(held[few:]),
    }
    return write_split(Split("fixed", 0, cells), folder)


def answers(question: Question) -> dict[str, Any]:
    """What the log shows."""
    shown: dict[str, Any] = {"truth": question.truth, "error_without": question.error_without, "p": question.p}
    for one in question.answers:
        shown[one.name] = {name: getattr(one, name) for name in ("value", "low", "high", "level", "off", "error", "p")}
    return shown


def asked(folder: Path, run: str, images: Path, manifest: Path, args: Namespace, **options: Any) -> Any:
    """A run, trained unless it is there, and what it tells."""
    from smplora.config.properties import PropertiesConfig
    from smplora.experiments.tasks import properties

    recipe = {name: value for name, value in RECIPE.items() if name != "aux_size"}
    steps = {"max_train_steps": args.steps, "checkpointing_steps": args.steps}
    made = train_config(
        images, folder / run, **{**recipe, **steps, "split_manifest": str(manifest), "device": "cpu", **args.train}
    )
    config = TrainConfig(**{**vars(made), "train_data_dir": str(images)})
    common: dict[str, Any] = {"adapter": str(train(config)), "device": "cpu", "workers": 1}
    return properties(PropertiesConfig(**{**common, **options, **args.properties}))


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = parser(__file__, __doc__, "train", "properties")
    options.add_argument("--folder", type=Path)
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options.add_argument("--shares", type=float, nargs="+", default=SHARES)
    options.add_argument("--share_of", type=int, default=SHARE_OF)
    options.add_argument("--only", choices=("size", "share"))
    args = options.parse_args(arguments)
    record: dict[str, Any] = {"command": command(options, args, always=["steps"]), "size": {}, "share": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        captioned = digits.write_private_digits(folder / "images")
        pool = mixed(read_samples(open_source(TrainConfig(train_data_dir=str(captioned)))))
        for size in args.sizes if args.only != "share" else ():
            manifest = written(pool[:size], pool[max(args.sizes) :], folder / "splits" / f"size-{size}")
            own = {"reference_dir": str(folder / "references"), "sizes": None}
            record["size"][size] = answers(asked(folder, f"size-{size}", captioned, manifest, args, **own).size)
        plain = without_captions(captioned, folder / "plain")
        source = open_source(TrainConfig(train_data_dir=str(plain)))
        values = attribute_values(source, COLUMN)
        pool = mixed(read_samples(source))
        five = [s for s in pool if values[s.file] == FIVE]
        other = [s for s in pool if values[s.file] != FIVE]
        most = [round(share * args.share_of) for share in args.shares]
        kept = (max(most), args.share_of - min(most))  # no attacker has them
        for share, count in zip(args.shares, most, strict=True) if args.only != "size" else ():
            members = mixed([*five[:count], *other[: args.share_of - count]])
            held = mixed([*five[kept[0] :], *other[kept[1] :]])
            manifest = written(members, held, folder / "splits" / f"share-{share}")
            own = {
                "reference_dir": str(folder / "references-plain"),
                "attribute": COLUMN,
                "attribute_value": FIVE,
                "count": False,
            }
            result = asked(folder, f"share-{share}", plain, manifest, args, **own)
            record["share"][share] = answers(result.share)
    write_result(args.results, "properties", {**record, "environment": environment()})


if __name__ == "__main__":
    main()
