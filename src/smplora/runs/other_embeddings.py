"""Learned embeddings (textual inversion) of any program, put onto the base model that they were learned for.

Layouts: diffusers' {"<word>": [v, d]}, of SDXL a second file ``*_2.safetensors`` beside it; A1111's and kohya's
{"emb_params": [v, d]}, whose word is the file's name; of SDXL {"clip_l": .., "clip_g": ..} in one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from smplora.adapters.files.names import is_part
from smplora.adapters.files.read import read_tensors, real
from smplora.adapters.textual_inversion import FILES, TextualInversionAdaptation
from smplora.core.errors import CheckpointError, ConfigError
from smplora.core.files import files_sha256
from smplora.models.diffusion import LatentDiffusion

NAMELESS = "emb_params"
ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
INITIALIZER = "*"  # A1111's; what the word is taken to mean without the embeddings, where nobody says


@dataclass(frozen=True)
class Embeddings:
    """A file's content: for each text encoder the vectors [v, d] of ``word``."""

    word: str
    vectors: dict[str, Tensor]
    sha256: str


def is_inversion(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file holds learned embeddings: nothing but one to two matrices that are no part of an adapter."""
    flat = all(len(shape) in (1, 2) for shape in shapes.values())
    return flat and (
        set(shapes) == set(ENCODERS)
        or (len(shapes) == 1 and not any(name.endswith(".weight") or is_part(name) for name in shapes))
    )


def read_inversion(path: Path) -> Embeddings:
    """Learned embeddings, whatever the layout.

    Raises:
        CheckpointError: damaged, or values that are no real numbers.
    """
    tensors, files = _vectors(path), [path]
    if set(tensors) == set(ENCODERS):
        word, vectors = path.stem, {ENCODERS[name]: tensor for name, tensor in tensors.items()}
    else:
        name, tensor = next(iter(tensors.items()))
        word, vectors = path.stem if name == NAMELESS else name, {"text_encoder": tensor}
        second = path.with_name(f"{path.stem}_2{path.suffix}")
        if second.exists():
            files.append(second)
            vectors["text_encoder_2"] = next(iter(_vectors(second).values()))
    rows = {encoder: tensor.reshape(-1, tensor.shape[-1]) for encoder, tensor in vectors.items()}
    return Embeddings(word, rows, files_sha256(files))


def _vectors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, in fp32."""
    try:
        found = {name: real(name, tensor) for name, tensor in read_tensors(path).items()}
    except ValueError as error:
        raise CheckpointError(f"--adapter: {path} cannot be used: {error}") from error
    if not found or not all(tensor.dim() in (1, 2) for tensor in found.values()):
        raise CheckpointError(f"--adapter: {path} holds no embeddings")
    return found


def attach_embeddings(
    embeddings: Embeddings, path: Path, model: LatentDiffusion, base: str, *, word: str | None, initializer: str | None
) -> TextualInversionAdaptation:
    """Give the model the file's embeddings, under the adaptation that is returned.

    Args:
        path, base: what messages call file and model.
        word: in place of the file's own.
        initializer: what the word means to the base model.

    Raises:
        CheckpointError: they do not fit.
        ConfigError: the model knows the word.
    """
    misfit = f"--adapter: {path} does not fit {base}: "
    counts = {len(rows) for rows in embeddings.vectors.values()}
    if set(embeddings.vectors) != set(model.text.encoders) or len(counts) != 1:
        raise CheckpointError(
            f"{misfit}it has embeddings for {', '.join(embeddings.vectors)}, the model reads with "
            f"{', '.join(model.text.encoders)}"
            + (f"; SDXL's second file is {FILES['text_encoder_2']}" if len(model.text.encoders) > 1 else "")
        )
    for encoder, rows in embeddings.vectors.items():
        width = model.component(encoder).get_input_embeddings().weight.shape[1]
        if rows.shape[1] != width:
            raise CheckpointError(
                f"{misfit}its embeddings have {rows.shape[1]} numbers, those of {encoder} have {width}"
            )
    adaptation = TextualInversionAdaptation(word or embeddings.word, initializer or INITIALIZER, counts.pop())
    try:
        adaptation.check(model)
    except ConfigError as error:
        raise ConfigError(str(error).replace("of at most --num_vectors", "of at most the file's")) from error
    adaptation.attach(model)
    adaptation.load_state_dict(model, {f"{encoder}.learned": rows for encoder, rows in embeddings.vectors.items()})
    return adaptation
