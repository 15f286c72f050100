"""What grows how: the cost of choosing a batch, of a training step, of an audit and of the search for near-duplicates.

    python benchmarks/scale.py [--parts feed step_pixels ..]   -> benchmarks/results/scale.json, docs/images/scale.svg

Processor seconds of one thread, each the smallest of --rounds. "exponent" is the slope of log cost over log size from
the largest two sizes: 1 is linear. feed: choosing and drawing a batch of 4, by images in the training set. step_pixels,
step_rank: a training step of one image, by the latents' places and by the rank of the adapter, on the model "mid" of
step_time.py. audit: `audit --tier quick` of a run on the bundled model, by images in each of four cells.
near_duplicates: by images in all. Processes are not among them: two share the two cores that other work has too.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common import audited, base_model, parser, record_of, train_config, write_result
from smplora.audit.blind_baselines import near_duplicates
from smplora.core.files import write_atomically
from smplora.data.cells import Cell, ShapeGroup
from smplora.data.split import MANIFEST
from smplora.experiments.tasks import train
from smplora.report.figures.svg import GUIDE, blank, inline, name_axes, style
from smplora.training.batches import Feed
from smplora.training.distributed import make_accelerator
from smplora.training.resolve import load_split, resolved
from smplora.training.setup import prepare
from step_time import one_turn

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images"
BATCHES, STEPS = 200, 2


class Part(NamedTuple):
    """Something whose cost depends on a size."""

    title: str
    sizes: tuple[int, ...]
    seconds: Callable[[int, Path], float]


def feed(images: int, _: Path) -> float:
    """Seconds to choose one batch and its noise."""
    rows = tuple((row,) for row in range(images))
    latents = torch.zeros(images, 4, 4, 4)
    names = tuple(map(str, range(images)))
    group = ShapeGroup(latents, latents, {}, rows, tuple((0,) for _ in rows), names, tuple(range(images)))
    cell = Cell((group,), {"encoder_hidden_states": torch.zeros(1, 2, 2)})
    batches = Feed(cell, cell, cell, batch_size=4, accumulated=1, seed=0, num_train_timesteps=1000)
    list(batches.adapter(0))
    began = time.process_time()
    for step in range(BATCHES):
        list(batches.adapter(step))
    return (time.process_time() - began) / BATCHES


def duplicates(images: int, _: Path) -> float:
    """Seconds to compare four cells of random pictures."""
    rng = np.random.default_rng(0)
    cells = {f"cell {k}": rng.random((images // 4, 768)).astype(np.float32) for k in range(4)}
    began = time.process_time()
    near_duplicates(cells)
    return time.process_time() - began


def of_pixels(side: int, folder: Path) -> float:
    """A step, by the edge of the latents squared."""
    return step(folder, resolution=8 * math.isqrt(side), rank=4)


def of_rank(rank: int, folder: Path) -> float:
    """A step, by the rank."""
    return step(folder, resolution=128, rank=rank)


def step(folder: Path, *, resolution: int, rank: int) -> float:
    """Seconds of a step of LoRA with one image."""
    config = train_config(
        folder / "images", folder / "run", device="cpu", resolution=resolution, cache_latents_to_disk=False, rank=rank,
        lora_targets="all", aux_size=2, test_size=2, train_batch_size=1, max_train_steps=STEPS, objective="lora",
        checkpointing_steps=10**9, logging_steps=10**9,
    )  # fmt: skip
    model = base_model("mid", torch.device("cpu"))
    split = load_split(config, folder / MANIFEST)
    config = resolved(config, model, split)
    setup = prepare(config, model, split, make_accelerator(torch.device("cpu")))
    one_turn(config, setup, folder, 1)
    return one_turn(config, setup, folder, STEPS)


def audit(cell: int, folder: Path) -> float:
    """Seconds of an audit of a run of one step."""
    where = folder / f"{cell}-{time.time_ns()}"
    config = train_config(
        folder / "images", where, device="cpu", aux_size=cell, test_size=cell, reference_size=2, max_train_steps=1,
        train_batch_size=2,
    )  # fmt: skip
    run = train(config, progress=False)
    began = time.process_time()
    audited(adapter=str(run), device="cpu", cache_dir=str(where / "cache"))
    return time.process_time() - began


PARTS = {
    "feed": Part("choosing a batch, by images", (1_000, 10_000, 100_000), feed),
    "near_duplicates": Part("near-duplicates, by images", (2_500, 5_000, 10_000), duplicates),
    "step_pixels": Part("a step, by pixels", (16**2, 32**2, 48**2), of_pixels),
    "step_rank": Part("a step, by rank", (4, 32, 128), of_rank),
    "audit": Part("quick audit, by images", (10, 40, 160), audit),
}


def draw(parts: dict[str, dict[str, list[float]]], folder: Path) -> None:
    """Cost against size, both as multiples of the smallest; the dashed line is linear."""
    figure, axes = blank(560, 400)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for number, (name, part) in enumerate(parts.items()):
        look, (first, *_), (least, *_) = style(number), part["sizes"], part["seconds"]
        x, y = [size / first for size in part["sizes"]], [seconds / least for seconds in part["seconds"]]
        axes.plot(x, y, color=look.colour, marker=look.marker, linestyle=look.line, label=PARTS[name].title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.plot([1, 64], [1, 64], **GUIDE, label="linear")
    axes.legend(frameon=False, fontsize=11)
    name_axes(axes, "size, as a multiple of the smallest", "cost, likewise")
    found = "; ".join(f"{PARTS[name].title}: exponent {part['exponent']}" for name, part in parts.items())
    alone = str(inline(figure, "scale", f"Cost against size. {found}."))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "scale.svg", alone.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def main(arguments: list[str] | None = None) -> None:
    """Measure the parts that are named, write all that were measured."""
    options = parser(__file__, __doc__)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    options.add_argument("--largest", type=int, default=3, help="how many of each part's sizes, from the smallest")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the figure")
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    record = record_of(options, args, "scale", ["rounds"], parts=[*PARTS])
    parts = record.setdefault("parts", {})
    with tempfile.TemporaryDirectory() as name:
        for part in args.parts:
            sizes = PARTS[part].sizes[: args.largest]
            seconds = [min(PARTS[part].seconds(n, Path(name)) for _ in range(args.rounds)) for n in sizes]
            slope = None
            if len(sizes) > 1:
                slope = round(math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2]), 2)
            parts[part] = {"sizes": list(sizes), "seconds": [float(f"{s:.3g}") for s in seconds], "exponent": slope}
    write_result(args.results, "scale", record)
    draw(parts, args.pictures)


if __name__ == "__main__":
    main()
