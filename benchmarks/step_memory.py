"""Memory of a training step of one image of 512 pixels on SD 1.5's true configuration, computed on tensors without
values (smplora/training/memory.py); the share that 16 bits leave of the activations is a constant there.

    python benchmarks/step_memory.py                 -> benchmarks/results/step_memory.json
"""

from __future__ import annotations

import json

import torch

from smplora.adapters.lora import LoRAAdaptation
from smplora.models.batch import Batch
from smplora.training.memory import step_bytes
from step_time import RESULTS, sd15


def main() -> None:
    """Compute and write."""
    model = sd15(torch.device("cpu"))
    parameters = LoRAAdaptation(rank=4, lora_alpha=4, lora_targets="all").attach(model)["unet"]
    mean = torch.zeros(1, 4, 64, 64)
    batch = Batch(mean, mean, {"encoder_hidden_states": torch.zeros(1, 77, 768)}, ("image",))
    gib: dict[str, float] = {}
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for parameter in model.denoiser.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16)
        for checkpointing in (False, True):
            switch = "enable_gradient_checkpointing" if checkpointing else "disable_gradient_checkpointing"
            getattr(model.denoiser, switch)()
            size = step_bytes(model, parameters, batch, autocast)
            gib[name + "_checkpointing" * checkpointing] = round(size / 2**30, 3)
    record = {
        "command": "python benchmarks/step_memory.py",
        "model": "SD 1.5's true configuration, rank 4, all targets, 512 pixels, one image",
        "step_gib": gib,
        "bf16_share": round(gib["bf16"] / gib["fp32"], 2),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step_memory.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
