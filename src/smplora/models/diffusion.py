"""The one contract between models and algorithms: encode, noise, predict, error maps, generate.

Here for U-Nets; flow.py and families/ have it for transformers that are trained by flow matching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from smplora.models.batch import Batch, Draw
from smplora.models.text import TOKENS, SdxlText, TextConditioning


def error_map(prediction: Tensor, target: Tensor) -> Tensor:
    """Element-wise squared error e(x, y; t, eps) in fp32, [b, c, h, w] -> [b, c, h, w]."""
    return (prediction.float() - target.float()).square()


def adaptation_loss(error_maps: Tensor) -> Tensor:
    """l_ada of each sample: the mean of its error map (Eq. 1-2; the code of the paper takes the mean where the text
    writes the squared norm). [b, c, h, w] -> [b]."""
    return error_maps.flatten(1).mean(1)


def min_snr_weights(alphas_cumprod: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR-gamma weights of the adaptation loss (Hang et al. 2023, section 3.4), [b] -> [b].

    SNR = abar / (1 - abar); min(SNR, gamma) / SNR for epsilon prediction, min(SNR, gamma) / (SNR + 1) for v-prediction.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / (snr + 1 if prediction_type == "v_prediction" else snr)


def family_of(text: TextConditioning, denoiser: nn.Module, prediction_type: str) -> str:
    """kohya's name of the model family: "sd_v1", "sd_v2", "sd_v2_v" (v-prediction) or "sdxl_base_v1-0"."""
    if isinstance(text, SdxlText):
        return "sdxl_base_v1-0"
    config: Any = denoiser.config
    second = config.cross_attention_dim == 1024 or prediction_type == "v_prediction"
    return "sd_v1" if not second else "sd_v2_v" if prediction_type == "v_prediction" else "sd_v2"


def latent_scale(vae: Any) -> tuple[float, float]:
    """(shift, scale) of z0 = (E(x) - shift) * scale: Stable Diffusion 1.x, 2.x and SDXL have no shift."""
    return getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TARGETS = {  # endings of the names of a U-Net's layers, by --lora_targets
    "attention": ATTENTION,
    "all": (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
}
SAMPLERS = {"ddim": "DDIMScheduler", "dpmsolver++": "DPMSolverMultistepScheduler", "euler": "EulerDiscreteScheduler"}
ADDED = ("text_embeds", "time_ids")  # of SDXL's U-Net, passed apart


@dataclass
class LatentDiffusion:
    """A latent diffusion model: VAE, text encoders, denoiser, noise schedule."""

    vae: Any
    text: TextConditioning
    denoiser: nn.Module
    scheduler: Any  # a diffusers scheduler with alphas_cumprod; its class also samples
    name: str  # shown to the user and written to results
    digest: str  # of all that decides its output (identity.py)
    weights_digest: str = ""  # of the weights alone: what runs of version 0.1 know
    text_is_trained: bool = False  # text encoders change: captions cannot be embedded once for all
    denoiser_name: ClassVar[str] = "unet"  # in diffusers' pipelines
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = TARGETS

    def __post_init__(self) -> None:
        self.alphas_cumprod: Tensor = self.scheduler.alphas_cumprod.to(self.device, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser's own weights are kept in, apart from those that are quantised or of an adapter."""
        weights = self.denoiser.named_parameters()
        return next(p.dtype for name, p in weights if p.is_floating_point() and ".lora_" not in name)

    @property
    def num_train_timesteps(self) -> int:
        """T; timesteps are integers in [0, T)."""
        return len(self.alphas_cumprod)

    @property
    def component_names(self) -> tuple[str, ...]:
        """Of the parts that can be adapted: the denoiser first."""
        return (self.denoiser_name, *self.text.encoders)

    def component(self, name: str) -> Any:
        """A component under its name in diffusers' pipelines: "unet" or "transformer", "text_encoder" .."""
        return self.denoiser if name == self.denoiser_name else self.text.encoders[name]

    def checkpoint_activations(self, active: bool, encoders: Sequence[str] = ()) -> None:
        """Compute the activations of the denoiser, and of the text encoders named, again in the backward pass, or keep
        them."""
        denoiser: Any = self.denoiser
        (denoiser.enable_gradient_checkpointing if active else denoiser.disable_gradient_checkpointing)()
        for name in encoders:
            part = self.component(name)
            word = "activation" if hasattr(part, "activation_checkpointing_enable") else "gradient"  # by version
            getattr(part, f"{word}_checkpointing_{'enable' if active else 'disable'}")()
            for module in part.modules():  # transformers looks whether the layer, alone, is in training mode
                if hasattr(module, "gradient_checkpointing"):
                    module.training = active

    @property
    def family(self) -> str:
        """See ``family_of``."""
        return family_of(self.text, self.denoiser, self.prediction_type)

    @property
    def pipeline(self) -> str:
        """diffusers' class that the parts make up."""
        return f"StableDiffusion{'XL' * (len(self.text.encoders) == 2)}Pipeline"

    @property
    def pipeline_settings(self) -> dict[str, Any]:
        """What model_index.json says beside the parts."""
        text: Any = self.text
        xl = len(text.encoders) == 2
        return (
            {"force_zeros_for_empty_prompt": text.zeros_for_empty, "add_watermarker": False}
            if xl
            else {"requires_safety_checker": False}
        )

    @property
    def resolution(self) -> int:
        """Native edge length in pixels."""
        config: Any = self.denoiser.config
        return int(config.sample_size * self.downsampling)

    @property
    def layers_per_block(self) -> int:
        """Of a U-Net, which names in original checkpoints depend on."""
        config: Any = self.denoiser.config
        return int(config.layers_per_block)

    @property
    def latent_channels(self) -> int:
        """Channels of latents."""
        return int(self.vae.config.latent_channels)

    @property
    def least_side(self) -> int:
        """Edge of the smallest latents that the denoiser takes."""
        config: Any = self.denoiser.config
        return int(2 ** (len(config.block_out_channels) - 1))

    @property
    def multiple(self) -> int:
        """What the edges of images are multiples of, in pixels."""
        return self.downsampling

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon", "v_prediction" or, of flow matching, "velocity"."""
        return str(self.scheduler.config.prediction_type)

    @property
    def downsampling(self) -> int:
        """Pixels per latent, in each direction."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled posterior of ``pixels`` [b, 3, H, W] in [-1, 1]: (mean, std), both [b, c, h, w] fp32.

        z0 = E(x) * s, s the VAE's scaling factor (paper, section 2); with a shift see ``latent_scale``.
        """
        posterior = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist
        shift, scale = latent_scale(self.vae)
        return (posterior.mean.float() - shift) * scale, posterior.std.float() * scale

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """The conditioning of each caption for images of ``resolution`` pixels, tensors [b, ...] by name: tau(y), or
        token ids where a text encoder is trained; ``predict`` takes both."""
        return self.text.tokens(captions, resolution) if self.text_is_trained else self.embedded(captions, resolution)

    def rest_text(self) -> None:
        """Let the text encoders wait in the host's memory; what is still to be embedded is embedded there."""
        for encoder in self.text.encoders.values():
            encoder.to("cpu")

    def embedded(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """tau(y), where the denoiser is, wherever the text encoders are; differentiable."""
        return self._here(self.text.embed(self.text.tokens(captions, resolution)))

    def unconditional(self, count: int, resolution: int) -> dict[str, Tensor]:
        """``TextConditioning.empty``, where the denoiser is."""
        return self._here(self.text.empty(count, resolution))

    def _here(self, told: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in told.items()}

    def add_noise(self, latents: Tensor, draw: Draw) -> Tensor:
        """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps. [b, c, h, w] -> [b, c, h, w]."""
        abar = self.alphas_cumprod[draw.timesteps].view(-1, 1, 1, 1)
        return abar.sqrt() * latents + (1 - abar).sqrt() * draw.noise

    def target(self, latents: Tensor, draw: Draw) -> Tensor:
        """What the denoiser should predict: eps, or v = sqrt(abar) eps - sqrt(1 - abar) z0 for v-prediction."""
        if self.prediction_type == "v_prediction":
            abar = self.alphas_cumprod[draw.timesteps].view(-1, 1, 1, 1)
            return abar.sqrt() * draw.noise - (1 - abar).sqrt() * latents
        return draw.noise

    def predicted_noise(self, prediction: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """eps of a prediction: itself, or sqrt(abar) v + sqrt(1 - abar) z_t for v-prediction. [b, c, h, w]."""
        if self.prediction_type == "v_prediction":
            abar = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
            return abar.sqrt() * prediction + (1 - abar).sqrt() * noised
        return prediction

    def level_scale(self, timesteps: Tensor) -> Tensor:
        """What a variance-preserving z_t, sqrt(abar_t) z0 + sqrt(1 - abar_t) eps, is multiplied by to be what the
        denoiser takes; [b] -> [b, 1, 1, 1]: 1."""
        return torch.ones(len(timesteps), 1, 1, 1, device=timesteps.device)

    @property
    def timesteps_of(self) -> Callable[[Tensor], Tensor] | None:
        """Training's timesteps of uniform numbers [b] in [0, 1); None: all are equally likely."""
        return None

    def loss_weights(self, timesteps: Tensor, gamma: float | None) -> Tensor | float:
        """Weights [b] of the adaptation loss: min-SNR-gamma, or 1 without a gamma."""
        if gamma is None:
            return 1.0
        return min_snr_weights(self.alphas_cumprod[timesteps], gamma, self.prediction_type)

    def latents(self, batch: Batch, draw: Draw) -> Tensor:
        """z0, a sample of the VAE's posterior or its mode: [b, c, h, w]."""
        return batch.mean if draw.posterior is None else batch.mean + batch.std * draw.posterior

    def error_maps(self, batch: Batch, draw: Draw, target: Tensor | None = None) -> Tensor:
        """e(x, y; t, eps) = (target - f(z_t, t, tau(y)))^2, the summands of the paper's Eq. 1 -> [b, c, h, w] fp32.

        Args:
            target: [b, c, h, w], what to predict in place of the truth.
        """
        latents = self.latents(batch, draw)
        prediction = self.predict(self.add_noise(latents, draw), draw.timesteps, batch.conditioning)
        return error_map(prediction, self.target(latents, draw) if target is None else target)

    def predict(self, noised: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """f(z_t, t, tau(y)): [b, c, h, w], [b] -> [b, c, h, w]."""
        conditioning = self.text.embed(conditioning) if TOKENS in conditioning else conditioning
        added = {name: conditioning[name] for name in ADDED if name in conditioning}
        others = {name: value for name, value in conditioning.items() if name not in ADDED}
        extra = {"added_cond_kwargs": added} if added else {}
        return cast(Tensor, self.denoiser(noised, timesteps, **others, **extra).sample)

    def denoise(self, noised: Tensor, times: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """``predict`` at the times of a sampler, which are timesteps: [b, c, h, w], [b] -> [b, c, h, w]."""
        return self.predict(noised, times, conditioning)

    def sampler(self, name: str = "ddim") -> Any:
        """diffusers' scheduler of ``SAMPLERS`` with the model's own schedule."""
        import diffusers

        stated = self.scheduler.config
        kind = getattr(diffusers, SAMPLERS[name])
        if name != "ddim":  # what the model's own sampler does at random is not taken over
            return kind.from_config(stated, **({"algorithm_type": name} if name == "dpmsolver++" else {}))
        return kind.from_config(
            stated,  # maybe another scheduler's: what DDIM would assume of what it lacks is wrong for latents
            clip_sample=False,
            set_alpha_to_one=stated.get("set_alpha_to_one", False),
        )

    def guided(self, without: Tensor, with_caption: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance of two predictions [b, c, h, w] (Ho and Salimans 2022); 1: that with the caption."""
        return without + scale * (with_caption - without)

    def noisiest(self, num_inference_steps: int) -> int:
        """The timestep that drawing begins at."""
        schedule = self.sampler()
        schedule.set_timesteps(num_inference_steps)
        return int(schedule.timesteps[0])

    def schedule(self, sampler: str, num_inference_steps: int, size: int) -> Any:
        """A sampler that is set to so many steps, for latents of this edge."""
        schedule = self.sampler(sampler)
        schedule.set_timesteps(num_inference_steps, device=self.device)
        return schedule

    @torch.no_grad()
    def generate(
        self,
        captions: Sequence[str],
        seeds: Sequence[int],
        *,
        resolution: int,
        num_inference_steps: int,
        guidance_scale: float,
        sampler: str = "ddim",
    ) -> Tensor:
        """One image per caption, each from its own seed: [b, 3, resolution, resolution] in [0, 1] on the CPU.

        ``sampler`` is one of ``SAMPLERS``, all deterministic, with the model's own schedule; classifier-free guidance
        against the empty caption when ``guidance_scale`` is not 1.
        """
        conditioning = self.embedded(captions, resolution)
        empty = self.unconditional(1, resolution) if guidance_scale != 1 else None
        return self.decode(
            self.sample(
                conditioning,
                empty,
                seeds,
                resolution=resolution,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
            )
        )

    @torch.no_grad()
    def sample(
        self,
        conditioning: Mapping[str, Tensor],
        empty: Mapping[str, Tensor] | None,
        seeds: Sequence[int],
        *,
        resolution: int,
        num_inference_steps: int,
        guidance_scale: float = 1.0,
        sampler: str = "ddim",
        predict: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor] | None = None,
    ) -> Tensor:
        """Latents [b, c, h, w] of one image per row of ``conditioning``, each from its own seed; see ``generate``.

        Args:
            conditioning: embedded captions, tensors [b, ...].
            empty: the embedded empty caption, tensors [1, ...], for classifier-free guidance; None: no guidance.
            predict: in place of ``denoise``.
        """
        predict = predict or self.denoise
        channels, size = self.latent_channels, resolution // self.downsampling
        schedule = self.schedule(sampler, num_inference_steps, size)
        rows = [torch.randn((channels, size, size), generator=torch.Generator().manual_seed(s)) for s in seeds]
        latents = torch.stack(rows).to(self.device) * getattr(schedule, "init_noise_sigma", 1.0)
        if empty is not None:
            conditioning = {
                name: torch.cat([empty[name].expand(value.shape), value]) for name, value in conditioning.items()
            }
        for t in schedule.timesteps:
            inputs = torch.cat([latents, latents]) if empty is not None else latents
            scaled = schedule.scale_model_input(inputs, t) if hasattr(schedule, "scale_model_input") else inputs
            prediction = predict(scaled, t.expand(len(inputs)), conditioning).float()
            if empty is not None:
                without, with_caption = prediction.chunk(2)
                prediction = self.guided(without, with_caption, guidance_scale)
            latents = schedule.step(prediction, t, latents).prev_sample
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents [b, c, h, w] -> images [b, 3, H, W] in [0, 1] on the CPU."""
        shift, scale = latent_scale(self.vae)
        latents = (latents.to(self.device) / scale + shift).to(self.vae.dtype)
        decoded = torch.cat([self.vae.decode(part).sample for part in latents.split(8)])
        return (decoded.float() / 2 + 0.5).clamp(0, 1).cpu()
