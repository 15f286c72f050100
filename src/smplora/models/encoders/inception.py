"""The Inception network of FID (TensorFlow's of 2015-12-05), from a .safetensors file of the usual PyTorch weights.

The same network and preparation as torchmetrics' and torch-fidelity's, whose own loaders take pickles and want
torchvision (decisions/021-quality-features.md). Names of layers are those of the published weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from smplora.core.errors import CheckpointError
from smplora.core.tensor_files import read_tensors

SIDE = 299  # pixels
CLASSES = 1008  # torchvision's network, which is another one, has 1000
AT_ONCE = 16
LAYERS = {768: "Mixed_6e", 2048: "Mixed_7c"}  # the last block of each feature layer
CONVERT = (
    'python -c "import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in '
    "torch.load('pt_inception-2015-12-05-6726825d.pth', weights_only=True).items()}, 'inception.safetensors')\""
)

Kernel = int | tuple[int, int]
Chain = tuple[tuple[str, int, Kernel, int], ...]  # layers one after the other: name, channels out, kernel, stride


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, out: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] -> [b, out, h', w']."""
        return functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, their channels one after the other: chains of convolutions, some of which end in a fork,
    and pooling, maybe with a convolution behind it."""

    def __init__(self, channels: int, chains: tuple[Chain, ...], pool: str, pooled: int, stride: int = 1) -> None:
        super().__init__()
        self.chains, self.pool, self.stride = chains, pool, stride
        for chain in chains:
            c = channels
            for name, out, kernel, step in chain:
                before = 384 if name[-1] in "ab" else c
                self.add_module(name, Convolution(before, out, kernel, step, 0 if step > 1 else _half(kernel)))
                c = out
        self.branch_pool = Convolution(channels, pooled, 1) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] -> [b, c', h', w']."""
        branches = []
        for chain in self.chains:
            y, fork = x, []
            for name, *_ in chain:
                out = getattr(self, name)(y)
                if name[-1] in "ab":
                    fork.append(out)
                else:
                    y = out
            branches += fork or [y]
        if self.pool == "max":
            pooled = functional.max_pool2d(x, 3, self.stride, 0 if self.stride > 1 else 1)
        else:
            pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*branches, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Pictures -> the means over the picture of what one of its blocks sees."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        last = LAYERS[dimensions]
        layers: dict[str, nn.Module] = {
            "Conv2d_1a_3x3": Convolution(3, 32, 3, 2),
            "Conv2d_2a_3x3": Convolution(32, 32, 3),
            "Conv2d_2b_3x3": Convolution(32, 64, 3, 1, 1),
            "pool_1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": Convolution(64, 80, 1),
            "Conv2d_4a_3x3": Convolution(80, 192, 3),
            "pool_2": nn.MaxPool2d(3, 2),
            "Mixed_5b": _block_a(192, 32),
            "Mixed_5c": _block_a(256, 64),
            "Mixed_5d": _block_a(288, 64),
            "Mixed_6a": Mixed(288, ((("branch3x3", 384, 3, 2),), _double(64, 96, stride=2)), "max", 0, 2),
            "Mixed_6b": _block_c(128),
            "Mixed_6c": _block_c(160),
            "Mixed_6d": _block_c(160),
            "Mixed_6e": _block_c(192),
            "Mixed_7a": Mixed(768, _SEVEN_A, "max", 0, 2),
            "Mixed_7b": Mixed(1280, _SEVEN, "average", 192),
            "Mixed_7c": Mixed(2048, _SEVEN, "max", 192),  # the original's slip, which every FID since has kept
        }
        for name, layer in layers.items():
            self.add_module(name, layer)
            if name == last:
                break

    def forward(self, images: Tensor) -> Tensor:
        """Features of ``images`` [b, 3, h, w] in [0, 1], any size, rounded to 8 bits -> [b, dimensions]."""
        pixels = (images * 255).round()
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = (pixels - 128) / 128
        for layer in self.children():
            x = layer(x)
        return x.mean((2, 3))


def load_inception(file: str, dimensions: int) -> Inception:
    """The network with the weights of a .safetensors file, frozen, in evaluation mode.

    Raises:
        CheckpointError: no such file, another format, weights of another network.
    """
    network = Inception(dimensions)
    expected = network.state_dict()
    prefix = f"--features got 'inception-{dimensions}={file}', which"
    if Path(file).suffix != ".safetensors":
        raise CheckpointError(f"{prefix} is no .safetensors file; pickles are not read, convert once: {CONVERT}")
    state, _ = read_tensors(Path(file), f"{prefix} cannot be read (convert the published weights: {CONVERT}): it")
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    state |= {name: state.get(name, expected[name]) for name in counters}
    lacking = [name for name in expected if name not in state]
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if lacking or wrong:
        what = f"lacks {lacking[0]}" if lacking else f"has {wrong[0]} of shape {tuple(state[wrong[0]].shape)}"
        raise CheckpointError(
            f"{prefix} {what} ({len(lacking) + len(wrong)} of {len(expected)} tensors do not fit FID's)"
        )
    if "fc.weight" in state and len(state["fc.weight"]) != CLASSES:
        raise CheckpointError(
            f"{prefix} knows {len(state['fc.weight'])} classes: the network of torchvision, not that of FID, which "
            f"knows {CLASSES} (pt_inception-2015-12-05-6726825d.pth)"
        )
    network.load_state_dict({name: state[name] for name in expected})
    return network.eval().requires_grad_(False)


def _half(kernel: Kernel) -> Kernel:
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def _double(first: int, out: int, stride: int = 1) -> Chain:
    return (
        ("branch3x3dbl_1", first, 1, 1),
        ("branch3x3dbl_2", out, 3, 1),
        ("branch3x3dbl_3", out, 3, stride),
    )


def _block_a(channels: int, pooled: int) -> Mixed:
    five: Chain = (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1))
    return Mixed(channels, ((("branch1x1", 64, 1, 1),), five, _double(64, 96)), "average", pooled)


def _block_c(inner: int) -> Mixed:
    wide, high = (1, 7), (7, 1)
    seven: Chain = (("branch7x7_1", inner, 1, 1), ("branch7x7_2", inner, wide, 1), ("branch7x7_3", 192, high, 1))
    kernels: tuple[Kernel, ...] = (1, high, wide, high, wide)
    double: Chain = tuple(
        (f"branch7x7dbl_{i}", 192 if i == len(kernels) else inner, kernel, 1) for i, kernel in enumerate(kernels, 1)
    )
    return Mixed(768, ((("branch1x1", 192, 1, 1),), seven, double), "average", 192)


_SEVEN_A: tuple[Chain, ...] = (
    (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)),
    (
        ("branch7x7x3_1", 192, 1, 1),
        ("branch7x7x3_2", 192, (1, 7), 1),
        ("branch7x7x3_3", 192, (7, 1), 1),
        ("branch7x7x3_4", 192, 3, 2),
    ),
)
_SEVEN: tuple[Chain, ...] = (  # names that end in a and b see the same
    (("branch1x1", 320, 1, 1),),
    (("branch3x3_1", 384, 1, 1), ("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)),
    (
        ("branch3x3dbl_1", 448, 1, 1),
        ("branch3x3dbl_2", 384, 3, 1),
        ("branch3x3dbl_3a", 384, (1, 3), 1),
        ("branch3x3dbl_3b", 384, (3, 1), 1),
    ),
)
