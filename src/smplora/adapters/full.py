"""Full fine-tuning: every weight of the denoiser (and of the text encoders), published as a folder in diffusers format.

Memory beyond a LoRA's: weights, gradients and two moments in fp32 are 16 bytes a weight (14 GB for SD 1.5), and the
untouched weights, 4 bytes more: on the device while a model is audited, in the host's memory while it is trained.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from smplora.adapters.files.read import read_tensors
from smplora.adapters.files.write import AdapterFacts, stored, write_tensors
from smplora.core.files import write_json
from smplora.core.reading import read_json
from smplora.models.adapted import GradientLayers, exchanged
from smplora.models.diffusers_format import quiet

if TYPE_CHECKING:
    from smplora.models.diffusion import LatentDiffusion

INDEX = "model_index.json"
DENOISERS = ("unet", "transformer")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
PARTS = (INDEX, *DENOISERS, "vae", *ENCODERS, *TOKENIZERS, "scheduler")
DENOISER_FILE = "diffusion_pytorch_model.safetensors"  # diffusers' name; transformers' is:
TEXT_FILE = "model.safetensors"
WHERE_FROM = ("_name_or_path", "name_or_path", "is_local", "local_files_only")  # libraries' notes of what was loaded


@dataclass
class FullAdaptation:
    """``train_text_encoder``: train the text encoder(s) too."""

    freezes_base: ClassVar[bool] = False
    noun: ClassVar[str] = ""
    tags: ClassVar[tuple[str, ...]] = ("full-finetuning",)
    train_text_encoder: bool = False
    untouched: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)  # the base model's weights

    def components(self, model: LatentDiffusion) -> list[str]:
        """The denoiser, and the text encoders if they are trained."""
        return [model.denoiser_name, *(model.text.encoders if self.train_text_encoder else ())]

    def check(self, model: LatentDiffusion) -> None:
        """Fits every model."""

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Let every weight learn, in fp32, and keep a copy of all of them."""
        model.denoiser.requires_grad_(False)
        model.text_is_trained = self.train_text_encoder
        for name in self.components(model):
            model.component(name).float().requires_grad_(True)
        self.untouched = {name: p.detach().clone() for name, p in self._parameters(model).items()}
        return {name: list(model.component(name).parameters()) for name in self.components(model)}

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """While training the copy rests in the host's memory. No part of these models has dropout."""
        where = torch.device("cpu") if active else model.device
        self.untouched = {name: tensor.to(where) for name, tensor in self.untouched.items()}

    def base(self, model: LatentDiffusion) -> AbstractContextManager[None]:
        """The copy takes the place of the weights."""
        return exchanged(self._parameters(model), self.untouched)

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """All weights, as "unet.conv_in.weight"."""
        return {name: p.detach().cpu().contiguous() for name, p in self._parameters(model).items()}

    @torch.no_grad()
    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Put them back.

        Raises:
            KeyError: names that this model does not have, or lacks.
        """
        parameters = self._parameters(model)
        given = state.keys() - self._constants(model).keys()
        if parameters.keys() != given:
            raise KeyError(f"weights that do not match: {sorted(parameters.keys() ^ given)[:3]}")
        for name, p in parameters.items():
            p.copy_(state[name])

    def layers(self, model: LatentDiffusion) -> GradientLayers:
        """Every linear layer and convolution; norms, biases and embeddings are left out."""
        layers = {
            f"{component}.{name}.weight": module
            for component in self.components(model)
            for name, module in model.component(component).named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))
        }
        every = list(layers.values())
        return GradientLayers(
            every, every, {module: partial(self._update, name, module) for name, module in layers.items()}
        )

    def _update(self, name: str, layer: nn.Module) -> Tensor:
        weight: Any = layer.weight
        update: Tensor = (weight - self.untouched[name].to(weight.device)).detach()
        return update

    def publish(
        self, model: LatentDiffusion, folder: Path, facts: AdapterFacts, *, precision: str, complete: bool
    ) -> list[str]:
        """The trained parts as diffusers and transformers save them; where it is to be complete, all the others, so
        that ``from_pretrained`` of a pipeline reads the folder."""
        state = self.state_dict(model) | self._constants(model)
        for name in self.components(model):
            own = {n.removeprefix(f"{name}."): t for n, t in state.items() if n.startswith(f"{name}.")}
            part = model.component(name)
            if name == model.denoiser_name:
                part.save_config(folder / name)
                write_tensors(folder / name / DENOISER_FILE, own, facts.metadata(), precision)
            else:
                part.save_pretrained(folder / name, state_dict=stored(own, precision))
        if complete:
            parts = _parts(model)
            for name, part in parts.items():
                if name not in self.components(model):
                    part.save_pretrained(folder / name)
            _pipeline(model, parts).save_config(folder)
        for path in folder.rglob("*.json"):
            content = read_json(path)
            if isinstance(content, dict):
                write_json(path, {name: value for name, value in content.items() if name not in WHERE_FROM})
        return []

    def weights(self, folder: Path) -> list[Path]:
        """The denoiser's, and those of the text encoders that are trained."""
        trained = [f for f in sorted(folder.glob("text_encoder*")) if f.is_dir()] if self.train_text_encoder else []
        denoiser = next((name for name in DENOISERS if (folder / name).is_dir()), DENOISERS[0])
        return [folder / denoiser / DENOISER_FILE, *(f / TEXT_FILE for f in trained)]

    def published(self, folder: Path) -> list[str]:
        """The folder in diffusers format, whatever there is of it."""
        files = (path for part in PARTS for path in sorted([folder / part, *(folder / part).rglob("*")]))
        return [str(path.relative_to(folder).as_posix()) for path in files if path.is_file()]

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Of the trained parts."""
        state: dict[str, Tensor] = {}
        for path in self.weights(folder):
            state |= {f"{path.parent.name}.{name}": tensor.float() for name, tensor in read_tensors(path).items()}
        return state

    def usage(self, source: str, pipeline: str, base: str) -> list[str]:
        """The folder is a whole pipeline."""
        return [f'pipeline = {pipeline}.from_pretrained("{source}")']

    def _constants(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """Tensors of the denoiser's file that are not learned, such as the places of SD 3's patches."""
        part, learned = model.denoiser, dict(model.denoiser.named_parameters())
        constants = {name: tensor for name, tensor in part.state_dict().items() if name not in learned}
        return {f"{model.denoiser_name}.{name}": t.detach().cpu().contiguous() for name, t in constants.items()}

    def _parameters(self, model: LatentDiffusion) -> dict[str, nn.Parameter]:
        return {
            f"{component}.{name}": p
            for component in self.components(model)
            for name, p in model.component(component).named_parameters()
        }


def _parts(model: LatentDiffusion) -> dict[str, Any]:
    """All parts of a pipeline, by diffusers' names."""
    text: Any = model.text
    tokenizers = [text.tokenizer] if len(text.encoders) == 1 else list(text.tokenizers)
    return {
        "vae": model.vae,
        model.denoiser_name: model.denoiser,
        **text.encoders,
        **dict(zip(TOKENIZERS, tokenizers, strict=False)),
        "scheduler": model.sampler(),
    }


def _pipeline(model: LatentDiffusion, parts: dict[str, Any]) -> Any:
    """diffusers' pipeline of these parts; the others that it could have, such as a safety checker, it has not."""
    import diffusers

    kind: Any = getattr(diffusers, model.pipeline)
    known = signature(kind).parameters
    needed = {name: None for name, p in known.items() if p.default is p.empty}
    settings = {name: value for name, value in model.pipeline_settings.items() if name in known}
    with quiet():  # about the lack of a safety checker
        return kind(**{**needed, **settings, **parts})


@dataclass
class DreamBoothAdaptation(FullAdaptation):
    """``FullAdaptation`` under its name in the paper's Table 9."""

    tags: ClassVar[tuple[str, ...]] = ("dreambooth",)
