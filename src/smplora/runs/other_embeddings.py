"""Learned embeddings (textual inversion) of any program, put onto the base model that they were learned for.

Layouts: diffusers' {"<word>": [v, d]}, of SDXL a second file ``*_2.safetensors`` beside it; A1111's and kohya's
{"emb_params": [v, d]}, whose word is the file's name; of SDXL {"clip_l": .., "clip_g": ..} in one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from smplora.adapters.files.read import read_tensors
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
    metadata: dict[str, str]
    sha256: str


def is_inversion(path: Path) -> bool:
    """Whether a file holds learned embeddings: nothing but one to two matrices without a module's name."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return False  # the reader of adapters says what is wrong
    flat = all(len(shape) in (1, 2) for shape in shapes.values())
    return flat and (set(shapes) == set(ENCODERS) or (len(shapes) == 1 and not next(iter(shapes)).endswith(".weight")))


def read_inversion(path: Path) -> Embeddings:
    """Learned embeddings, whatever the layout.

    Raises:
        CheckpointError: damaged, or values that are not numbers.
    """
    tensors, files = read_tensors(path), [path]
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
    if set(tensors) == set(ENCODERS):
        word, vectors = path.stem, {ENCODERS[name]: tensor for name, tensor in tensors.items()}
    else:
        name, tensor = next(iter(tensors.items()))
        word, vectors = path.stem if name == NAMELESS else name, {"text_encoder": tensor}
        second = path.with_name(f"{path.stem}_2{path.suffix}")
        if second.exists():
            files.append(second)
            vectors["text_encoder_2"] = next(iter(read_tensors(second).values()))
    rows = {encoder: tensor.float().reshape(-1, tensor.shape[-1]) for encoder, tensor in vectors.items()}
    return Embeddings(word, rows, metadata, files_sha256(files))


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
