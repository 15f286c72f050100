"""Load base models: a diffusers folder, a cached hub id, one .safetensors file, or a bundled model."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from smplora.core.errors import CheckpointError
from smplora.core.files import BUNDLED, BUNDLED_MODEL
from smplora.models.diffusers_format import (
    OPTION,
    Components,
    folder_of,
    pipeline_class,
    quiet,
    read_folder_model,
    stated_settings,
)
from smplora.models.diffusion import LatentDiffusion
from smplora.models.families import family_of_pipeline
from smplora.models.flow import FlowMatching
from smplora.models.identity import check_numbers, check_weights, model_digest, weights_digest
from smplora.models.quantised import quantise
from smplora.models.single_file import BASE_SAMPLE_SIZE, is_single_file, is_transformer, read_single_file
from smplora.models.stated import building, first_line, unusable
from smplora.models.text import ClipText, SdxlText, TextConditioning

GUIDANCE = 7.5
UNSTATED_LENGTH = 10**20  # the library's 10^30, as a float is no whole number
PREDICTION_TYPES = ("epsilon", "v_prediction")


def load_model(
    name: str,
    device: torch.device,
    *,
    config: str | None = None,
    prediction_type: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> LatentDiffusion:
    """The frozen base model in evaluation mode.

    Args:
        name: "tiny" or "tiny-flow" (bundled), a folder in diffusers format, a model id in the local hub cache or one
            .safetensors file; nothing is downloaded.
        config: for a single file, a folder in diffusers format with its configuration and, of flow matching, with all
            parts but the transformer's weights. None: the family's standard.
        prediction_type: what the denoiser predicts, if the model does not say or says it wrongly.
        variant: suffix of a folder's weight files, such as "fp16".
        revision: of a model id.
        dtype: what a flow-matching transformer computes in, and with bf16 its text encoders too; fp16 would be too
            little for theirs. All others are in fp32, as the VAE is.
        quantize: "8bit" or "4bit", of a flow-matching transformer; see quantised.py.

    Raises:
        CheckpointError: no such model, or a component cannot be read.
    """
    given = f"--{OPTION} got '{name}'"
    try:
        with quiet():
            file = is_single_file(name)
            folder = Path(config) if file and config else None if file else folder_of(name, revision)
            asked = f"--model_config got '{config}'" if file else given
            family = family_of_pipeline(pipeline_class(folder, asked)) if folder else None
            if family and folder:
                return load_flow(family, name, folder, device, variant, dtype, quantize)
            parts = read_single_file(name, config) if file else read_folder_model(name, variant, revision)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        if config and is_single_file(name):
            raise CheckpointError(
                f"--model_config got '{config}', which is not a folder in diffusers format ({reason})"
            ) from error
        raise CheckpointError(
            f"{given}, which is neither {_bundled()}, nor a folder in diffusers format "
            "(model_index.json, vae/, unet/, text_encoder/, tokenizer/, scheduler/), nor a cached model id "
            f"(--allow_download fetches one), nor a .safetensors file ({reason})"
        ) from error
    kind = prediction_type or parts.scheduler.config.prediction_type
    if kind not in PREDICTION_TYPES:
        raise CheckpointError(
            f"'{name}' predicts '{kind}'; smplora knows {' and '.join(PREDICTION_TYPES)} (--prediction_type overrules)"
        )
    parts.scheduler.register_to_config(prediction_type=kind)
    check_weights(parts.models, given)
    for _, part in parts.models:
        with quiet():
            part.to(device).float().eval().requires_grad_(False)
    with building(unusable(f"{given}, which does not work as a whole and")), quiet():
        model = LatentDiffusion(
            parts.vae, conditioning(parts, given), parts.unet, parts.scheduler, shown(name), "",
            weights_digest(parts.models),
        )  # fmt: skip
        check_numbers(model, name)
        if name not in BUNDLED:  # a test has that one
            try_once(model, given)
        if prediction_type is None and not parts.states_prediction:
            parts.scheduler.register_to_config(prediction_type=observed_prediction_type(model))
        if config is None and model.family == "sd_v2" and is_single_file(name):
            parts.unet.register_to_config(sample_size=BASE_SAMPLE_SIZE)
        model.digest = model_digest(model, parts.tokenizers, parts.zeros_for_empty)
    return model


def shown(name: str) -> str:
    """What a model is called where people read."""
    return BUNDLED[name][0] if name in BUNDLED else Path(name).name


def _bundled() -> str:
    return ", nor ".join(f"'{name}'" for name in BUNDLED)


def usual_guidance(name: str, revision: str | None = None) -> float:
    """The classifier-free guidance that images are drawn with where nobody says: that of pipelines for Stable
    Diffusion; none with the bundled models, which were made for none, and with flow matching, where distilled models,
    which have guidance inside, look like others."""
    if name == BUNDLED_MODEL:
        return 1.0
    try:
        flow = is_transformer(name) if is_single_file(name) else is_flow(name, None, revision)
    except CheckpointError:
        return GUIDANCE
    return 1.0 if flow else GUIDANCE


def is_flow(name: str, config: str | None = None, revision: str | None = None) -> bool | None:
    """Whether ``load_model`` would read a family of flow matching, by model_index.json alone; None: it would say what
    is wrong."""
    try:
        folder = (Path(config) if config else None) if is_single_file(name) else folder_of(name, revision)
        return folder is not None and family_of_pipeline(pipeline_class(folder, name)) is not None
    except (OSError, ValueError, CheckpointError):
        return None


def load_flow(
    family: ModuleType,
    name: str,
    folder: Path,
    device: torch.device,
    variant: str | None,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> FlowMatching:
    """As ``load_model``, of a family of flow matching whose parts are in ``folder``, but for the transformer's weights
    if ``name`` is a file.

    Raises:
        OSError, ValueError: a file is missing.
        CheckpointError: a file that cannot be used, or parts that do not fit together.
    """
    given = f"--{OPTION} got '{name}'"
    file = name if is_single_file(name) else None
    parts = family.read(folder, f"--model_config got '{folder}'" if file else given, variant, file)
    networks = [*parts.networks.items()]
    check_weights(networks, given)
    for name_of, tokenizer in parts.tokenizers.items():
        encoder = parts.networks[name_of.replace("tokenizer", "text_encoder")]
        largest, known = max(tokenizer.get_vocab().values()), encoder.get_input_embeddings().num_embeddings
        if largest >= known:
            raise CheckpointError(f"{given}, whose {name_of}/ makes ids up to {largest}, its encoder knows {known}")
    digest = weights_digest(networks)  # of what is in the files, however it is kept
    if quantize:
        quantise(parts.networks[FlowMatching.denoiser_name], quantize, dtype)
    text = dtype if dtype is torch.bfloat16 else torch.float32
    for part_name, part in networks:
        kept = {"vae": torch.float32, FlowMatching.denoiser_name: dtype}.get(part_name, text)
        place(part, device, kept).eval().requires_grad_(False)
    with building(unusable(f"{given}, which does not work as a whole and")):
        model: FlowMatching = family.build(parts, shown(name), digest)
        if name not in BUNDLED:
            try_once(
                model, given, hint=" with --mixed_precision fp16; bf16 holds larger ones" * (dtype is torch.float16)
            )
        model.digest = model_digest(model, [*parts.tokenizers.values()])
    model.index_settings = stated_settings(folder, given)
    if name in BUNDLED:
        model.native_resolution = model.vae.config.sample_size
    return model


def place(part: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a network, and keep its weights as ``dtype``. What it computed for itself, such as the frequencies of
    places, stays as exact as it is: ``from_pretrained`` does not round it either."""
    weights = part.state_dict().keys()
    own = {name: buffer for name, buffer in part.named_buffers() if name not in weights}
    part = nn.Module.to(part, device, dtype)
    for name, buffer in own.items():
        owner, _, leaf = name.rpartition(".")
        part.get_submodule(owner)._buffers[leaf] = buffer.to(device)
    return part


def conditioning(parts: Components, given: str) -> TextConditioning:
    """The text encoders with their tokenizers, which must fit together.

    Raises:
        CheckpointError: a tokenizer that makes ids or passages which its encoder cannot read.
    """
    for number, (encoder, tokenizer) in enumerate(zip(parts.text_encoders, parts.tokenizers, strict=True)):
        whose = f"{given}, whose tokenizer{'_2' if number else ''}/"
        ids = {*tokenizer.get_vocab().values(), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        if None in ids:
            raise CheckpointError(f"{whose} lacks the tokens for beginning, end or padding")
        if max(ids) >= encoder.config.vocab_size:
            raise CheckpointError(f"{whose} makes ids up to {max(ids)}, its encoder knows {encoder.config.vocab_size}")
        length, most = tokenizer.model_max_length, encoder.config.max_position_embeddings
        if length >= UNSTATED_LENGTH:
            tokenizer.model_max_length = most
        elif not isinstance(length, int) or length > most:
            raise CheckpointError(f"{whose} has model_max_length {length}; allowed: at most {most}, as its encoder")
    if len(parts.text_encoders) == 2:
        first, second = parts.text_encoders
        return SdxlText(first, second, (parts.tokenizers[0], parts.tokenizers[1]), parts.zeros_for_empty)
    return ClipText(parts.text_encoders[0], parts.tokenizers[0])


@torch.no_grad()
def try_once(model: LatentDiffusion, given: str, hint: str = "") -> None:
    """Every part once, on a grey image of the least size: what does not fit together is seen before anything is done.

    Raises:
        CheckpointError: an output of another size, or that is not finite.
        Exception: whatever the libraries raise.
    """
    side = model.least_side
    pixels = torch.zeros(1, 3, side * model.downsampling, side * model.downsampling)
    latents, _ = model.encode_images(pixels)
    told = model.encode_captions(["a"], pixels.shape[-1])
    last = torch.tensor([model.num_train_timesteps - 1], device=model.device)
    prediction = model.predict(latents, last, told)
    model.schedule("ddim", 2, side)
    for part, output, expected in (
        ("VAE's encoder", latents, (1, model.latent_channels, side, side)),
        ("denoiser", prediction, latents.shape),
        ("VAE's decoder", model.decode(latents), pixels.shape),
    ):
        if output.shape != expected:
            raise CheckpointError(f"{given}, whose {part} gives {list(output.shape)} in place of {list(expected)}")
        if not output.isfinite().all():
            raise CheckpointError(f"{given}, whose {part} gives numbers that are not finite{hint}")


@torch.no_grad()
def observed_prediction_type(model: LatentDiffusion) -> str:
    """ "epsilon" or "v_prediction", by what the denoiser predicts for noise at the last timestep.

    There z_T is almost all noise: sqrt(1 - abar_T) > 0.99. A denoiser that predicts noise gives it back (correlation
    near 1); with v-prediction it predicts about -z0, which hardly correlates with the noise.
    """
    noise = torch.randn((1, model.latent_channels, 32, 32), generator=torch.Generator().manual_seed(0))
    last = torch.tensor([model.num_train_timesteps - 1], device=model.device)
    prediction = model.predict(noise.to(model.device), last, model.text.empty(1, model.resolution)).cpu()
    correlation = torch.corrcoef(torch.stack([noise.flatten(), prediction.flatten()]))[0, 1]
    return "epsilon" if correlation > 0.5 else "v_prediction"
