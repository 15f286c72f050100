"""What diffusers' pipelines and training scripts compute, by family, in their own words: slow twins for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Seeds = Sequence[int]
SCALE = 2.0  # classifier-free guidance, as smplora counts it


def shifted(pipeline: Any, pixels: Tensor) -> Tensor:
    """Latents of FLUX.1, Stable Diffusion 3 and Z-Image."""
    vae = pipeline.vae.config
    latents: Tensor = (pipeline.vae.encode(pixels).latent_dist.mode() - vae.shift_factor) * vae.scaling_factor
    return latents


def qwen_image_latents(pipeline: Any, pixels: Tensor) -> Tensor:
    """Of one frame."""
    vae = pipeline.vae.config
    mean, std = (torch.tensor(numbers).view(1, -1, 1, 1, 1) for numbers in (vae.latents_mean, vae.latents_std))
    latents: Tensor = ((pipeline.vae.encode(pixels.unsqueeze(2)).latent_dist.mode() - mean) * (1.0 / std)).squeeze(2)
    return latents


@dataclass(frozen=True)
class Twin:
    """Of one family, given a stock pipeline."""

    embeddings: Callable[[Any, list[str]], dict[str, Any]]  # by the names of our conditioning; lists without padding
    losses: Callable[[Any, list[str], Tensor, Tensor, Tensor], Tensor]  # captions, latents, noise, indices
    images: Callable[..., Tensor]  # captions, seeds, size, steps
    latents: Callable[[Any, Tensor], Tensor] = shifted
    scale: float = SCALE  # of images; 1 where the pipeline never asks without the caption


def noised(pipeline: Any, latents: Tensor, noise: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """z_t and the timesteps, as all scripts have them."""
    sigmas = pipeline.scheduler.sigmas[indices].view(-1, 1, 1, 1)
    return (1.0 - sigmas) * latents + sigmas * noise, pipeline.scheduler.timesteps[indices]


def loss(prediction: Tensor, latents: Tensor, noise: Tensor) -> Tensor:
    """Of each sample, without weighting."""
    return (prediction.float() - (noise - latents).float()).square().flatten(1).mean(1)


def drawing(seeds: Seeds, size: int, steps: int) -> dict[str, Any]:
    """Options of every pipeline."""
    return {
        "height": size,
        "width": size,
        "num_inference_steps": steps,
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        "output_type": "pt",
    }


def z_image_embeddings(pipeline: Any, captions: list[str]) -> dict[str, Any]:
    return {"prompt_embeds": pipeline.encode_prompt(list(captions), do_classifier_free_guidance=False)[0]}


def z_image_losses(pipeline: Any, captions: list[str], latents: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
    """train_dreambooth_lora_z_image.py."""
    noisy, timesteps = noised(pipeline, latents, noise, indices)
    embedded, _ = pipeline.encode_prompt(list(captions))
    rows = list(noisy.unsqueeze(2).unbind(0))
    given = pipeline.transformer(rows, (1000 - timesteps) / 1000, embedded, return_dict=False)[0]
    return loss(-torch.stack(given).squeeze(2), latents, noise)


def z_image_images(pipeline: Any, captions: list[str], seeds: Seeds, size: int, steps: int) -> Tensor:
    """Its guidance scale adds to the prediction with the caption: 1 less than ours."""
    images: Tensor = pipeline(list(captions), guidance_scale=SCALE - 1, **drawing(seeds, size, steps)).images
    return images


def flux_embeddings(pipeline: Any, captions: list[str]) -> dict[str, Any]:
    words, pooled, _ = pipeline.encode_prompt(list(captions))
    return {"encoder_hidden_states": words, "pooled_projections": pooled}


def flux_losses(pipeline: Any, captions: list[str], latents: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
    """train_dreambooth_lora_flux.py."""
    words, pooled, text_ids = pipeline.encode_prompt(list(captions))
    told = {"guidance": torch.tensor([3.5]).expand(len(latents)), "pooled_projections": pooled}
    return packed_losses(pipeline, latents, noise, indices, encoder_hidden_states=words, txt_ids=text_ids, **told)


def packed_losses(pipeline: Any, latents: Tensor, noise: Tensor, indices: Tensor, **told: Tensor) -> Tensor:
    noisy, timesteps = noised(pipeline, latents, noise, indices)
    b, c, h, w = latents.shape
    kind = type(pipeline)
    given = pipeline.transformer(
        hidden_states=kind._pack_latents(noisy, b, c, h, w),
        timestep=timesteps / 1000,
        img_ids=kind._prepare_latent_image_ids(b, h // 2, w // 2, "cpu", torch.float32),
        return_dict=False,
        **told,
    )[0]
    factor = pipeline.vae_scale_factor
    prediction = kind._unpack_latents(given, height=h * factor, width=w * factor, vae_scale_factor=factor)
    return loss(prediction, latents, noise)


def flux_images(pipeline: Any, captions: list[str], seeds: Seeds, size: int, steps: int) -> Tensor:
    """With the empty caption against the caption, which people rarely do with distilled models."""
    silence = [""] * len(captions)
    images: Tensor = pipeline(
        list(captions), negative_prompt=silence, true_cfg_scale=SCALE, **drawing(seeds, size, steps)
    ).images
    return images


def chroma_embeddings(pipeline: Any, captions: list[str]) -> dict[str, Any]:
    words, _, attended, *_ = pipeline.encode_prompt(list(captions), do_classifier_free_guidance=False)
    return {"encoder_hidden_states": words, "attended": attended}


def chroma_losses(pipeline: Any, captions: list[str], latents: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
    """FLUX.1's script with the pipeline's call; diffusers has no script for it."""
    words, text_ids, attended, *_ = pipeline.encode_prompt(list(captions), do_classifier_free_guidance=False)
    b, _, h, w = latents.shape
    mask = pipeline._prepare_attention_mask(b, h * w // 4, words.dtype, attended)
    told = {"encoder_hidden_states": words, "txt_ids": text_ids, "attention_mask": mask}
    return packed_losses(pipeline, latents, noise, indices, **told)


def chroma_images(pipeline: Any, captions: list[str], seeds: Seeds, size: int, steps: int) -> Tensor:
    silence = [""] * len(captions)
    images: Tensor = pipeline(
        list(captions), negative_prompt=silence, guidance_scale=SCALE, **drawing(seeds, size, steps)
    ).images
    return images


def sd3_embeddings(pipeline: Any, captions: list[str]) -> dict[str, Any]:
    words, _, pooled, _ = pipeline.encode_prompt(list(captions), None, None)
    return {"encoder_hidden_states": words, "pooled_projections": pooled}


def sd3_losses(pipeline: Any, captions: list[str], latents: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
    """train_dreambooth_lora_sd3.py, with its preconditioning."""
    noisy, timesteps = noised(pipeline, latents, noise, indices)
    words, _, pooled, _ = pipeline.encode_prompt(list(captions), None, None)
    given = pipeline.transformer(
        hidden_states=noisy, timestep=timesteps, encoder_hidden_states=words, pooled_projections=pooled,
        return_dict=False,
    )[0]  # fmt: skip
    clean = given * -pipeline.scheduler.sigmas[indices].view(-1, 1, 1, 1) + noisy
    return (clean.float() - latents.float()).square().flatten(1).mean(1)


def sd3_images(pipeline: Any, captions: list[str], seeds: Seeds, size: int, steps: int) -> Tensor:
    images: Tensor = pipeline(list(captions), guidance_scale=SCALE, **drawing(seeds, size, steps)).images
    return images


def qwen_image_embeddings(pipeline: Any, captions: list[str]) -> dict[str, Any]:
    """One by one: alone a caption needs no filling up."""
    return {"encoder_hidden_states": [pipeline.encode_prompt([caption])[0][0] for caption in captions]}


def qwen_image_losses(pipeline: Any, captions: list[str], latents: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
    """train_dreambooth_lora_qwen_image.py."""
    noisy, timesteps = noised(pipeline, latents, noise, indices)
    words, mask = pipeline.encode_prompt(list(captions))
    b, c, h, w = latents.shape
    kind, factor = type(pipeline), pipeline.vae_scale_factor
    given = pipeline.transformer(
        hidden_states=kind._pack_latents(noisy, b, c, h, w),
        encoder_hidden_states=words,
        encoder_hidden_states_mask=mask,
        timestep=timesteps / 1000,
        img_shapes=[(1, h // 2, w // 2)] * b,
        return_dict=False,
    )[0]
    return loss(kind._unpack_latents(given, h * factor, w * factor, factor).squeeze(2), latents, noise)


def qwen_image_images(pipeline: Any, captions: list[str], seeds: Seeds, size: int, steps: int) -> Tensor:
    images: Tensor = pipeline(
        list(captions), negative_prompt=[""] * len(captions), true_cfg_scale=SCALE, **drawing(seeds, size, steps)
    ).images
    return images


def flux2_embeddings(pipeline: Any, captions: list[str]) -> dict[str, Any]:
    return {"encoder_hidden_states": pipeline.encode_prompt(list(captions))[0]}


def flux2_latents(pipeline: Any, pixels: Tensor) -> Tensor:
    latents: Tensor = pipeline._encode_vae_image(pixels, None)
    return latents


def flux2_losses(pipeline: Any, captions: list[str], latents: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
    """train_dreambooth_lora_flux2_klein.py, and train_dreambooth_lora_flux2.py with its guidance."""
    guided = torch.full([1], 3.5).expand(len(latents)) if pipeline.transformer.config.guidance_embeds else None
    noisy, timesteps = noised(pipeline, latents, noise, indices)
    words, text_ids = pipeline.encode_prompt(list(captions))
    places = pipeline._prepare_latent_ids(latents)
    given = pipeline.transformer(
        hidden_states=pipeline._pack_latents(noisy), timestep=timesteps / 1000, guidance=guided,
        encoder_hidden_states=words, txt_ids=text_ids, img_ids=places, return_dict=False,
    )[0]  # fmt: skip
    return loss(pipeline._unpack_latents_with_ids(given, places), latents, noise)


def flux2_images(pipeline: Any, captions: list[str], seeds: Seeds, size: int, steps: int) -> Tensor:
    images: Tensor = pipeline(prompt=list(captions), guidance_scale=SCALE, **drawing(seeds, size, steps)).images
    return images


def flux2_dev_images(pipeline: Any, captions: list[str], seeds: Seeds, size: int, steps: int) -> Tensor:
    images: Tensor = pipeline(prompt=list(captions), guidance_scale=3.5, **drawing(seeds, size, steps)).images
    return images


TWINS = {
    "flux2_dev": Twin(flux2_embeddings, flux2_losses, flux2_dev_images, flux2_latents, scale=1.0),
    "flux2": Twin(flux2_embeddings, flux2_losses, flux2_images, flux2_latents),
    "qwen_image": Twin(qwen_image_embeddings, qwen_image_losses, qwen_image_images, qwen_image_latents),
    "sd3": Twin(sd3_embeddings, sd3_losses, sd3_images),
    "z_image": Twin(z_image_embeddings, z_image_losses, z_image_images),
    "chroma": Twin(chroma_embeddings, chroma_losses, chroma_images),
    "flux": Twin(flux_embeddings, flux_losses, flux_images),
}
