"""Build the bundled flow-matching model of the handwritten digits 0 to 4: Z-Image's pipeline, beside the U-Net.

    python scripts/build_flow_model.py            writes src/smplora/assets/tiny_flow, an ordinary diffusers folder
    smplora quickstart --base flow

The bundled VAE; a transformer and a language model of Z-Image's classes, trained together, seeded, on the same digits and
captions as the bundled U-Net, with levels drawn by the logit-normal distribution. Writes the measured time and the mean
loss of the last tenth to build_flow_model.json in --results, and pictures to look at to --pictures (none by default).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from build_tiny_model import CAPTION_DROPOUT, RESULTS, WORDS, as_tensor, encode, shifted, train_averaged, write_record
from smplora.core.files import BUNDLED, BUNDLED_FLOW_MODEL, BUNDLED_FOLDER
from smplora.data import digits as examples
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import adaptation_loss
from smplora.models.families.parts import Parts
from smplora.models.families.z_image import ZImage, build
from smplora.models.flow import Weighting

TEMPLATE = "{% for m in messages %}<|im_start|> {{ m.content }} <|im_end|>{% endfor %}"
VERSIONS, BATCH = 8, 32


def tokenizer() -> Any:
    """Whole words of the bundled model's vocabulary; others are unknown."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unknown|>"]
    words = {word: number for number, word in enumerate([*marks, *dict.fromkeys(WORDS)])}
    whole = Tokenizer(WordLevel(words, unk_token="<|unknown|>"))
    whole.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<|unknown|>", pad_token="<|endoftext|>", eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    fast.chat_template = TEMPLATE
    return fast


def untrained(words: Any) -> ZImage:
    """A transformer of 0.7 million weights, the language model and the bundled VAE."""
    language = Qwen3Config(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=16, max_position_embeddings=512, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        dim=64, n_layers=4, n_refiner_layers=1, n_heads=4, n_kv_heads=4, cap_feat_dim=64, axes_dims=[4, 6, 6],
        axes_lens=[512, 32, 32], in_channels=4,
    )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if "pad_token" in name:  # whatever was in memory
            nn.init.normal_(parameter, std=0.02)
    vae = AutoencoderKL.from_pretrained(BUNDLED_FOLDER, subfolder="vae", shift_factor=0.0)
    networks = {"vae": vae, "transformer": transformer, "text_encoder": Qwen3Model(language)}
    return build(Parts(networks, {"tokenizer": words}, FlowMatchEulerDiscreteScheduler(shift=1.0)), "digits", "")


def train(
    model: ZImage, latents: Tensor, labels: list[int], captions: list[str], steps: int, rng: torch.Generator
) -> float:
    """The adaptation loss, on ``latents`` [k, n, 4, 8, 8]; weights are an exponential moving average. Returns the mean
    loss of the last tenth."""
    tokens = model.text.tokens([*captions, ""], 32)
    longest = int(tokens["attention_mask"].sum(1).max())  # the rest is filling, which nothing reads
    tokens = {name: value[:, :longest] for name, value in tokens.items()}
    model.weighting = Weighting("logit_normal")
    encoder: Any = model.text.encoders["text_encoder"]
    parameters = [*model.denoiser.parameters(), *encoder.parameters()]
    numbers = torch.tensor(labels)

    def loss() -> Tensor:
        pick = torch.randint(len(numbers), (BATCH,), generator=rng)
        z = latents[torch.randint(len(latents), (BATCH,), generator=rng), pick]
        empty = torch.rand(BATCH, generator=rng) < CAPTION_DROPOUT
        which = numbers[pick].masked_fill(empty, len(captions))
        told = {name: value[which] for name, value in model.text.embed(tokens).items()}
        draw = Draw(model.timesteps_of(torch.rand(BATCH, generator=rng)), torch.randn(z.shape, generator=rng))
        return adaptation_loss(model.error_maps(Batch(z, z, told, ("",) * BATCH), draw)).mean()

    return train_averaged("transformer and language model", parameters, steps, loss)


def main(arguments: list[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=BUNDLED[BUNDLED_FLOW_MODEL][1], help="for the model")
    parser.add_argument("--pictures", type=Path, help="file for pictures of every digit")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args(arguments)
    torch.manual_seed(args.seed)
    rng, words = torch.Generator().manual_seed(args.seed), tokenizer()
    model = untrained(words)
    pictures, labels = examples.digit_images(examples.PRETRAINING_DIGITS)
    images = as_tensor(pictures)
    versions = ((images if k == 0 else shifted(images, rng, 1)) * 2 - 1 for k in range(VERSIONS))
    latents = torch.stack([encode(model.vae, x) for x in versions])
    captions = [examples.caption(digit) for digit in examples.PRETRAINING_DIGITS]
    start = time.perf_counter()
    loss = train(model, latents, labels, captions, args.steps, rng)
    seconds = time.perf_counter() - start
    model.vae.register_to_config(_name_or_path="")  # where it lay on this machine
    pipeline = ZImagePipeline(
        scheduler=model.scheduler,
        vae=model.vae,
        text_encoder=model.text.encoders["text_encoder"],
        tokenizer=words,
        transformer=model.denoiser,
    )
    pipeline.save_pretrained(args.folder)
    record = {
        "command": "python scripts/build_flow_model.py",
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "loss_of_the_last_tenth": loss,
        "bytes": sum(file.stat().st_size for file in args.folder.rglob("*") if file.is_file()),
    }
    write_record(record, args.results, "build_flow_model")
    if args.pictures:
        show(model, captions, args.pictures)


def show(model: ZImage, captions: list[str], file: Path) -> None:
    """A row of eight pictures for each caption."""
    from diffusers.utils import make_image_grid
    from PIL import Image

    made = model.generate(
        [c for c in captions for _ in range(8)], [*range(8 * len(captions))], resolution=32, num_inference_steps=25,
        guidance_scale=1.0,
    )  # fmt: skip
    tiles = [Image.fromarray((p * 255).round().byte().permute(1, 2, 0).numpy()).resize((64, 64)) for p in made]
    make_image_grid(tiles, len(captions), 8).save(file)


if __name__ == "__main__":
    main()
