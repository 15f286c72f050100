"""Qwen-Image (Alibaba, 2025): latents of a video VAE, one frame, normalised channel by channel; a vision-language model
for captions; classifier-free guidance whose length is that of the prediction with the caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from smplora.models.diffusion import ATTENTION
from smplora.models.families.language import MASK, LanguageText
from smplora.models.families.packing import packed, unpacked
from smplora.models.families.parts import Parts, read_parts
from smplora.models.flow import FlowMatching
from smplora.models.text import TOKENS

NAME, TITLE, TAG = "qwen_image", "Qwen-Image", "qwen-image"
PIPELINES = ("QwenImagePipeline",)
KNOWN = "encoder_hidden_states_mask"
WORDS = "encoder_hidden_states"
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
BEFORE = 34  # tokens of the template before the caption, which are left out
JOINT = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class QwenImageText(LanguageText):
    """The last hidden states of Qwen2.5-VL, without those of the template's beginning."""

    longest: ClassVar[int] = BEFORE + 512  # the second as the training script has it

    def written(self, captions: Sequence[str]) -> list[str]:
        """Each caption in a template that asks for its details."""
        return [TEMPLATE.format(caption) for caption in captions]

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"encoder_hidden_states": [b, 512, d], "encoder_hidden_states_mask": [b, 512]}; what is no caption's is 0."""
        seen = self.encoder(input_ids=tokens[TOKENS], attention_mask=tokens[MASK], output_hidden_states=True)
        known = tokens[MASK][:, BEFORE:]
        return {WORDS: seen.hidden_states[-1][:, BEFORE:].float() * known[..., None], KNOWN: known}


@dataclass
class QwenImage(FlowMatching):
    """See FlowMatching."""

    pipeline: ClassVar[str] = PIPELINES[0]
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": JOINT,
        "all": (*JOINT, *(f"{side}_mlp.net.{layer}" for side in ("img", "txt") for layer in ("0.proj", "2"))),
    }

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    @property
    def downsampling(self) -> int:
        """See LatentDiffusion."""
        return int(2 ** len(self.vae.config.temperal_downsample))

    @property
    def latent_channels(self) -> int:
        """See LatentDiffusion."""
        return int(self.vae.config.z_dim)

    def _normal(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel: [c, 1, 1]."""
        mean, std = (
            torch.tensor(self.vae.config[name], device=self.device) for name in ("latents_mean", "latents_std")
        )
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See LatentDiffusion: z0 = (E(x) - mean) / std of each channel."""
        posterior = self.vae.encode(pixels.to(self.device, self.vae.dtype).unsqueeze(2)).latent_dist
        mean, std = self._normal()
        return (posterior.mean.float().squeeze(2) - mean) / std, posterior.std.float().squeeze(2) / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See LatentDiffusion."""
        mean, std = self._normal()
        rows = (latents.to(self.device) * std + mean).to(self.vae.dtype).unsqueeze(2)
        decoded = torch.cat([self.vae.decode(part).sample[:, :, 0] for part in rows.split(8)])
        return (decoded / 2 + 0.5).clamp(0, 1).float().cpu()

    def guided(self, without: Tensor, with_caption: Tensor, scale: float) -> Tensor:
        """See LatentDiffusion; then each place has the length of the prediction with the caption."""
        height, width = (edge // self.patch for edge in without.shape[-2:])
        together = packed(super().guided(without, with_caption, scale))
        length = packed(with_caption).norm(dim=-1, keepdim=True)
        return unpacked(together * (length / together.norm(dim=-1, keepdim=True)), height, width)

    def velocity(self, noised: Tensor, sigmas: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """See FlowMatching."""
        told = self.text.embed(conditioning) if TOKENS in conditioning else conditioning
        dtype = self.dtype
        height, width = (edge // self.patch for edge in noised.shape[-2:])
        given = self.denoiser(
            hidden_states=packed(noised).to(dtype),
            timestep=sigmas,
            encoder_hidden_states=told[WORDS].to(dtype),
            encoder_hidden_states_mask=told[KNOWN],
            img_shapes=[[(1, height, width)]] * len(noised),
            return_dict=False,
        )[0]
        return unpacked(given, height, width)


def read(folder: Path, given: str, variant: str | None, file: str | None = None) -> Parts:
    """The parts of a folder; see ``read_parts``."""
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    networks = {
        "vae": AutoencoderKLQwenImage,
        "transformer": QwenImageTransformer2DModel,
        "text_encoder": Qwen2_5_VLForConditionalGeneration,
    }
    return read_parts(folder, given, variant, networks, {"tokenizer": Qwen2Tokenizer}, file)


def build(parts: Parts, name: str, weights_digest: str) -> QwenImage:
    """The model of these parts."""
    text = QwenImageText(parts.networks["text_encoder"], parts.tokenizers["tokenizer"])
    networks = parts.networks
    return QwenImage(networks["vae"], text, networks["transformer"], parts.scheduler, name, "", weights_digest)
