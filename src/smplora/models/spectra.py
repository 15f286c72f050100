"""Singular values of what an adapter adds to the weights of its base model: what a file tells of its training at once.

Of an update dW = s B A they are those of a matrix of r x r: with B = Q_B R_B and A^T = Q_A R_A (QR), s B A has the
singular values of s R_B R_A^T, since Q_B and Q_A have orthonormal columns. dW itself is never formed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smplora.models.adapted import Adapted

UPDATE, DOWN, UP = "update", "down", "up"  # dW, and its factors A and B


def product_singular_values(up: Tensor, down: Tensor, scale: float = 1.0) -> Tensor:
    """Singular values of ``scale * up @ down``, largest first: [min(r, O, I)], in double precision.

    Args:
        up: B [O, r].
        down: A [r, I].
    """
    left = torch.linalg.qr(up.double(), mode="r").R  # [min(O, r), r]
    right = torch.linalg.qr(down.double().T, mode="r").R  # [min(I, r), r]
    values: Tensor = torch.linalg.svdvals(left @ right.T)
    return values * abs(scale)


@torch.no_grad()
def spectra(adapted: Adapted) -> dict[tuple[str, str], Tensor]:
    """Singular values of every trained matrix, by (layer, UPDATE, DOWN or UP); convolutions as [O, I k k].

    Low-rank adapters have all three; of DoRA the norms of rows, which it learns too, are left out. Where whole weights
    were trained there is dW alone. Empty where no matrix of the networks was trained (textual inversion).
    """
    found: dict[tuple[str, str], Tensor] = {}
    for component in adapted.names:
        for path, module in adapted.model.component(component).named_modules():
            layer: Any = module
            for name in layer.lora_A if hasattr(layer, "lora_A") and hasattr(layer, "base_layer") else ():
                down, up = (part[name].weight.detach().flatten(1) for part in (layer.lora_A, layer.lora_B))
                own = f"{component}.{path}.{name}"
                found[own, UPDATE] = product_singular_values(up, down, layer.scaling[name]).cpu()
                found[own, DOWN] = torch.linalg.svdvals(down.double()).cpu()
                found[own, UP] = torch.linalg.svdvals(up.double()).cpu()
    if not found:
        updates = (update for update in adapted.layers.updates.values() if update)
        found = {
            (f"layer {k}", UPDATE): torch.linalg.svdvals(update().flatten(1).double()).cpu()
            for k, update in enumerate(updates)
        }
    return found
