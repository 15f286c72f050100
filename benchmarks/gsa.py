"""Per-sample gradient norms of a batch out of one backward pass, against one backward pass per image.

    python benchmarks/gsa.py [--rounds 5]     -> benchmarks/results/gsa.json

The bundled model with the quickstart's adapter (rank 32, all linear layers), 16 images, one thread. "norms" is one draw
per image; "GSA" is the whole attack, ten timesteps with GSA1's and GSA2's features, for which the loop needs a backward
pass over ten copies of each image and ten more over single ones. Both sides take turns; the median over rounds counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from common import base_model, command, parser, write_result
from smplora.adapters.lora import LoRAAdaptation
from smplora.attacks.methods.gsa import TIMESTEPS
from smplora.attacks.views import GreyBox, WhiteBox
from smplora.models.adapted import Adapted
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss


def loop(
    model: LatentDiffusion, batch: Batch, noise: list[Tensor], steps: list[int], layers: Sequence[Any]
) -> list[Tensor]:
    """For each image the norms of the mean loss's gradient, and those of each draw's if there are several."""
    weights = [layer.weight.requires_grad_() for layer in layers]
    norms = []
    for i in range(len(batch)):
        copies = batch[[i] * len(steps)]
        draw = Draw(torch.tensor(steps), torch.stack([n[i] for n in noise]))
        together = torch.autograd.grad(adaptation_loss(model.error_maps(copies, draw)).mean(), weights)
        norms.append(torch.stack([g.norm() for g in together]))
        for k in range(len(steps) if len(steps) > 1 else 0):
            row = slice(k, k + 1)
            alone = torch.autograd.grad(adaptation_loss(model.error_maps(copies[row], draw[row])).sum(), weights)
            norms.append(torch.stack([g.norm() for g in alone]))
    for weight in weights:
        weight.requires_grad_(False)
    return norms


def seconds(work: Callable[[], Any]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def adapted_model() -> Adapted:
    """The bundled model with an adapter of random weights, none of which asks for a gradient."""
    model, adaptation = (
        base_model("tiny", torch.device("cpu")),
        LoRAAdaptation(rank=32, lora_alpha=32, lora_targets="all"),
    )
    for parameter in adaptation.attach(model)["unet"]:
        nn.init.normal_(parameter, std=0.05).requires_grad_(False)
    return Adapted(model, adaptation)


def main(arguments: list[str] | None = None) -> None:
    """Measure in turns and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--images", type=int, default=16)
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    adapted = adapted_model()
    model = adapted.model
    mean = torch.randn((args.images, model.vae.config.latent_channels, 8, 8))
    captions = model.encode_captions(["a handwritten five"] * args.images, 32)
    batch = Batch(mean, torch.zeros_like(mean), captions, tuple(map(str, range(args.images))))
    record: dict[str, Any] = {
        "command": command(options, args, always=["rounds"]),
        "model": f"the bundled model, rank 32, all targets, {args.images} images, one thread",
    }
    for of, layers in (("adapter", adapted.layers.adapter), ("base", adapted.layers.base)):
        for what, steps in (("norms", [499]), ("GSA", list(TIMESTEPS))):
            draws = [f"gsa{k}" for k in range(len(steps))]
            noise = [GreyBox(adapted, batch, 0).noise(d) for d in draws]
            times: dict[str, list[float]] = {"loop": [], "batch": []}
            for _ in range(args.rounds):
                times["loop"].append(seconds(lambda: loop(model, batch, noise, steps, layers)))  # noqa: B023
                times["batch"].append(seconds(lambda: WhiteBox(adapted, batch, 0).gradients(draws, steps, of)))  # noqa: B023
            record[f"{what}, {of} weights"] = {
                "loop_ms": round(1000 * median(times["loop"])),
                "batch_ms": round(1000 * median(times["batch"])),
                "speedup": round(median(a / b for a, b in zip(times["loop"], times["batch"], strict=True)), 1),
            }
    write_result(args.results, "gsa", record)


if __name__ == "__main__":
    main()
