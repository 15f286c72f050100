"""Exact gradients of each sample's loss out of one backward pass of a batch.

For a linear layer y = W a the gradient of sample i is G_i = sum over tokens t of d_t a_t^T, with d the gradient at y
(Goodfellow 2015, arXiv 1510.01799). A convolution is a linear layer on patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sample_weights(inputs: Tensor, slopes: Tensor) -> Tensor:
    """G_i: a [b, T, I], d [b, T, O] -> [b, O, I]."""
    return slopes.mT @ inputs


def matrix_norms(matrices: Tensor) -> Tensor:
    """Frobenius norms: [b, O, I] -> [b]."""
    return matrices.square().sum((1, 2)).sqrt()


BUCKETS = 1024


def count_sketch(gradients: Tensor, salt: int) -> Tensor:
    """Every number of a layer's gradients [b, O, I], with a random sign, added to one of ``BUCKETS``: [b, BUCKETS].

    Sums over layers keep inner products on average, E<sketch(g), sketch(h)> = <g, h>, with a variance of at most
    2 ||g||^2 ||h||^2 / BUCKETS (Charikar et al. 2004, "Finding Frequent Items in Data Streams").

    Args:
        salt: of the layer; the same for all samples.
    """
    flat, rng = gradients.flatten(1), torch.Generator().manual_seed(salt)
    buckets = torch.randint(BUCKETS, (flat.shape[1],), generator=rng)
    signs = 2.0 * torch.randint(2, (flat.shape[1],), generator=rng) - 1
    empty = torch.zeros(len(flat), BUCKETS, device=flat.device)
    return empty.index_add_(1, buckets.to(flat.device), flat * signs.to(flat.device))


@dataclass
class LayerRecord:
    """What passed through a layer, as tokens."""

    inputs: Tensor  # [b, T, I]
    outputs: Tensor  # [b, T, O]
    slopes: Tensor | None = None  # [b, T, O], the loss's gradient at the outputs


@contextmanager
def recorded(layers: Sequence[nn.Module], samples: int) -> Iterator[dict[nn.Module, LayerRecord]]:
    """Inside, forward and backward passes of ``samples`` samples leave a record of each of the (linear or
    convolutional) layers. No weight needs to require a gradient: the graph begins at the first layer's output."""
    records: dict[nn.Module, LayerRecord] = {}

    def forward(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # DoRA sends a unit matrix through A and B first, for the norms of their rows; where its rows could be those of
        # the samples, the samples' own pass takes the place of its record
        if len(arguments[0]) % samples:
            return output
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        record = LayerRecord(_patches(layer, arguments[0].detach(), samples), _tokens(layer, output.detach(), samples))

        def backward(slope: Tensor) -> None:
            record.slopes = _tokens(layer, slope, samples)

        output.register_hook(backward)
        records[layer] = record
        return output

    handles = [layer.register_forward_hook(forward) for layer in layers]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _tokens(layer: nn.Module, values: Tensor, samples: int) -> Tensor:
    """[b, ..., O] of a linear layer or [b, O, h, w] of a convolution -> [b, T, O] in fp32. A text encoder reads a long
    caption as several rows, one after the other: they are tokens of one sample."""
    if isinstance(layer, nn.Conv2d):
        return values.flatten(2).mT.float()
    return values.reshape(samples, -1, values.shape[-1]).float()


def _patches(layer: nn.Module, inputs: Tensor, samples: int) -> Tensor:
    """[b, T, I], for a convolution I = channels times kernel."""
    if not isinstance(layer, nn.Conv2d):
        return _tokens(layer, inputs, samples)
    kernel, stride, dilation = (cast(tuple[int, int], x) for x in (layer.kernel_size, layer.stride, layer.dilation))
    return F.unfold(inputs.float(), kernel, dilation, cast(tuple[int, int], layer.padding), stride).mT


def adapted_layers(*networks: nn.Module) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
    """The A, the B and the frozen base layer of every low-rank adapter in ``networks`` (peft's layers), in order."""
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    base: list[nn.Module] = []
    for network in networks:
        for module in cast(Iterable[Any], network.modules()):
            if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
                down += list(module.lora_A.values())
                up += list(module.lora_B.values())
                base.append(module.base_layer)
    return down, up, base


def sample_gradients(
    losses: Callable[[int], Tensor],
    samples: int,
    draws: int,
    layers: Sequence[nn.Module],
    updates: Mapping[nn.Module, Callable[[], Tensor] | None],
) -> Gradients:
    """Gradients with respect to the weights of ``layers`` (attacks.base.Gradients).

    The inner product with a layer's update needs no gradient of its own: with y = W a + s B A a, sum over tokens of
    <gradient at s B A a, B A a> is <G_i, s B A>, and peft's factor s is in the gradient at B's output already. Of a
    whole weight that was trained it is the sum over tokens of <gradient at y, dW a>.

    Args:
        losses: k -> the samples' losses [b] at draw k, differentiable through ``layers`` and ``updates``.
        updates: see ``GradientLayers``; of low-rank adapters their second matrices B.
    """
    each: list[Tensor] = []
    along: list[Tensor] = []
    sums: list[Tensor] = []
    for k in range(draws):
        with torch.enable_grad(), recorded(list(dict.fromkeys([*layers, *updates])), samples) as records:
            losses(k).sum().backward()
        parts = [_reached(records[layer]) for layer in layers]
        made = [sample_weights(a, d) for a, d in parts]
        each.append(torch.stack([matrix_norms(g) for g in made], 1))
        sums = made if not sums else [total.add_(one) for total, one in zip(sums, made, strict=True)]
        along.append(torch.stack([_along(records[layer], update) for layer, update in updates.items()], 1))
    mean = torch.stack([matrix_norms(total) / draws for total in sums], 1)
    sketch = sum(count_sketch(total / draws, salt) for salt, total in enumerate(sums))
    return Gradients(torch.stack(each, 1).cpu(), mean.cpu(), torch.stack(along, 1).cpu(), cast(Tensor, sketch).cpu())


def _along(record: LayerRecord, update: Callable[[], Tensor] | None) -> Tensor:
    """<G_i, dW> [b]."""
    inputs, slopes = _reached(record)
    added = record.outputs if update is None else inputs @ update().flatten(1).float().T
    return (slopes * added).sum((1, 2))


def _reached(record: LayerRecord) -> tuple[Tensor, Tensor]:
    """Inputs and slopes; a layer that the loss does not depend on has slope 0."""
    return record.inputs, torch.zeros_like(record.outputs) if record.slopes is None else record.slopes


@dataclass(frozen=True)
class Gradients:
    """Of each sample's loss at K draws, with respect to P weights."""

    norms: Tensor  # [b, K, P], of each draw's gradient
    norms_of_mean: Tensor  # [b, P], of the mean over draws
    along_update: Tensor  # [b, K, P'], inner products with what the adapter added to each of P' layers' weight
    sketch: Tensor  # [b, BUCKETS], of the mean over draws
