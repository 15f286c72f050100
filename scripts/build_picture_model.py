"""Build a base model of small coloured pictures, for arenas larger than the digits allow.

    python scripts/openmoji.py pictures
    python scripts/build_picture_model.py pictures        writes pictures/model, an ordinary diffusers folder

Trains on pictures/pretraining, seeded: the VAE, then the U-Net together with the CLIP text encoder, like the bundled model
but wider. The tokenizer knows Unicode's names of emojis, which are public, the private pictures' among them. Writes the
measured times and losses to build_picture_model.json in --results, and pictures to look at to pictures/samples.png.

    smplora quickstart --train_data_dir pictures/private --pretrained_model_name_or_path pictures/model

No part of the model has seen a picture of pictures/private. Licence of the model: see scripts/openmoji.py.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import torch
from torch import Tensor

from build_tiny_model import (
    RESULTS,
    as_tensor,
    assembled,
    build_tokenizer,
    encode,
    reconstruction_mse,
    shifted,
    stable_diffusions_schedule,
    train_denoiser,
    train_vae,
    write_record,
)
from openmoji import TONES, names
from smplora.config.data import DataOptions
from smplora.data.pool import open_source, read_samples

VAE_WIDTHS, UNET_WIDTHS = (24, 48, 64), (40, 80)
LARGEST_VOCABULARY = 12000
VERSIONS = 4  # of every picture, moved by up to a pixel


def words() -> list[str]:
    """Of all names of emojis, and of what ``openmoji.chosen`` says besides."""
    texts = [*names().values(), *TONES.values(), "skin and a the of on in at with photo picture drawing image"]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})


def pictures(folder: Path) -> tuple[Tensor, list[int], list[str]]:
    """[n, 3, 32, 32] in [0, 1]; the number of each one's caption; the captions."""
    source = open_source(DataOptions(train_data_dir=str(folder)))
    samples = read_samples(source)
    captions = sorted({sample.caption for sample in samples})
    labels = [captions.index(sample.caption) for sample in samples]
    return as_tensor([source.read(sample.file).convert("RGB") for sample in samples]), labels, captions


def main(arguments: list[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vae_steps", type=int, default=2000)
    parser.add_argument("--unet_steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args(arguments)
    images, labels, captions = pictures(args.folder / "pretraining")
    unseen, _, _ = pictures(args.folder / "private")
    tokenizer = build_tokenizer(args.folder / "model" / "tokenizer", words(), LARGEST_VOCABULARY)
    scheduler = stable_diffusions_schedule()
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    clock = [time.perf_counter()]
    vae = train_vae(images * 2 - 1, args.vae_steps, rng, VAE_WIDTHS)
    clock.append(time.perf_counter())
    moved = (images if k == 0 else shifted(images, rng, 1) for k in range(VERSIONS))
    latents = torch.stack([encode(vae, x * 2 - 1) for x in moved])
    unet, text_encoder = train_denoiser(
        latents, labels, captions, tokenizer, scheduler, args.unet_steps, rng, UNET_WIDTHS
    )
    clock.append(time.perf_counter())
    pipeline = assembled(vae, unet, text_encoder, tokenizer, scheduler)
    pipeline.save_pretrained(args.folder / "model")
    weights = args.folder.joinpath("model").rglob("*.safetensors")
    record = {
        "command": "python scripts/build_picture_model.py pictures",
        "threads": torch.get_num_threads(),
        "pictures": len(images),
        "seconds": {"vae_s": round(clock[1] - clock[0], 1), "unet_and_text_encoder_s": round(clock[2] - clock[1], 1)},
        "reconstruction_mse_pretraining": reconstruction_mse(vae, images),
        "reconstruction_mse_private": reconstruction_mse(vae, unseen),
        "bytes": sum(file.stat().st_size for file in weights),
    }
    write_record(record, args.results, "build_picture_model")
    show(pipeline, captions, args.folder / "samples.png")


def show(pipeline: object, captions: list[str], file: Path) -> None:
    """Three rows of eight pictures, of captions from all over the list."""
    from diffusers.utils import make_image_grid
    from PIL import Image

    pipeline.set_progress_bar_config(disable=True)  # type: ignore[attr-defined]
    asked = [captions[int(k * (len(captions) - 1) / 23)] for k in range(24)]
    rngs = [torch.Generator().manual_seed(k) for k in range(24)]
    made = pipeline(asked, num_inference_steps=25, guidance_scale=2.0, generator=rngs).images  # type: ignore[operator]
    make_image_grid([p.resize((96, 96), Image.Resampling.NEAREST) for p in made], 3, 8).save(file)


if __name__ == "__main__":
    main()
