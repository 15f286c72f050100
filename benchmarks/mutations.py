"""Changes files of every kind at random and lets smplora read them: each must be used, or refused in a line.

Two rounds: the readers themselves, as in the tests but with other changes, and the real commands (split, audit
--signals, report, export, push --dry_run, train of one step, train resumed) on changed inputs, base models among them.
Counts what was tried, refused and taken; whatever ends otherwise is listed.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
import traceback
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from common import command, parser, train_config, write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mutations import Kind, attempt, kinds, mutated, mutated_tensors
from smplora.core.errors import UserError
from smplora.core.files import BUNDLED_FOLDER

TRAINING_S = 60  # that a command may take which trains where it takes the file; 10 for all others
MODEL_FILES = (
    "model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json",
    "text_encoder/config.json", "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json",
    "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
)  # fmt: skip


class Refused(UserError):
    """A command said what is wrong and ended with 2 or 3."""


def prepared(folder: Path) -> tuple[Path, Path]:
    """A trained and audited run, and its images."""
    from smplora.config.audit import AuditConfig
    from smplora.experiments.tasks import audit, train

    few = folder / "images"
    config = train_config(few, folder / "run", aux_size=8, test_size=8, reference_size=8, rank=2, max_train_steps=4,
                          train_batch_size=4, checkpointing_steps=2, objective="smp_lora")  # fmt: skip
    train(config, progress=False)
    audit(AuditConfig(adapter=str(folder / "run"), attacks=["loss"], num_timesteps=1, noise_pairs=1))
    return folder / "run", Path(config.train_data_dir or "")


def by_command(folder: Path, run: Path, images: Path, readers: list[Kind]) -> Iterator[Kind]:
    """Files with the real commands that read them."""
    pool, output = folder / "pool", folder / "out"
    own = folder / "run"

    def cli(*words: object) -> Callable[[], object]:
        return lambda: run_command([str(word) for word in words], output)

    files = {kind.name: kind for kind in readers}
    report = ("report", own, "--output", output / "page.html")
    for name in ("config.yaml", "split.json", "DONE.json", "metrics.jsonl", "audit/audit.json", "environment.json"):
        yield Kind(f"report: {name}", own / name, cli(*report))
    for path in (*sorted(own.glob("*.safetensors")), own / "config.yaml", own / "DONE.json", own / "model.json"):
        yield Kind(f"export: {path.name}", path, cli("export", "--adapter", own, "--output_dir", output / "export"))
        yield Kind(
            f"push --dry_run: {path.name}", path, cli("push", "--adapter", own, "--repo_id", "a/b", "--dry_run", True)
        )
    signals = files["--signals"].path
    yield Kind("audit --signals", signals, cli("audit", "--signals", signals, "--output_dir", output / "signals"))
    split = ("split", "--train_data_dir", pool, "--output_dir", output / "split", "--default_caption", "x")
    yield Kind("split: an image", pool / "0.png", cli(*split))
    few = ("--train_batch_size", 1, "--max_train_steps", 1, "--monitor_steps", 0, "--validation_steps", 0)
    base = folder / "base"
    shutil.copytree(BUNDLED_FOLDER, base)
    start = ("train", "--train_data_dir", pool, "--default_caption", "x", "--aux_size", 2, *few)
    for name in MODEL_FILES:
        model = ("--pretrained_model_name_or_path", base)
        yield Kind(
            f"train: {name}", base / name, cli(*start, *model, "--output_dir", output / "run"), seconds=TRAINING_S
        )
    resume = ("train", "--config", own / "config.yaml", "--output_dir", own, "--resume_from_checkpoint", "latest")
    newest = sorted((own / "checkpoints").glob("checkpoint-*"))[-1]
    for path in (*sorted(newest.glob("*")), own / "split.json", own / "model.json", own / "metrics.jsonl"):
        if path.is_file():
            yield Kind(f"train, resumed: {path.name}", path, _unfinished(own, cli(*resume)), seconds=TRAINING_S)


def _unfinished(run: Path, read: Callable[[], object]) -> Callable[[], object]:
    """On a copy of a run that is not complete: the command goes on with it."""

    def reading() -> object:
        kept = run.with_name("kept")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(run, kept)
        (run / "DONE.json").unlink(missing_ok=True)
        try:
            return read()
        finally:
            shutil.rmtree(run)
            kept.rename(run)

    return reading


def run_command(words: list[str], output: Path) -> None:
    """The command line in this process.

    Raises:
        Refused: it said what is wrong, and ended with 2 or 3.
        AssertionError: it ended in another way.
    """
    from smplora.cli.main import main

    shutil.rmtree(output, ignore_errors=True)
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = main(words)
    said = err.getvalue()
    assert status in (0, 2, 3), f"status {status}: {said[-500:]}"
    assert "Traceback" not in said, said[-1000:]
    left = [path for path in output.rglob("*") if path.name.startswith(".smplora-") and "lock" not in path.name]
    assert not left, f"half-written: {left}"
    if status:
        lines = [line for line in said.splitlines() if line.startswith("smplora: ") and "loading" not in line]
        assert lines, said[-500:]
        raise Refused(lines[0])


def tried(readers: list[Kind], number: int, start: int) -> dict[str, Any]:
    """Change ``number`` files."""
    refused = {kind.name: said for kind in readers if (said := attempt(kind.read, kind.seconds)) is not None}
    if refused:
        raise SystemExit(f"refused without a change: {refused}")
    counts: dict[str, Counter[str]] = {kind.name: Counter() for kind in readers}
    wrong: dict[str, str] = {}

    @seed(start)
    @settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def one(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(readers))
        original = kind.path.read_bytes()
        content = data.draw((mutated_tensors if kind.path.suffix == ".safetensors" else mutated)(original))
        kind.path.write_bytes(content)
        try:
            result = "refused" if attempt(kind.read, kind.seconds) is not None else "taken"
        except Exception as error:  # counted and shown, so that one fault does not hide the others
            result = "wrong"
            frames = traceback.extract_tb(error.__traceback__)
            ours = (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames) if "smplora" in f.filename)
            place = next(ours, "")
            wrong.setdefault(f"{type(error).__name__} {place}", f"{kind.name}: {str(error)[:300]}")
        finally:
            kind.path.parent.mkdir(parents=True, exist_ok=True)
            kind.path.write_bytes(original)
        counts[kind.name][result] += 1

    one()
    totals = Counter[str]()
    for count in counts.values():
        totals.update(count)
    return {
        "mutations": totals.total(),
        "refused": totals["refused"],
        "taken": totals["taken"],
        "wrong": totals["wrong"],
        "faults": wrong,
        "by_kind": {name: dict(count) for name, count in counts.items() if count},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__file__, __doc__)
    options.add_argument("--readers", type=int, default=5000, help="changes that readers are tried on")
    options.add_argument("--commands", type=int, default=500, help="changes that commands are tried on")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        record = measured(Path(folder), args)
    write_result(args.results, "mutations", {"command": command(options, args), **record})


def measured(folder: Path, args: Namespace) -> dict[str, Any]:
    """Both rounds."""
    run, images = prepared(folder)
    (folder / "kinds").mkdir()
    readers = list(kinds(folder / "kinds", run, images, run))
    commands = list(by_command(folder / "kinds", run, images, readers))
    return {
        "seed": args.seed,
        "readers": tried(readers, args.readers, args.seed),
        "commands": tried(commands, args.commands, args.seed) if args.commands else {},
    }


if __name__ == "__main__":
    main()
