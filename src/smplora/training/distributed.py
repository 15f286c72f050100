"""Several processes, on one machine or many, through accelerate. With one process all of this does nothing.

Each computes its share of every batch. The adapter's gradients are averaged; the proxy's error maps are gathered, so
that all processes take the same step of the proxy on the whole batch.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")  # of diffusers' U-Nets


def make_accelerator(device: torch.device, **options: Any) -> Accelerator:
    """Joins the process group of ``accelerate launch`` or ``torchrun``, if there is one."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and not PartialState._shared_state:
        atexit.register(lambda: PartialState().destroy_process_group())
    if not AcceleratorState._shared_state:  # accelerate's own setting would be of no effect here, or an error on a CPU
        options["mixed_precision"] = "no"
    # accelerate fixes device and precision once per process; a notebook trains twice, so both are handled here
    return Accelerator(device_placement=False, cpu=several and device.type == "cpu", **options)


def average_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """The mean over processes of every gradient, in one transfer."""
    average(accelerator, [p.grad for p in parameters if p.grad is not None])


def average(accelerator: Accelerator, tensors: Sequence[Tensor]) -> None:
    """The mean over processes of each of the tensors, in place and in one transfer."""
    if accelerator.num_processes == 1:
        return
    flat: Any = accelerator.reduce(torch.cat([t.flatten() for t in tensors]), reduction="mean")
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def shard(accelerator: Accelerator, module: nn.Module, whole: Iterable[nn.Parameter]) -> None:
    """Split the weights of ``module`` over the processes, block by block, but for the trained ones, ``whole`` (FSDP,
    Zhao et al. 2023). Each process fetches a block's weights when it comes to it; all must run the model together."""
    if accelerator.num_processes == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole_modules = set(whole)
    mesh = init_device_mesh(next(iter(whole_modules)).device.type, (accelerator.num_processes,))
    for block in module.modules():
        if type(block).__name__ in BLOCKS:
            fully_shard(block, mesh=mesh, ignored_params=whole_modules)
    # FSDP would keep the rest whole after a forward pass until somebody asks for a state dict, which one process does
    fully_shard(module, mesh=mesh, ignored_params=whole_modules, reshard_after_forward=True)


def gather(accelerator: Accelerator, share: Tensor) -> Tensor:
    """[n, ...] of each process -> [n * processes, ...], in the order of the processes."""
    whole: Any = accelerator.gather(share)
    gathered: Tensor = whole
    return gathered


def mean(accelerator: Accelerator, values: Tensor) -> Tensor:
    """The element-wise mean over processes."""
    reduced: Any = accelerator.reduce(values, reduction="mean")
    averaged: Tensor = reduced
    return averaged
