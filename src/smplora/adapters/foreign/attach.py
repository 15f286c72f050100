"""What an adapter file of any program does to its base model: low-rank adapters of exactly the modules that it names,
and whole changes of weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from smplora.adapters.files.families import other_family
from smplora.adapters.files.read import AdapterFile, named_as
from smplora.adapters.foreign.difference import DifferenceAdaptation
from smplora.adapters.lora import LoRAAdaptation
from smplora.core.errors import CheckpointError
from smplora.models.adapted import Adaptation, GradientLayers

if TYPE_CHECKING:
    from smplora.models.diffusion import LatentDiffusion


@dataclass(frozen=True)
class ModulesAdaptation(LoRAAdaptation):
    """Low-rank adapters of exactly these modules, "unet.mid_block...", each with its rank and alpha."""

    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def components(self, model: LatentDiffusion) -> list[str]:
        """Those that have such modules."""
        return [name for name in model.component_names if any(m.startswith(f"{name}.") for m in self.ranks)]

    def peft_config(self, model: LatentDiffusion, component: str) -> LoraConfig:
        """Exact names; one pattern for each rank and each alpha, since peft tries all patterns on every module."""
        ranks, alphas = (_of(component, values) for values in (self.ranks, self.alphas))
        return LoraConfig(
            target_modules=_any_of(ranks),
            rank_pattern={_any_of(names): rank for rank, names in _grouped(ranks).items()},
            alpha_pattern={_any_of(names): alpha for alpha, names in _grouped(alphas).items()},
            use_dora=self.use_dora,
        )


def _of(component: str, values: Mapping[str, Any]) -> dict[str, Any]:
    start = f"{component}."
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def _any_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)


def _grouped(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return groups


@dataclass(frozen=True)
class Together:
    """Several adaptations on one model, attached in this order."""

    parts: Sequence[Adaptation]

    @property
    def freezes_base(self) -> bool:
        """Where all do."""
        return all(part.freezes_base for part in self.parts)

    def components(self, model: LatentDiffusion) -> list[str]:
        """Those of any part."""
        touched = {name for part in self.parts for name in part.components(model)}
        return [name for name in model.component_names if name in touched]

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """All of them."""
        trained: dict[str, list[nn.Parameter]] = {}
        for part in self.parts:
            for name, parameters in part.attach(model).items():
                trained.setdefault(name, []).extend(parameters)
        model.text_is_trained = self.components(model) != [model.denoiser_name]
        return trained

    @contextmanager
    def base(self, model: LatentDiffusion) -> Iterator[None]:
        """Without any."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.base(model))
            yield

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Each of them."""
        for part in self.parts:
            part.train(model, active)

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """Of all; no two have a name in common."""
        return {name: tensor for part in self.parts for name, tensor in part.state_dict(model).items()}

    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Put all back.

        Raises:
            KeyError: names that this model does not have, or lacks.
        """
        known = [part.state_dict(model).keys() for part in self.parts]
        if set().union(*known) != state.keys():
            raise KeyError(f"adapter tensors that do not match: {sorted(set().union(*known) ^ state.keys())[:3]}")
        for part, names in zip(self.parts, known, strict=True):
            part.load_state_dict(model, {name: state[name] for name in names})

    def layers(self, model: LatentDiffusion) -> GradientLayers:
        """Of all."""
        each = [part.layers(model) for part in self.parts]
        updates = {layer: update for layers in each for layer, update in layers.updates.items()}
        return GradientLayers([m for e in each for m in e.adapter], [m for e in each for m in e.base], updates)


def attach_file(file: AdapterFile, path: Path, model: LatentDiffusion, base: str) -> Adaptation:
    """Give the model the file's adapter, under the adaptation that is returned.

    Args:
        path, base: what messages call them.

    Raises:
        CheckpointError: it does not fit, or changes nothing.
    """
    said = f"--adapter: {path}"
    weights = _weights(model)
    pairs = {f"{module}.weight": module for module in file.ranks}
    told = {name: _pair_shape(file, module) for name, module in pairs.items()}
    told |= {name: difference.shape for name, difference in file.differences.items()}
    names = named_as({name: name for name in told}, weights)  # the model's -> the file's
    layers = _layers(model)
    known = {name: shape for name, shape in weights.items() if name in layers or names.get(name) not in pairs}
    _check_fit(f"{said} does not fit {base}: ", known, {name: told[own] for name, own in names.items()}, file.family)
    modules = {name.removesuffix(".weight"): pairs[own] for name, own in names.items() if own in pairs}
    magnitudes = [own for own in modules.values() if f"{own}.lora_magnitude_vector" in file.state]
    if magnitudes and len(magnitudes) < len(modules):
        raise CheckpointError(
            f"{said} holds DoRA magnitudes for {len(magnitudes)} of its {len(modules)} layers; all or none"
        )
    differences = {name: file.differences[own] for name, own in names.items() if own not in pairs}
    parts: list[Adaptation] = []
    moved = any(difference.tensor().any() for difference in differences.values())
    if differences:  # before peft renames the weights
        parts.append(DifferenceAdaptation(differences))
        parts[0].attach(model)
    if modules:
        ranks = {name: file.ranks[own] for name, own in modules.items()}
        alphas = {name: file.alphas[own] for name, own in modules.items()}
        parts.append(ModulesAdaptation(ranks=ranks, alphas=alphas, use_dora=bool(magnitudes)))
        parts[-1].attach(model)
        moved |= _load_pairs(file, modules, parts[-1], model)
    if not moved:
        raise CheckpointError(
            f"{said} changes nothing: every product of its halves is zero; was it saved before training?"
        )
    together = Together(parts)
    model.text_is_trained = together.components(model) != [model.denoiser_name]
    return parts[0] if len(parts) == 1 else together


def _weights(model: LatentDiffusion) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights and biases, by full name."""
    return {
        f"{component}.{name}": tuple(p.shape)
        for component in model.component_names
        for name, p in model.component(component).named_parameters()
    }


def _layers(model: LatentDiffusion) -> set[str]:
    """The names of the weights that a low-rank adapter can sit on."""
    return {
        f"{component}.{name}.weight"
        for component in model.component_names
        for name, module in model.component(component).named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def _pair_shape(file: AdapterFile, module: str) -> tuple[int, ...]:
    """Of B A."""
    return len(file.state[f"{module}.lora_B.weight"]), *file.state[f"{module}.lora_A.weight"].shape[1:]


def _check_fit(
    misfit: str,
    weights: Mapping[str, tuple[int, ...]],
    told: Mapping[str, tuple[int, ...]],
    family: str | None,
) -> None:
    """See whether the model has these weights, in these shapes.

    Args:
        family: what the file is of, where that is known.

    Raises:
        CheckpointError: not so.
    """
    lost = [name for name in told if name not in weights]
    if lost:
        layer, family = lost[0].removesuffix(".weight"), family or other_family(lost)
        raise CheckpointError(
            f"{misfit}it has no layer {layer} ({len(lost)} of the file's {len(told)} are missing)"
            + (f"; the file is of {family}" if family else "")
        )
    other = [name for name, shape in told.items() if not _fits(shape, weights[name])]
    if other:
        ours, theirs = weights[other[0]], told[other[0]]
        sizes = [(prod(shape[1:]), shape[0]) for shape in (ours, theirs)]
        words = f"maps {sizes[0][0]} numbers to {sizes[0][1]}, the file's {sizes[1][0]} to {sizes[1][1]}"
        if sizes[0] == sizes[1] or len(ours) == 1:
            words = f"has weights of shape {ours}, the file's of {theirs}"
        raise CheckpointError(
            f"{misfit}{other[0].removesuffix('.weight')} {words} ({len(other)} of {len(told)} layers differ)"
        )


def _fits(told: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Linear layers and convolutions over one pixel are the same, and programs store either as the other; some
    flatten all of a convolution's inputs."""
    flat = len(told) <= 2 and told[:1] == weight[:1] and prod(told) == prod(weight)
    return flat or (told + (1,) * (4 - len(told)) == weight + (1,) * (4 - len(weight)))


def _load_pairs(file: AdapterFile, modules: Mapping[str, str], adaptation: Adaptation, model: LatentDiffusion) -> bool:
    """Fill the attached low-rank adapters; returns whether they change anything.

    Args:
        modules: the model's names -> the file's.
    """
    before = adaptation.state_dict(model)
    state = {
        f"{name}.{part}": file.state[f"{own}.{part}"].reshape(before[f"{name}.{part}"].shape)
        for name, own in modules.items()
        for part in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
        if f"{own}.{part}" in file.state
    }
    adaptation.load_state_dict(model, state)
    halves = [[state[f"{name}.lora_{side}.weight"] for side in "AB"] for name in modules]
    moved = any(a.any() and b.any() and file.alphas[own] for (a, b), own in zip(halves, modules.values(), strict=True))
    return moved or any(not torch.allclose(state[n], before[n]) for n in state if n.endswith("magnitude_vector"))
