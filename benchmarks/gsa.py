"""Per-sample gradient norms of a batch out of one backward pass, against one backward pass per image.

    python benchmarks/gsa.py [--rounds 5]     -> benchmarks/results/gsa.json

The bundled model with the quickstart's adapter (rank 32, all linear layers), 16 images, one thread. "norms" is one draw
per image; "GSA" is the whole attack, ten timesteps with GSA1's and GSA2's features, for which the loop needs a backward
pass over ten copies of each image and ten more over single ones. Both sides take turns; the median over rounds counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from smplora.adapters.lora import LoRAAdaptation
from smplora.attacks.methods.gsa import TIMESTEPS
from smplora.attacks.views import GreyBox, WhiteBox
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.models.load import load_model
from smplora.models.sample_gradients import adapted_layers

RESULTS = Path(__file__).parent / "results"
IMAGES = 16


def loop(
    model: LatentDiffusion, batch: Batch, noise: list[Tensor], steps: list[int], layers: list[Any]
) -> list[Tensor]:
    """For each image the norms of the mean loss's gradient, and those of each draw's if there are several."""
    weights = [layer.weight.requires_grad_() for layer in layers]
    found = []
    for i in range(len(batch)):
        copies = batch[torch.full((len(steps),), i)]
        draw = Draw(torch.tensor(steps), torch.stack([n[i] for n in noise]))
        together = torch.autograd.grad(adaptation_loss(model.error_maps(copies, draw)).mean(), weights)
        found.append(torch.stack([g.norm() for g in together]))
        for k in range(len(steps) if len(steps) > 1 else 0):
            row = slice(k, k + 1)
            alone = torch.autograd.grad(adaptation_loss(model.error_maps(copies[row], draw[row])).sum(), weights)
            found.append(torch.stack([g.norm() for g in alone]))
    for weight in weights:
        weight.requires_grad_(False)
    return found


def seconds(work: Callable[[], Any]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure in turns and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load_model("tiny", torch.device("cpu"))
    for parameters in LoRAAdaptation(rank=32, lora_alpha=32, lora_targets="all").attach(model).values():
        for parameter in parameters:
            parameter.data.normal_(std=0.05)
            parameter.requires_grad_(False)
    mean = torch.randn((IMAGES, model.vae.config.latent_channels, 8, 8))
    told = model.encode_captions(["a handwritten five"] * IMAGES, 32)
    batch = Batch(mean, torch.zeros_like(mean), told, tuple(map(str, range(IMAGES))))
    down, up, base = adapted_layers(model.denoiser)
    record: dict[str, Any] = {
        "command": f"python benchmarks/gsa.py --rounds {args.rounds}",
        "model": f"the bundled model, rank 32, all targets, {IMAGES} images, one thread",
    }
    for of, layers in (("adapter", [*down, *up]), ("base", base)):
        for what, steps in (("norms", [499]), ("GSA", list(TIMESTEPS))):
            draws = [f"gsa{k}" for k in range(len(steps))]
            noise = [GreyBox(model, batch, 0).noise(d) for d in draws]
            times: dict[str, list[float]] = {"loop": [], "batch": []}
            for _ in range(args.rounds):
                times["loop"].append(seconds(lambda: loop(model, batch, noise, steps, layers)))  # noqa: B023
                times["batch"].append(seconds(lambda: WhiteBox(model, batch, 0).gradients(draws, steps, of)))  # noqa: B023
            record[f"{what}, {of} weights"] = {
                "loop_ms": round(1000 * median(times["loop"])),
                "batch_ms": round(1000 * median(times["batch"])),
                "speedup": round(median(a / b for a, b in zip(times["loop"], times["batch"], strict=True)), 1),
            }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gsa.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
