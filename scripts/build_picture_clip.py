"""Build a small CLIP that judges the pictures of ``openmoji.py``: distances between sets, and captions.

    python scripts/build_picture_clip.py pictures        writes pictures/clip, an ordinary transformers folder
    smplora evaluate RUN --features '[clip=pictures/clip]' --clip_score_model pictures/clip

Trained, seeded, on all pictures and captions, private ones too: it judges, it is not published, and it has seen members
and others alike. Each picture moved by up to two pixels and a little noisy. Reads captions with the tokenizer of
``build_picture_model.py``, which is made first. Writes build_picture_clip.json to --results: how often the true caption
is the nearest of all. Licence of what is made: see scripts/openmoji.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from build_picture_model import pictures
from build_tiny_model import RESULTS, TOKENS, progress, shifted, write_record

WIDTH, LAYERS, HEADS, PATCH, DIMENSIONS, RESOLUTION = 96, 3, 4, 4, 48, 32
BATCH = 128


def network(words: int, end: int) -> CLIPModel:
    """Without training."""
    both = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS}
    both |= {"num_attention_heads": HEADS, "projection_dim": DIMENSIONS}
    tokens = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    return CLIPModel(
        CLIPConfig(
            text_config={**both, **tokens, "vocab_size": words, "max_position_embeddings": TOKENS},
            vision_config={**both, "image_size": RESOLUTION, "patch_size": PATCH},
            projection_dim=DIMENSIONS,
        )
    )


def train(clip: CLIPModel, images: Tensor, tokens: Tensor, steps: int, rng: torch.Generator) -> None:
    """Symmetric contrastive loss (Radford et al. 2021); equal captions of a batch are all right."""
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for _, report in progress("CLIP", steps):
        pick = torch.randperm(len(images), generator=rng)[:BATCH]
        x = shifted(images[pick], rng) + 0.05 * torch.randn(images[pick].shape, generator=rng)
        logits = clip(input_ids=tokens[pick], pixel_values=x * 2 - 1).logits_per_image
        same = (tokens[pick][:, None] == tokens[pick][None]).all(-1).float()
        right = same / same.sum(1, keepdim=True)
        loss = (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(loss)


@torch.no_grad()
def share_named(clip: CLIPModel, images: Tensor, tokens: Tensor) -> float:
    """How often a picture's nearest caption of all of these is its own."""
    named = [clip(input_ids=tokens, pixel_values=part * 2 - 1).logits_per_image.argmax(1) for part in images.split(256)]
    return float((tokens[torch.cat(named)] == tokens).all(-1).float().mean())


def main(arguments: list[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args(arguments)
    tokenizer = CLIPTokenizer.from_pretrained(args.folder / "model" / "tokenizer")
    parts = [pictures(args.folder / name) for name in ("private", "pretraining")]
    images = torch.cat([part[0] for part in parts])
    texts = [captions[label] for _, labels, captions in parts for label in labels]
    tokens = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids
    torch.manual_seed(args.seed)
    clip, start = network(len(tokenizer), tokenizer.eos_token_id), time.perf_counter()
    train(clip, images, tokens, args.steps, torch.Generator().manual_seed(args.seed))
    seconds = time.perf_counter() - start
    folder = args.folder / "clip"
    clip.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    edge = {"height": RESOLUTION, "width": RESOLUTION}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    CLIPImageProcessorPil(size=edge, do_center_crop=False, **half).save_pretrained(folder)
    count = len(parts[0][0])
    record = {
        "command": "python scripts/build_picture_clip.py pictures",
        "threads": torch.get_num_threads(),
        "pictures": len(images),
        "seconds": round(seconds, 1),
        "private_captions_named": share_named(clip, images[:count], tokens[:count]),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
    }
    write_record(record, args.results, "build_picture_clip")


if __name__ == "__main__":
    main()
