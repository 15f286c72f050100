"""Commands that are killed at random moments and started again: is every file that of an undisturbed command?

    python benchmarks/kills.py [--kills 160] [--seed 0] [--only train/lora ...]   -> benchmarks/results/kills.json

Each command first runs undisturbed, in a folder that holds what it starts from: its latents, its adapter. Then it is
killed up to four times in a row, each time after a random part of the time it takes alone, and started again until it
is complete. Every fourth signal is SIGTERM, as schedulers send it, the others are SIGKILL. All files of the folder, its
cache too, are then compared byte for byte with those of the undisturbed command, but for what tells the time and the
folders' own locks ("not_compared"). A stop by SIGTERM leaves a checkpoint of the step it met, for which an older one
may go: then checkpoints before the last are compared only where both have them. A difference, or an exit status other
than 0 at the end, is no survival. Half-written files that are still there at the end are counted ("left_behind").
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from common import command, parser, write_result
from smplora.core.files import UNFINISHED
from smplora.data.digits import write_private_digits
from smplora.runs.folder import LOCK

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import warm

IMAGES = 34
CACHE = "cache"
MOST_IN_A_ROW = 4
LOCKED = "by another process"  # a worker of a killed command ends a little later
CLOCKS = ("elapsed_s",)  # fields that tell how long something took
TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?")  # when a page was written
UNCOMPARED = (LOCK, "environment.json")  # names of files: empty; versions and the machine
CHECKPOINT = re.compile(r".*/checkpoint-[1-5]/")  # before the last, of step 6


class Case(NamedTuple):
    """A command, and the one whose result it starts from."""

    words: str
    after: str | None = None
    weight: float = 1  # share of the kills


TRAIN = (
    "train --train_data_dir IMAGES --pretrained_model_name_or_path tiny --output_dir run --device cpu --aux_size 6 "
    "--reference_size 10 --train_batch_size 3 --rank 2 "
    "--learning_rate 1e-3 --max_train_steps 6 --checkpointing_steps 2 --logging_steps 1 "
)
QUICK = "--num_timesteps 2 --noise_pairs 1 --device cpu"
CASES = {
    "train/lora": Case(TRAIN + "--monitor_steps 3 --validation_steps 3 --validation_inference_steps 2", weight=3),
    "train/smp_lora": Case(TRAIN + "--objective smp_lora --use_ema true --lr_scheduler cosine", weight=3),
    "train/mp_lora": Case(TRAIN + "--objective mp_lora --gradient_accumulation_steps 2 --lora_targets all", weight=2),
    "train/distill_lora": Case(TRAIN + "--objective distill_lora --teacher_steps 4", weight=3),
    "train/synth_lora": Case(
        TRAIN + "--objective synth_lora --synthetic_teachers 2 --teacher_steps 2 --num_synthetic_images 12 "
        "--synthetic_inference_steps 2 --sample_batch_size 3",
        weight=3,
    ),
    "train/full": Case(TRAIN.replace("--rank 2", "") + "--adaptation full --checkpoints_total_limit 2", weight=2),
    "train/textual_inversion": Case(
        TRAIN.replace("--rank 2", "") + "--adaptation textual_inversion --initializer_token digit", weight=2
    ),
    "split": Case("split --train_data_dir IMAGES --output_dir run --aux_size 6"),
    "audit": Case(f"audit run --attacks [loss,calibrated_loss,gsa1] {QUICK}", "train/lora", weight=2),
    "audit/shadows": Case(f"audit run --shadows 4 --workers 1 --attacks [loss,lira] {QUICK}", "train/lora", 0.5),
    "evaluate": Case(
        "evaluate run --num_images 24 --num_inference_steps 2 --batch_size 6 --device cpu", "train/lora", 2
    ),
    "report": Case("report run --output report.html", "audit"),
    "report/shareable": Case("report run --output report.html --shareable true", "audit"),
    "export": Case("export --adapter run --output_dir published", "audit"),
    "sweep": Case(
        TRAIN.replace("train --", "sweep --")
        + "--seeds [0,1] --workers 1 --audit '{num_timesteps: 1, noise_pairs: 1}' "
        "--evaluate '{num_images: 20, num_inference_steps: 1}'",
        weight=0.5,
    ),
    "cache": Case("cache --clear true", "audit"),
}


def comparable(path: Path) -> bytes:
    """A file without what tells the time."""
    content = path.read_bytes()
    if path.suffix == ".jsonl":
        return b"\n".join(json.dumps(_timeless(json.loads(line))).encode() for line in content.splitlines())
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(content))).encode()
    if path.suffix == ".safetensors" and path.parent.parent.name == CACHE:  # the library's order is another every time
        length = int.from_bytes(content[:8], "little")
        return json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode() + content[8 + length :]
    return TIME.sub(b"", content) if path.suffix in (".html", ".md") else content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(v) for name, v in value.items() if name not in CLOCKS}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is compared, by its path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in UNCOMPARED)
    paths = (path for path in paths if not path.name.startswith(UNFINISHED))
    return {str(path.relative_to(folder)): comparable(path) for path in paths}


class Bench:
    """Commands in one folder, which is set back between them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.work, self.random = folder, folder / "work", random.Random(seed)
        everything = write_private_digits(folder / "digits")
        self.images = folder / "images"
        self.images.mkdir()
        rows = (everything / "metadata.jsonl").read_text().splitlines()[:IMAGES]
        for row in rows:
            name = json.loads(row)["file_name"]
            shutil.copyfile(everything / name, self.images / name)
        (self.images / "metadata.jsonl").write_text("\n".join(rows))
        self.expected: dict[str, dict[str, bytes]] = {}
        self.takes: dict[str, float] = {}
        self.signals = self.left_behind = 0
        warm.run("--version")  # what all are forked from has imported everything

    def set_back(self, name: str) -> None:
        """Only what the command starts from is there."""
        after = CASES[name].after
        if after is not None:
            self.undisturbed(after)
        shutil.rmtree(self.work, ignore_errors=True)
        if after is None:
            self.work.mkdir()
        else:
            shutil.copytree(self.folder / after.replace("/", "-"), self.work)

    def start(self, name: str) -> warm.Process:
        """The command, in the folder."""
        words = [str(self.images) if word == "IMAGES" else word for word in shlex.split(CASES[name].words)]
        environment = {**os.environ, "SMPLORA_CACHE": CACHE, "COLUMNS": "100", "SMPLORA_FOLDER": str(self.work)}
        with (self.folder / "said.txt").open("w") as said:
            program = f"import os; os.chdir(os.environ['SMPLORA_FOLDER']); {warm.COMMAND}"
            return warm.start(*words, program=program, env=environment, stdout=said, stderr=said)

    def said(self) -> str:
        """What the last command said."""
        return (self.folder / "said.txt").read_text()

    def undisturbed(self, name: str) -> None:
        """Run a command alone and keep what it leaves."""
        if name in self.expected:
            return
        self.set_back(name)
        start = time.perf_counter()
        status = self.start(name).wait()
        self.takes[name] = time.perf_counter() - start
        if status:
            raise SystemExit(f"{name} ended with exit status {status}: {self.said()}")
        shutil.copytree(self.work, self.folder / name.replace("/", "-"))
        self.expected[name] = contents(self.work)

    def killed(self, name: str) -> tuple[int, list[str]]:
        """Kill a command up to ``MOST_IN_A_ROW`` times, and let it end: signals that met it, and what went wrong."""
        self.set_back(name)
        kills, stopped = 0, False
        for _ in range(MOST_IN_A_ROW):
            process = self.start(name)
            time.sleep(self.random.uniform(0, self.takes[name]))
            if process.poll() is not None:
                if process.returncode and LOCKED not in self.said():
                    return kills, [f"exit status {process.returncode}: {self.said()[-500:]}"]
                break
            self.signals += 1
            number = signal.SIGTERM if self.signals % 4 == 0 else signal.SIGKILL
            os.kill(process.pid, number)
            status = process.wait()
            if number == signal.SIGKILL and status != -number:
                break  # it was just ending
            if number == signal.SIGTERM and status not in (0, 143, -number):
                return kills, [f"exit status {status} after SIGTERM: {self.said()[-500:]}"]
            kills += 1
            stopped |= number == signal.SIGTERM
        for _ in range(600):
            status = self.start(name).wait()
            if not (status == 2 and LOCKED in self.said()):
                break
            time.sleep(0.1)
        if status:
            return kills, [f"exit status {status}: {self.said()[-500:]}"]
        found, expected = contents(self.work), self.expected[name]
        self.left_behind += sum(path.is_file() for path in self.work.rglob(f"{UNFINISHED}*") if path.name != LOCK)
        paths = {*found, *expected}
        if stopped:
            paths -= {path for path in {*found} ^ {*expected} if CHECKPOINT.match(path)}
        return kills, [path for path in sorted(paths) if found.get(path) != expected.get(path)]


def main(arguments: list[str] | None = None) -> None:
    """Kill and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--kills", type=int, default=160, help="signals to send, all commands together")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    args = options.parse_args(arguments)
    names = [name for name in CASES if name in args.only]
    weights = sum(CASES[name].weight for name in names)
    record: dict[str, Any] = {
        "command": command(options, args, always=["kills", "seed"]),
        "not_compared": {"files": UNCOMPARED, "fields": CLOCKS},
    }
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), args.seed)
        for name in names:
            bench.undisturbed(name)
            wanted = max(1, round(args.kills * CASES[name].weight / weights))
            row: dict[str, Any] = {
                "kills": 0,
                "restarts_compared": 0,
                "survived": 0,
                "files": len(bench.expected[name]),
            }
            differences: Counter[str] = Counter()
            while row["kills"] < wanted and row["restarts_compared"] < 3 * wanted:
                kills, wrong = bench.killed(name)
                row["kills"] += kills
                row["restarts_compared"] += 1
                row["survived"] += not wrong
                differences.update(wrong)
            rows[name] = {**row, **({"wrong": dict(differences.most_common(20))} if differences else {})}
            print(name, rows[name], flush=True)
            total = {key: sum(row[key] for row in rows.values()) for key in ("kills", "restarts_compared", "survived")}
            write_result(
                args.results,
                "kills",
                {**record, "all": total, "left_behind": bench.left_behind, "by_command": rows},
                show=False,
            )


if __name__ == "__main__":
    main()
