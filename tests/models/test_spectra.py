"""Singular values of updates: without forming them, the same as of what is formed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from smplora.adapters.full import FullAdaptation
from smplora.adapters.lora import LoRAAdaptation
from smplora.models.adapted import Adapted
from smplora.models.load import load_model
from smplora.models.spectra import DOWN, UP, UPDATE, product_singular_values, spectra
from smplora.runs.subject import find_subject, load_adapted


@pytest.mark.parametrize(("out", "rank", "into"), [(7, 3, 5), (3, 6, 9), (9, 6, 3), (4, 4, 4)])
def test_a_product_without_forming_it(out: int, rank: int, into: int) -> None:
    generator = torch.Generator().manual_seed(out)
    up, down = torch.randn(out, rank, generator=generator), torch.randn(rank, into, generator=generator)
    formed = torch.linalg.svdvals(-2.5 * (up.double() @ down.double()))
    torch.testing.assert_close(product_singular_values(up, down, -2.5), formed[: min(out, rank, into)])


def test_a_product_whose_values_are_known() -> None:
    """Orthogonal columns and rows of lengths 3, 2 and 5, 7: the products of the lengths."""
    up = torch.tensor([[3.0, 0], [0, 2], [0, 0]])
    down = torch.tensor([[0, 5.0, 0, 0], [0, 0, 0, 7]])
    torch.testing.assert_close(product_singular_values(up, down, 0.5), torch.tensor([7.5, 7.0]).double())


def test_every_layer_of_a_lora(trained_run: Path) -> None:
    """Against what peft adds to the weights."""
    adapted = load_adapted(find_subject(str(trained_run)), torch.device("cpu"))
    found = spectra(adapted)
    layers = {name: layer for name, layer in adapted.model.denoiser.named_modules() if hasattr(layer, "lora_A")}
    assert len(found) == 3 * len(layers) > 0
    for path, layer in layers.items():
        name = f"unet.{path}.default"
        tuned: Any = layer
        delta = tuned.get_delta_weight("default").detach().double().flatten(1)
        rank = len(found[name, UPDATE])
        torch.testing.assert_close(found[name, UPDATE], torch.linalg.svdvals(delta)[:rank], rtol=1e-4, atol=1e-7)
        for which, part in ((DOWN, tuned.lora_A), (UP, tuned.lora_B)):
            weight = part["default"].weight.detach().double().flatten(1)
            torch.testing.assert_close(found[name, which], torch.linalg.svdvals(weight))


def test_the_scale_is_the_adapters_own() -> None:
    values = []
    for alpha in (2.0, 6.0):
        model, adaptation = load_model("tiny", torch.device("cpu")), LoRAAdaptation(rank=2, lora_alpha=alpha)
        torch.manual_seed(0)
        for parameter in adaptation.attach(model)["unet"]:
            torch.nn.init.normal_(parameter)
        values.append(spectra(Adapted(model, adaptation)))
    name = next(name for name in values[0] if name[1] == UPDATE)
    torch.testing.assert_close(3 * values[0][name], values[1][name])


def test_whole_weights_that_were_trained() -> None:
    """What was added to one layer, and nothing to the others."""
    model, adaptation = load_model("tiny", torch.device("cpu")), FullAdaptation()
    adaptation.attach(model)
    layers = adaptation.layers(model).updates
    layer: Any = list(layers)[3]
    added = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.weight += added
    found = list(spectra(Adapted(model, adaptation)).values())
    assert len(found) == len(layers)
    torch.testing.assert_close(found[3], torch.linalg.svdvals(added.flatten(1).double()), rtol=1e-4, atol=1e-4)
    assert not any(values.any() for k, values in enumerate(found) if k != 3)


def test_nothing_trained_has_none() -> None:
    assert spectra(Adapted(load_model("tiny", torch.device("cpu")))) == {}
