"""Textual inversion (Gal et al. 2023): new token embeddings and nothing else, as ``learned_embeds.safetensors``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from smplora.adapters.files.read import read_tensors
from smplora.adapters.files.write import AdapterFacts, write_tensors
from smplora.core.errors import ConfigError
from smplora.models.adapted import GradientLayers, exchanged

if TYPE_CHECKING:
    from smplora.models.diffusion import LatentDiffusion

FILES = {"text_encoder": "learned_embeds.safetensors", "text_encoder_2": "learned_embeds_2.safetensors"}  # diffusers'


class ExtendedEmbedding(nn.Module):
    """A frozen embedding table, and learned vectors for the ids from ``first`` on: [b, n] -> [b, n, d]."""

    def __init__(self, table: nn.Module, first: int, vectors: Tensor) -> None:
        super().__init__()
        self.table, self.first, self.learned = table, first, nn.Parameter(vectors.float())

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings of token ids, differentiable with respect to the learned vectors."""
        own = (ids >= self.first) & (ids < self.first + len(self.learned))
        known: Tensor = self.table(ids.masked_fill(own, 0))
        new = self.learned[(ids - self.first).clamp(0, len(self.learned) - 1)].to(known.dtype)
        return torch.where(own[..., None], new, known)


@dataclass(frozen=True)
class PlaceholderTokenizer:
    """A tokenizer that reads the placeholder as its several tokens, as diffusers' pipelines do."""

    tokenizer: Any
    placeholder: str
    tokens: tuple[str, ...]

    def __call__(self, captions: Sequence[str], **options: Any) -> Any:
        """Token ids."""
        return self.tokenizer([c.replace(self.placeholder, " ".join(self.tokens)) for c in captions], **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@dataclass
class TextualInversionAdaptation:
    """``num_vectors`` new tokens, all written as ``placeholder_token``; they begin as the tokens of
    ``initializer_token``, repeated."""

    freezes_base: ClassVar[bool] = True
    noun: ClassVar[str] = "embeddings"
    tags: ClassVar[tuple[str, ...]] = ("textual_inversion",)
    placeholder_token: str
    initializer_token: str = ""
    num_vectors: int = 1
    initial: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def components(self, model: LatentDiffusion) -> list[str]:
        """Every text encoder."""
        return list(model.text.encoders)

    def check(self, model: LatentDiffusion) -> None:
        """See whether the tokenizers know the words.

        Raises:
            ConfigError: they know the placeholder, or take more tokens for the initializer than there are vectors.
        """
        for tokenizer in _tokenizers(model):
            if self.placeholder_token in tokenizer.get_vocab():
                raise ConfigError(
                    f"--placeholder_token got '{self.placeholder_token}', which is a word that the model knows; "
                    f"give a new one, such as '<{self.placeholder_token}>'"
                )
            tokens = len(_ids(tokenizer, self.initializer_token))
            if not 1 <= tokens <= self.num_vectors:
                raise ConfigError(
                    f"--initializer_token got '{self.initializer_token}', which is {tokens} tokens; give a word of "
                    f"at most --num_vectors {self.num_vectors}, or more vectors"
                )

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """New tokens in every tokenizer, and their vectors beside every text encoder's own."""
        model.denoiser.requires_grad_(False)
        model.text_is_trained = True
        tokens = tuple(self.placeholder_token + (f"_{k}" if k else "") for k in range(self.num_vectors))
        spelled = []
        for name, tokenizer in zip(self.components(model), _tokenizers(model), strict=True):
            encoder = model.component(name).requires_grad_(False)
            ids = _ids(tokenizer, self.initializer_token)
            rows = [ids[k % len(ids)] for k in range(self.num_vectors)]
            tokenizer.add_tokens(list(tokens))
            table = encoder.get_input_embeddings()
            first = int(tokenizer.convert_tokens_to_ids(tokens[0]))
            vectors = table.weight[torch.tensor(rows, device=table.weight.device)].detach().clone()
            encoder.set_input_embeddings(ExtendedEmbedding(table, first, vectors))
            spelled.append(PlaceholderTokenizer(tokenizer, self.placeholder_token, tokens))
        text: Any = model.text
        one = len(spelled) == 1
        model.text = replace(text, **({"tokenizer": spelled[0]} if one else {"tokenizers": tuple(spelled)}))
        learned = _learned(model)
        self.initial = {name: p.detach().clone() for name, p in learned.items()}
        return {name: [p] for name, p in learned.items()}

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Nothing differs."""

    def base(self, model: LatentDiffusion) -> AbstractContextManager[None]:
        """The new tokens mean what they began as."""
        return exchanged(_learned(model), self.initial)

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The vectors [vectors, d], as "text_encoder.learned"."""
        return {f"{name}.learned": p.detach().cpu().contiguous() for name, p in _learned(model).items()}

    @torch.no_grad()
    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Put them back.

        Raises:
            KeyError, RuntimeError: vectors of another model, or another number of them.
        """
        learned = {f"{name}.learned": p for name, p in _learned(model).items()}
        shapes = {name: tuple(p.shape) for name, p in learned.items()}
        loaded = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if loaded != shapes:
            raise KeyError(f"embeddings that do not match: {loaded}, and the model takes {shapes}")
        for name, p in learned.items():
            p.copy_(state[name])

    def layers(self, model: LatentDiffusion) -> GradientLayers:
        """No layer is trained."""
        return GradientLayers([], [], {})

    def publish(
        self, model: LatentDiffusion, folder: Path, facts: AdapterFacts, *, precision: str, complete: bool
    ) -> list[str]:
        """A file for each text encoder, with the vectors under the placeholder's name."""
        for name, p in _learned(model).items():
            write_tensors(folder / FILES[name], {self.placeholder_token: p}, facts.metadata(), precision)
        return []

    def weights(self, folder: Path) -> list[Path]:
        """One, of SDXL two."""
        first, second = (folder / name for name in FILES.values())
        return [first, second] if second.exists() else [first]

    def published(self, folder: Path) -> list[str]:
        """The same."""
        return [path.name for path in self.weights(folder)]

    def read(self, folder: Path) -> dict[str, Tensor]:
        """The vectors, whatever the file calls them."""
        files = zip(FILES, self.weights(folder), strict=False)
        return {f"{name}.learned": tensor.float() for name, path in files for tensor in read_tensors(path).values()}

    def usage(self, source: str, pipeline: str, base: str) -> list[str]:
        """``load_textual_inversion``, of SDXL twice."""
        first, second = FILES.values()
        return [
            f'pipeline = {pipeline}.from_pretrained("{base}")',
            f'pipeline.load_textual_inversion("{source}", weight_name="{first}")',
            *(
                [
                    f'pipeline.load_textual_inversion("{source}", weight_name="{second}",',
                    "    text_encoder=pipeline.text_encoder_2, tokenizer=pipeline.tokenizer_2)",
                ]
                if "XL" in pipeline
                else []
            ),
        ]


def _tokenizers(model: LatentDiffusion) -> list[Any]:
    text: Any = model.text
    return [text.tokenizer] if len(text.encoders) == 1 else list(text.tokenizers)


def _ids(tokenizer: Any, words: str) -> list[int]:
    ids: list[int] = tokenizer([words], add_special_tokens=False).input_ids[0]
    return ids


def _learned(model: LatentDiffusion) -> dict[str, nn.Parameter]:
    return {name: model.component(name).get_input_embeddings().learned for name in model.text.encoders}
