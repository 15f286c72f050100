"""Privacy against quality where attackers train shadow adapters with the same defence.

    python benchmarks/arena.py --root runs/arena --settings synth_lora,num_synthetic_images=600 --pairs 0:10 1:11
    python benchmarks/arena.py --root runs/arena --settings .. --collect

Settings against LoRA stopped early, as in benchmarks/front.py, with two differences. All splits divide the same images,
so that the shadow adapters of a setting serve all its runs (they know no split). Quality is measured on the half of the
reference images that `--drop_nearest balanced` does not choose by, for every setting (cells of 200 leave 50 of the
digits: there the 400 non-members are references too). And the attack that counts is the
strongest, chosen on the other half, of those that train nothing and those that compare with shadows; of test and aux
members the group that is worse off counts.

Other images and another base model, such as those of scripts/openmoji.py: name them in --train (train_data_dir,
pretrained_model_name_or_path), and in --evaluate networks that know them (features, clip_score_model); a hundredth of
the CLIP score is the alignment of captions then.

The goal (docs/log): the interval of the strongest attack ends at or below 0.60 on the worse group, at a held-out FID no
worse than that of LoRA stopped where its own strongest attack first reaches 0.75.

Results: benchmarks/results/arena.json, docs/images/arena_fid.svg and arena_held_out_loss.svg.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment import caption_alignment
from common import by_attack, command, ends, parser, write_result
from front import compare, estimate, reached, run_all, run_options, shortest, subjects, write_figures
from smplora.config.audit import AuditConfig
from smplora.config.data import DataOptions
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.core.environment import environment
from smplora.core.parallel import Task
from smplora.core.random_streams import stream_seed
from smplora.data.digits import write_private_digits
from smplora.data.pool import open_source, read_samples
from smplora.data.split import MANIFEST, Split, chooses, read_split, write_split
from smplora.experiments.tasks import task
from smplora.results.attack import GROUPS
from smplora.results.audit import Audit
from smplora.results.manifest import CELLS
from smplora.results.quality import Quality
from smplora.results.record import read
from smplora.runs.folder import read_config

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images"
ATTACKS = ["loss", "calibrated_loss", "sima", "pia", "lira_offline", "rmia"]
AUDIT: dict[str, Any] = {"noise_pairs": 1, "num_timesteps": 5, "memorisation": False}
TRAIN_NOTHING = ("loss", "calibrated_loss", "sima", "pia")
CANDIDATES = "arena"  # names the stream that chooses the audited images
QUALITY_OF = ("fid", "kid", "precision", "recall")
MEASURED = (*QUALITY_OF, "caption_alignment", "held_out_loss")
FEWEST_UNSEEN = 200  # images that FID compares with
REACHED, ALLOWED = 0.75, 0.60  # of the goal
Row = dict[str, Any]


def same_candidates(images: Path, cell: int, split_seed: int) -> Split:
    """Four cells of ``cell`` images each, always of the same images, and all others for reference.

    Raises:
        ValueError: too few images.
    """
    samples = sorted(read_samples(open_source(DataOptions(train_data_dir=str(images)))), key=lambda s: s.digest)
    if len(samples) <= 4 * cell:
        raise ValueError(f"{len(samples)} images are too few for cells of {cell}")
    order = np.random.default_rng(stream_seed(0, CANDIDATES)).permutation(len(samples))
    asked = order[: 4 * cell][np.random.default_rng(stream_seed(split_seed, CANDIDATES)).permutation(4 * cell)]
    cells = {name: tuple(samples[i] for i in asked[k * cell : (k + 1) * cell]) for k, name in enumerate(CELLS[:4])}
    return Split("fixed", split_seed, cells | {"reference": tuple(samples[i] for i in order[4 * cell :])})


def tasks_of(args: Namespace, config: TrainConfig) -> Iterator[Task]:
    """Train a run, audit and evaluate what is measured of it."""
    yield task(config.output_dir, config)
    shadows = {"shadows": args.shadows, "shadow_dir": str(args.root.resolve() / "shadows")}
    for subject in subjects(args, config):
        common: Row = {"adapter": str(subject), "workers": args.shadow_workers}  # one seed: shadows are the same
        audit = AuditConfig(**{**common, **shadows, **AUDIT, "attacks": ATTACKS, **args.audit})
        yield task(f"audit {subject}", audit, config.output_dir)
        unseen: Row = {"seed": config.seed, "num_images": 300, "split_manifest": str(unseen_references(config))}
        quality = EvaluateConfig(**{"adapter": str(subject), **unseen, **args.evaluate})
        yield task(f"evaluate {subject}", quality, f"audit {subject}")


def unseen_references(config: TrainConfig) -> Path:
    """The manifest of the run's split without the reference images that may choose among drawn ones. Where fewer than
    ``FEWEST_UNSEEN`` are left, the non-members are references too: no run has seen them either."""
    manifest = Path(config.split_manifest or "")
    folder = manifest.parent / "unseen"
    if not (folder / MANIFEST).exists():
        whole = read_split(manifest, read_samples(open_source(config)))
        left = {**whole.cells, "reference": tuple(s for s in whole.cells["reference"] if not chooses(s))}
        if len(left["reference"]) < FEWEST_UNSEEN:
            left["reference"] += left["test_nonmember"] + left["aux_nonmember"]
            left |= {"test_nonmember": (), "aux_nonmember": ()}
        write_split(Split(whole.protocol, whole.seed, left), folder)
    return folder / MANIFEST


def numbers(subject: Path) -> Row:
    """Audit and evaluation of a run or checkpoint."""
    audit = read(subject / "audit" / "audit.json", Audit, "audit")
    quality = read(subject / "quality" / "quality.json", Quality, "evaluate")
    against, loss = quality.against.held_out, quality.held_out_loss
    strongest = {
        group: {
            "attack": audit.strongest[group].attack,
            "auc": ends(audit.strongest[group].auc, 4),
            "tpr_at_10_percent": found.rates[0.1].value,
        }
        for group in GROUPS
        if (found := next(a.on(group) for a in audit.attacks if a.name == audit.strongest[group].attack))
    }
    run = subject.parents[1] if subject.parent.name == "checkpoints" else subject
    worse = max(GROUPS, key=lambda group: strongest[group]["auc"][0])
    return {
        "step": audit.subject.step,
        "level": audit.verdict.level,
        "strongest": strongest,
        "worse": worse,
        "auc": by_attack(audit, lambda n: round(n.auc.value, 4)),
        **{name: getattr(against, name).value for name in QUALITY_OF},
        "held_out_loss": loss.value if loss else None,
        **(
            {"caption_alignment": quality.clip_score.generated.value / 100}
            if quality.clip_score
            else caption_alignment(subject, unseen_references(read_config(run, TrainConfig)))
        ),
    }


def means(rows: Sequence[Row]) -> list[Row]:
    """Every setting and step over its seeds and splits; ``strongest_test`` is what figures show."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["setting"], row["step"]].append(row)
    return [
        {
            "setting": setting,
            "step": step,
            "worse": _over(r["strongest"][r["worse"]]["auc"][0] for r in group),
            "worse_ends": _over(r["strongest"][r["worse"]]["auc"][2] for r in group),
            "tpr_at_10_percent": _over(r["strongest"][r["worse"]]["tpr_at_10_percent"] for r in group),
            "largest": _over(_largest(r, ATTACKS) for r in group),
            "lira_offline": _over(_largest(r, ["lira_offline"]) for r in group),
            "without_shadows": _over(_largest(r, TRAIN_NOTHING) for r in group),
            **{name: _over(r[name] for r in group) for name in MEASURED},
        }
        for (setting, step), group in groups.items()
    ]


def _over(values: Iterable[float | None]) -> Row | None:
    """Over the runs that have the number."""
    known = [value for value in values if value is not None]
    return estimate(known) if known else None


def _largest(row: Row, attacks: Sequence[str]) -> float | None:
    """The largest AUC of these attacks on either group: by hindsight, so of several it is too large by chance."""
    found = [auc for name, of_one in row["auc"].items() if name in attacks for auc in of_one.values()]
    return max(found) if found else None


def against_early_stopping(rows: Sequence[Row], setting: str) -> Row:
    """How much more a setting leaks, by the attack that counts, than LoRA of the same seed and split, stopped where it
    is first as good; see ``front.compare``."""
    counted = [{**row, "strongest": dict.fromkeys(GROUPS, row["strongest"][row["worse"]]["auc"][0])} for row in rows]
    return {name.removeprefix("test "): found for name, found in compare(counted, setting).items() if "test" in name}


def goal(over: Sequence[Row]) -> Row:
    """Which settings are inside the goal, by means over seeds and splits; between LoRA's stops on straight lines."""
    stops = sorted((row for row in over if row["setting"] == "lora"), key=lambda row: row["step"])
    curve = [(row["worse"]["value"], row["fid"]["value"]) for row in stops]
    fid, _ = reached([(REACHED - auc, fid) for auc, fid in curve], 0.0) if curve else (None, "")
    if not curve or max(auc for auc, _ in curve) < REACHED:
        return {"lora_fid_at_0.75": None, "met": {}}
    met = {
        f"{row['setting']}, {row['step']} steps": {
            "auc_ends": row["worse_ends"]["value"],
            "fid": row["fid"]["value"],
            "met": row["worse_ends"]["value"] <= ALLOWED and row["fid"]["value"] <= fid,
        }
        for row in over
        if row["setting"] != "lora" and row["fid"]
    }
    return {"lora_fid_at_0.75": fid, "met": met}


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, compare and write."""
    options = parser(__file__, __doc__, "train", "audit", "evaluate")
    options.add_argument("--root", type=Path, required=True)
    options.add_argument("--settings", nargs="+", default=[], help="plain LoRA is always among them")
    options.add_argument("--pairs", nargs="+", default=["0:10", "1:11", "2:12", "3:13"], help="SEED:SPLIT")
    options.add_argument("--stops", type=int, nargs="+", default=[50, 100, 200], help="steps of plain LoRA")
    options.add_argument("--steps", type=int, default=400, help="of the LoRA whose checkpoints they are")
    options.add_argument("--shadows", type=int, default=16)
    options.add_argument("--shadow_workers", type=int, default=1, help="processes that train them")
    options.add_argument("--aux_size", type=int, default=100, help="images in each cell; with another --root")
    options.add_argument("--name", default="arena")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--only", action="store_true", help="run the settings without plain LoRA, and write nothing")
    options.add_argument("--collect", action="store_true", help="run nothing: write what was measured so far")
    options.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the figures")
    args = options.parse_args(arguments)
    root = args.root.resolve()
    images = Path(args.train.get("train_data_dir") or write_private_digits(root / "images"))
    plain = [shortest(args), "lora"]
    runs = []
    for seed, split in (map(int, pair.split(":")) for pair in args.pairs):
        folder = root / f"split-{split}" / f"seed-{seed}"
        if not (folder / MANIFEST).exists():
            write_split(same_candidates(images, args.aux_size, split), folder)
        for setting in dict.fromkeys([*([] if args.only else plain), *args.settings]):
            steps = {"max_train_steps": args.steps} if setting == "lora" else {}
            own = Namespace(**{**vars(args), "train": {**args.train, **steps}})
            runs.append(({"setting": setting, "seed": seed, "split": split}, run_options(own, setting, seed, split)))
    rows = run_all(args, runs, tasks_of, numbers)
    if args.only:
        return
    over = means(rows)
    record = {
        "command": command(options, args, "--root", "DIR"),
        "attacks": args.audit.get("attacks", ATTACKS),
        "means": over,
        "against_early_stopping": {setting: against_early_stopping(rows, setting) for setting in args.settings},
        "goal": goal(over),
        "rows": rows,
        "environment": environment(),
    }
    write_result(args.results, args.name, record, show=False)
    shown = [{**row, "strongest_test": row["worse"]} for row in over]
    write_figures(shown, args.pictures, args.name)


if __name__ == "__main__":
    main()
