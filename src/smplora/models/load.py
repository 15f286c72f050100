"""Load base models: a diffusers folder, a cached hub id, one .safetensors file, or the bundled tiny model."""

from __future__ import annotations

from pathlib import Path

import torch

from smplora.core.errors import CheckpointError
from smplora.core.files import BUNDLED_FOLDER, BUNDLED_MODEL
from smplora.models.diffusers_format import quiet, read_folder_model
from smplora.models.diffusion import LatentDiffusion
from smplora.models.identity import check_numbers, model_digest, weights_digest
from smplora.models.single_file import BASE_SAMPLE_SIZE, is_single_file, read_single_file
from smplora.models.text import ClipText, SdxlText, TextConditioning

PREDICTION_TYPES = ("epsilon", "v_prediction")


def load_model(
    name: str,
    device: torch.device,
    *,
    config: str | None = None,
    prediction_type: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
) -> LatentDiffusion:
    """The frozen base model in fp32, evaluation mode.

    Args:
        name: "tiny", a folder in diffusers format, a model id in the local hub cache or one .safetensors file; nothing
            is downloaded.
        config: for a single file, a folder in diffusers format with its configuration. None: the family's standard.
        prediction_type: what the denoiser predicts, if the model does not say or says it wrongly.
        variant: suffix of a folder's weight files, such as "fp16".
        revision: of a model id.

    Raises:
        CheckpointError: no such model, or a component cannot be read.
    """
    bundled = name == BUNDLED_MODEL
    try:
        with quiet():
            if is_single_file(name):
                parts = read_single_file(name, config)
            else:
                parts = read_folder_model(str(BUNDLED_FOLDER) if bundled else name, variant, revision)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        if config and is_single_file(name):
            raise CheckpointError(
                f"--model_config got '{config}', which is not a folder in diffusers format ({reason})"
            ) from error
        raise CheckpointError(
            f"--pretrained_model_name_or_path got '{name}', which is neither 'tiny', nor a folder in diffusers format "
            "(model_index.json, vae/, unet/, text_encoder/, tokenizer/, scheduler/), nor a cached model id "
            f"(--allow_download fetches one), nor a .safetensors file ({reason})"
        ) from error
    kind = prediction_type or parts.scheduler.config.prediction_type
    if kind not in PREDICTION_TYPES:
        raise CheckpointError(
            f"'{name}' predicts '{kind}'; smplora knows {' and '.join(PREDICTION_TYPES)} (--prediction_type overrules)"
        )
    parts.scheduler.register_to_config(prediction_type=kind)
    for _, part in parts.models:
        with quiet():
            part.to(device).float().eval().requires_grad_(False)
    text: TextConditioning
    if len(parts.text_encoders) == 2:
        first, second = parts.text_encoders
        text = SdxlText(first, second, (parts.tokenizers[0], parts.tokenizers[1]), parts.zeros_for_empty)
    else:
        text = ClipText(parts.text_encoders[0], parts.tokenizers[0])
    shown = "the bundled model" if bundled else Path(name).name
    model = LatentDiffusion(parts.vae, text, parts.unet, parts.scheduler, shown, "", weights_digest(parts.models))
    check_numbers(model, name)
    if prediction_type is None and not parts.states_prediction:
        parts.scheduler.register_to_config(prediction_type=observed_prediction_type(model))
    if config is None and model.family == "sd_v2" and is_single_file(name):
        parts.unet.register_to_config(sample_size=BASE_SAMPLE_SIZE)
    model.digest = model_digest(model, parts.tokenizers, parts.zeros_for_empty)
    return model


@torch.no_grad()
def observed_prediction_type(model: LatentDiffusion) -> str:
    """ "epsilon" or "v_prediction", by what the denoiser predicts for noise at the last timestep.

    There z_T is almost all noise: sqrt(1 - abar_T) > 0.99. A denoiser that predicts noise gives it back (correlation
    near 1); with v-prediction it predicts about -z0, which hardly correlates with the noise.
    """
    noise = torch.randn((1, model.vae.config.latent_channels, 32, 32), generator=torch.Generator().manual_seed(0))
    last = torch.tensor([model.num_train_timesteps - 1], device=model.device)
    prediction = model.predict(noise.to(model.device), last, model.text.empty(1, model.resolution)).cpu()
    correlation = torch.corrcoef(torch.stack([noise.flatten(), prediction.flatten()]))[0, 1]
    return "epsilon" if correlation > 0.5 else "v_prediction"
