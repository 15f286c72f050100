"""Memory of a training step of one image of 512 pixels on SD 1.5's true configuration, computed on tensors without
values (smplora/training/memory.py); the share that 16 bits leave of the activations is a constant there.

    python benchmarks/step_memory.py                 -> benchmarks/results/step_memory.json
    python benchmarks/step_memory.py --model tiny    -> step_memory_tiny.json beside it, of 32 pixels
"""

from __future__ import annotations

import torch

from common import MODELS, base_model, command, parser, write_result
from smplora.adapters.lora import LoRAAdaptation
from smplora.models.batch import Batch
from smplora.training.memory import step_bytes


def main(arguments: list[str] | None = None) -> None:
    """Compute and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--model", choices=MODELS, default="sd15")
    args = options.parse_args(arguments)
    model = base_model(args.model, torch.device("cpu"))
    parameters = LoRAAdaptation(rank=4, lora_alpha=4, lora_targets="all").attach(model)["unet"]
    side = model.resolution // model.downsampling
    mean = torch.zeros(1, model.vae.config.latent_channels, side, side)
    batch = Batch(mean, mean, model.text.empty(1, model.resolution), ("image",))
    sizes: dict[str, int] = {}
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for parameter in model.denoiser.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16)
        for checkpointing in (False, True):
            switch = "enable_gradient_checkpointing" if checkpointing else "disable_gradient_checkpointing"
            getattr(model.denoiser, switch)()
            sizes[name + "_checkpointing" * checkpointing] = step_bytes(model, parameters, batch, autocast)
    record = {
        "command": command(options, args),
        "model": f"{MODELS[args.model]}, rank 4, all targets, {model.resolution} pixels, one image",
        "step_gib": {name: round(size / 2**30, 3) for name, size in sizes.items()},
        "bf16_share": round(sizes["bf16"] / sizes["fp32"], 2),
    }
    write_result(args.results, "step_memory" if args.model == "sd15" else f"step_memory_{args.model}", record)


if __name__ == "__main__":
    main()
