"""Memory of training a LoRA on the true configurations of flow-matching models, computed on tensors without values.

    python benchmarks/flow_memory.py [--models 'FLUX.1 dev' ..] [--resolutions 512 1024]

One image, rank 16 on all targets, --mixed_precision bf16: what the transformer's weights take, what a step takes
beside them with and without gradient checkpointing (training/memory.py), and what the text encoders take, which rest
in the host's memory once captions are embedded.
"4bit": with --quantize 4bit, where linear layers are kept in NF4.
No optimizer (two moments of the adapter alone) and no VAE (0.2 to 0.5 GB). Configurations are those of the files on the
hub; "layers" counts what a LoRA is added to. Results: benchmarks/results/flow_memory.json.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

from common import command, parser, write_result
from smplora.adapters.lora import LoRAAdaptation
from smplora.models.batch import Batch
from smplora.models.families import flux, flux2, qwen_image, sd3, z_image
from smplora.models.flow import FlowMatching
from smplora.training.memory import step_bytes

RANK = 16
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)  # of a weight: itself, a scale for 64, and a scale of 256 scales
Sizes = dict[str, tuple[int, ...]]


def t5() -> Any:
    """T5-XXL's encoder."""
    return transformers.T5EncoderModel(
        transformers.T5Config(
            d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
        )
    )


def clip(width: int, layers: int, heads: int) -> Any:
    """CLIP's text encoder."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    return transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(**sizes, num_attention_heads=heads, projection_dim=width)
    )


def qwen3(width: int, inner: int, tied: bool) -> Any:
    """Qwen3 of 36 layers, with its output layer, which is the embedding where they are tied."""
    return transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=151936, hidden_size=width, intermediate_size=inner, num_hidden_layers=36,
            num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=tied,
        )
    )  # fmt: skip


def qwen_vl() -> Any:
    """Qwen2.5-VL-7B with its eyes, which are loaded too."""
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(
            text_config={
                "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                "num_attention_heads": 28, "num_key_value_heads": 4,
            },
            vision_config={"hidden_size": 1280, "out_hidden_size": 3584, "depth": 32, "intermediate_size": 3420},
        )
    )  # fmt: skip


class Kind(NamedTuple):
    """A published model."""

    family: type[FlowMatching]
    transformer: str
    config: dict[str, Any]
    told: Sizes
    encoders: Callable[[], list[Any]]
    channels: int = 16
    pixels: int = 8  # per latent


def sd35(heads: int, **more: Any) -> dict[str, Any]:
    """Of Stable Diffusion 3.5."""
    return {"num_layers": heads, "num_attention_heads": heads, "caption_projection_dim": 64 * heads,
            "qk_norm": "rms_norm", **more}  # fmt: skip


def klein(layers: int, single: int, heads: int, told: int) -> dict[str, Any]:
    """Of FLUX.2 klein."""
    return {"num_layers": layers, "num_single_layers": single, "num_attention_heads": heads,
            "joint_attention_dim": told, "guidance_embeds": False}  # fmt: skip


SD3_TOLD: Sizes = {"encoder_hidden_states": (333, 4096), "pooled_projections": (2048,)}
SD3_TEXT: Callable[[], list[Any]] = lambda: [clip(768, 12, 12), clip(1280, 32, 20), t5()]  # noqa: E731
KINDS = {
    "SD 3.5 medium": Kind(
        sd3.StableDiffusion3, "SD3Transformer2DModel",
        sd35(24, pos_embed_max_size=384, dual_attention_layers=tuple(range(13))), SD3_TOLD, SD3_TEXT,
    ),
    "SD 3.5 large": Kind(
        sd3.StableDiffusion3, "SD3Transformer2DModel", sd35(38, pos_embed_max_size=192), SD3_TOLD, SD3_TEXT
    ),
    "FLUX.1 dev": Kind(
        flux.Flux, "FluxTransformer2DModel", {"guidance_embeds": True},
        {"encoder_hidden_states": (512, 4096), "pooled_projections": (768,)}, lambda: [clip(768, 12, 12), t5()],
    ),
    "FLUX.2 klein 4B": Kind(
        flux2.Flux2Klein, "Flux2Transformer2DModel", klein(5, 20, 24, 7680), {flux2.WORDS: (512, 7680)},
        lambda: [qwen3(2560, 9728, True)], 128, 16,
    ),
    "FLUX.2 klein 9B": Kind(
        flux2.Flux2Klein, "Flux2Transformer2DModel", klein(8, 24, 32, 12288), {flux2.WORDS: (512, 12288)},
        lambda: [qwen3(4096, 12288, False)], 128, 16,
    ),
    "Qwen-Image": Kind(
        qwen_image.QwenImage, "QwenImageTransformer2DModel", {},
        {qwen_image.WORDS: (512, 3584), qwen_image.KNOWN: (512,)}, lambda: [qwen_vl()],
    ),
    "Z-Image": Kind(
        z_image.ZImage, "ZImageTransformer2DModel", {},
        {z_image.EMBEDDED: (512, 2560), z_image.KNOWN: (512,)}, lambda: [qwen3(2560, 9728, True)],
    ),
}  # fmt: skip


def numbers(parts: list[Any]) -> int:
    """Weights of all parts; shared ones count once."""
    return sum(p.numel() for part in parts for p in part.parameters())


def without_values(network: torch.nn.Module) -> None:
    """Tensors of the CPU in place of those of the meta device, which computes in no precision of its own; inside a
    FakeTensorMode they have no values either."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_meta:
                    empty: Any = torch.empty(tensor.shape, dtype=tensor.dtype)
                    learned = isinstance(tensor, torch.nn.Parameter)
                    tensors[name] = torch.nn.Parameter(empty, tensor.requires_grad) if learned else empty


def measured(kind: Kind, resolutions: list[int]) -> dict[str, Any]:
    """Of one model, in 10^9 bytes."""
    with torch.device("meta"):
        encoders = numbers(kind.encoders())
        denoiser = getattr(diffusers, kind.transformer)(**kind.config).requires_grad_(False)
    denoiser = torch.nn.Module.to(denoiser, torch.bfloat16)
    model: Any = kind.family(None, None, denoiser, diffusers.FlowMatchEulerDiscreteScheduler(), "model", "")
    LoRAAdaptation(rank=RANK, lora_alpha=RANK, lora_targets="all").attach(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        without_values(denoiser)
        model.__post_init__()
        parameters = [p for p in denoiser.parameters() if p.requires_grad]
        steps = {}
        for size in resolutions:
            latents = torch.zeros(1, kind.channels, size // kind.pixels, size // kind.pixels)
            told = {name: torch.ones(1, *shape, dtype=torch.bool if "mask" in name else torch.float32)
                    for name, shape in kind.told.items()}  # fmt: skip
            batch, autocast = Batch(latents, latents, told, ("image",)), torch.autocast("cpu", torch.bfloat16)
            for checkpointing in (False, True):
                model.checkpoint_activations(checkpointing)
                name = f"{size} pixels" + ", checkpointing" * checkpointing
                steps[name] = round(step_bytes(model, parameters, batch, autocast, mode) / 1e9, 2)
    frozen = sum(p.numel() for p in denoiser.parameters() if not p.requires_grad)
    added = {id(p) for p in parameters}
    linear = sum(
        module.weight.numel()
        for module in denoiser.modules()
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in added
    )
    return {
        "transformer_billions": round(frozen / 1e9, 2),
        "layers": len(parameters) // 2,
        "transformer_bf16_gb": round(2 * frozen / 1e9, 1),
        "transformer_4bit_gb": round((2 * (frozen - linear) + NF4_BYTES * linear) / 1e9, 1),
        "text_encoders_bf16_gb": round(2 * encoders / 1e9, 1),
        "step_gb": steps,
    }


def main(arguments: list[str] | None = None) -> None:
    """Compute and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--models", nargs="+", choices=KINDS, default=[*KINDS])
    options.add_argument("--resolutions", type=int, nargs="+", default=[512, 1024])
    args = options.parse_args(arguments)
    found = {name: measured(KINDS[name], args.resolutions) for name in args.models}
    write_result(args.results, "flow_memory", {"command": command(options, args), "rank": RANK, "models": found})


if __name__ == "__main__":
    main()
