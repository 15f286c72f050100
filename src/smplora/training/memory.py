"""How much memory a training step takes, by a run without memory, and what to say when there was not enough.

The step is run once on fake tensors, which have shapes and no values, while the sizes of all live storages are summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smplora.config.train import TrainConfig
from smplora.core.errors import TrainingError, is_out_of_memory
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.training.setup import Setup

SMALLER = 0.75  # of the resolution, in the advice
NF4_BITS = 4.13  # of a weight, with its share of scales
BF16_ACTIVATIONS = 0.59  # of those in fp32 (benchmarks/results/step_memory.json)


class PeakMemory(TorchDispatchMode):
    """Sums the bytes of all tensors made while it is active, until they are freed; ``peak`` is the largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: set[int] = set()
        self.bytes: int = 0
        self.peak: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what is new in its result."""
        if func.is_view:  # the base, where it is a weight with values, has not been counted and need not be
            return func(*args, **(kwargs or {}))
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in known | self.live:
                    self.live.add(storage._cdata)
                    self.bytes += storage.nbytes()
                    finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.bytes)
        return result

    def _freed(self, key: int, size: int) -> None:
        self.live.discard(key)
        self.bytes -= size


def step_bytes(
    model: LatentDiffusion,
    parameters: list[nn.Parameter],
    batch: Batch,
    autocast: torch.autocast,
    mode: FakeTensorMode | None = None,
) -> int:
    """Peak bytes of one forward and backward pass of ``batch``, beyond what is there before it. Takes no memory and
    some seconds.

    Args:
        mode: in which the model was made, if its weights have no values either.
    """
    with mode or FakeTensorMode(allow_non_fake_inputs=True), PeakMemory() as memory:
        timesteps = torch.zeros(len(batch), dtype=torch.int64, device=model.device)
        draw = Draw(timesteps, torch.zeros_like(batch.mean), torch.zeros_like(batch.mean))
        with autocast:
            error_maps = model.error_maps(batch, draw)
        torch.autograd.grad(adaptation_loss(error_maps).mean(), parameters, allow_unused=True)
    peak: int = memory.peak
    return peak


def advice(config: TrainConfig, setup: Setup) -> str:
    """What a step of this run takes, and the settings that would take less, with how much less.

    One image's activations are measured by ``step_bytes``, with and without gradient checkpointing; they grow with the
    batch and with the area of the images. 16 bits halve the base weights, and leave 0.59 of the activations of SD 1.5
    (benchmarks/step_memory.py): norms and losses stay in 32.
    """
    model, image, b = setup.model, setup.feed.train[:1].whole(), config.train_batch_size
    now = step_bytes(model, setup.parameters, image, setup.autocast())
    encoders = [e for e in model.text.encoders.values() if e.device == model.device]  # others rest
    modules = [model.vae, model.denoiser, *encoders]
    weights = sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
    denoiser = sum(p.numel() for p in model.denoiser.parameters() if not p.requires_grad)
    size = config.resolution or model.resolution
    smaller = max(64, int(size * SMALLER) // 64 * 64)
    ways: list[tuple[str, float]] = []
    if not config.gradient_checkpointing:
        setup.adapted.checkpoint_activations(True)
        saved = now - step_bytes(model, setup.parameters, image, setup.autocast())
        setup.adapted.checkpoint_activations(False)
        ways.append(("--gradient_checkpointing true", b * saved))
    if b > 1:
        steps = config.gradient_accumulation_steps * b
        same = f"--train_batch_size 1 --gradient_accumulation_steps {steps}, the same step"
        ways.append((same, (b - 1) * now))
    if config.mixed_precision == "no":
        ways.append(("--mixed_precision bf16", 2 * denoiser + (1 - BF16_ACTIVATIONS) * b * now))
    quantisable = model.prediction_type == "velocity" and setup.adaptation.freezes_base
    if quantisable and not (config.quantize or config.use_dora or config.shard_base_model):
        frozen = (m for m in model.denoiser.modules() if type(m) is nn.Linear and not m.weight.requires_grad)
        linear = sum(m.weight.nbytes for m in frozen)
        ways.append(("--quantize 4bit", linear * (1 - NF4_BITS / (8 * model.dtype.itemsize))))
    if smaller < size:
        ways.append((f"--resolution {smaller}", (1 - (smaller / size) ** 2) * b * now))
    listed = "; ".join(f"{way} (about {readable(saved)} less)" for way, saved in ways if saved > 0)
    return (
        f"out of memory: the base model takes {readable(weights)} and a step {readable(b * now)} "
        f"({b} image{'s' * (b > 1)} of {size} pixels at once). What would help: {listed or 'a device with more memory'}"
    )


def readable(size: float) -> str:
    """ "3.4 GiB", "120 MiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.2g} MiB"


@contextmanager
def explaining(config: TrainConfig, setup: Setup) -> Iterator[None]:
    """Turn an allocation that failed into one line of advice.

    Raises:
        TrainingError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        try:
            text = advice(config, setup)
        except Exception:  # the advice needs some memory too, and must not hide what happened
            raise error from None
        raise TrainingError(text) from error
