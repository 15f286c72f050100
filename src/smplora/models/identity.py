"""What makes a base model the same as another: everything that decides its output, not its weights alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from inspect import signature
from typing import Any

import torch
from torch import nn

from smplora.core.errors import CheckpointError
from smplora.models.diffusion import LatentDiffusion

NOT_OUTPUT = (
    "sample_size",
    "torch_dtype",
    "dtype",
)  # of networks: the size to draw unless told, how weights are stored
OF_FILES = ("architectures", "transformers_version", "chunk_size_feed_forward", "output_hidden_states", "return_dict")
TEXT_SETTINGS = (
    "hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers", "hidden_size", "intermediate_size",
    "max_position_embeddings", "projection_dim", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
PROBE = "a photo of an Éclair-shaped house, 3/4 view; 1girl & (smile:1.2) naïve façade 東京 don't"


def weights_digest(networks: list[tuple[str, nn.Module]]) -> str:
    """Of all tensors as fp32 numbers, however they are kept, in the order of ``networks`` and of their names."""
    digest = blake2b(digest_size=16)
    for _, network in networks:
        for _, tensor in sorted(network.state_dict().items()):
            whole = tensor.float() if tensor.is_floating_point() else tensor
            digest.update(whole.cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def model_digest(model: LatentDiffusion, tokenizers: Sequence[Any], zeros_for_empty: bool = False) -> str:
    """Of the weights (``model.weights_digest``), the networks' settings, the tokenizers and the noise schedule. A model
    in a folder and in a single file has one digest.

    Args:
        zeros_for_empty: SDXL's empty caption is zeros.
    """
    digest = blake2b(model.weights_digest.encode(), digest_size=16)
    denoiser: Any = model.denoiser
    known = signature(type(model.sampler())).parameters
    sampler = {name: value for name, value in model.sampler().config.items() if name in known}
    encoders = model.text.encoders.values()
    text: list[Any] = [[getattr(e.config, name, None) for name in TEXT_SETTINGS] for e in encoders]
    if model.prediction_type == "velocity":  # of language models more decides
        text = [{k: v for k, v in _plain(e.config.to_dict()).items() if k not in OF_FILES} for e in encoders]
    settings = {
        "vae": _plain(model.vae.config),
        "denoiser": _plain(denoiser.config),
        "text": text,
        "tokenizers": [_tokens(tokenizer) for tokenizer in tokenizers],
        "zeros_for_empty": zeros_for_empty,
        "prediction_type": model.prediction_type,
        "sampler": _plain(sampler),
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(model.alphas_cumprod.cpu().numpy().tobytes())
    return digest.hexdigest()


def check_numbers(model: LatentDiffusion, name: str) -> None:
    """Refuse a noise schedule that would spoil every result without a word.

    Raises:
        CheckpointError: its levels are not numbers in [0, 1].
    """
    levels = model.alphas_cumprod
    if not bool(torch.isfinite(levels).all() and (levels >= 0).all() and (levels <= 1).all()):
        raise CheckpointError(f"'{name}' has a noise schedule whose levels are not all in [0, 1]; see its scheduler/")


def check_weights(networks: list[tuple[str, nn.Module]], given: str) -> None:
    """Refuse weights that are no numbers.

    Args:
        given: "--option got 'x'".

    Raises:
        CheckpointError: a weight that is NaN or infinite, or of a type other than real floating point.
    """
    for part, network in networks:
        for name, weight in network.named_parameters():
            if not weight.is_floating_point():
                raise CheckpointError(f"{given}, whose {part} has weights of type {weight.dtype} in {name}")
            # a sum takes no memory; where it is not finite it may have overflowed
            if not weight.detach().float().sum().isfinite() and not weight.isfinite().all():
                raise CheckpointError(f"{given}, whose {part} has weights that are not finite in {name}")


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, without what a library notes for itself; unset and false are the same."""
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in NOT_OUTPUT and value is not None and value is not False
    }


def _tokens(tokenizer: Any) -> list[Any]:
    """What decides which tokens a caption becomes: vocabulary, merges, special tokens, how many are read, and
    the chat that it is put into."""
    vocabulary = blake2b(json.dumps(sorted(tokenizer.get_vocab().items())).encode(), digest_size=16).hexdigest()
    merges = _merges(tokenizer)
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    # word by word: the library warns of long texts
    words = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word)) for word in PROBE.split()]
    chat = getattr(tokenizer, "chat_template", None)
    written = [chat, tokenizer.padding_side] if chat else []
    return [vocabulary, merges, special, words, tokenizer.model_max_length, *written]


def _merges(tokenizer: Any) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    merges = json.loads(backend.to_str())["model"].get("merges")
    return blake2b(json.dumps(merges).encode(), digest_size=16).hexdigest()
