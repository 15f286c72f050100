"""Quality of an adapter's images: generate with held-out captions, compare with held-out and with training images."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smplora.attacks.loss import loss_vector
from smplora.cache import open_cache
from smplora.card import write_card
from smplora.config import EvaluateConfig
from smplora.data import Sample, load_pixels
from smplora.errors import DataError
from smplora.features import load_digit_features
from smplora.files import write_atomically, write_json
from smplora.foreign import load_any
from smplora.progress import bar
from smplora.quality import compare
from smplora.run import say
from smplora.subject import Loaded, Subject, result_folder
from smplora.views import GreyBox

FORMAT = "smplora.quality/1"
SHOWN = 10  # pictures side by side
LOSS_TIMESTEPS, LOSS_PAIRS, LOSS_IMAGES = 8, 1, 200


def evaluate(config: EvaluateConfig, *, progress: bool = True) -> dict[str, Any]:
    """``smplora evaluate``: write quality.json, samples.png and real.png; returns the content of the first.

    Raises:
        UserError: anything that the user can mend, an empty reference set among it.
    """
    began = time.perf_counter()
    folder = result_folder(config.adapter, config.output_dir, "quality")
    loaded = load_any(config, open_cache(config))
    reference = loaded.split.cells[loaded.split.held_out]
    if not reference:
        raise DataError(
            "the split has no held-out reference images to measure quality; split anew with --reference_size above 0"
        )
    shown = choose_shown(reference)
    captions = [s.caption for s in shown] + [
        reference[i % len(reference)].caption for i in range(config.num_images - len(shown))
    ]
    generated = generate(loaded, captions, config, progress)
    extractor = load_digit_features()
    features = {"generated": extractor(generated)}
    for name, samples in (("held_out", reference), ("train", loaded.split.train)):
        features[name] = torch.cat(
            [extractor(real_images(loaded, samples[i : i + 100])) for i in range(0, len(samples), 100)]
        )
    content: dict[str, Any] = {
        "format": FORMAT,
        "subject": loaded.subject.describe(loaded.adapter_sha256, loaded.model),
        "seal": loaded.split.seal,
        "n_generated": len(generated),
        **evaluation_settings(config),
        "features": "bundled digit features, 64-d",
        "against": {name: compare(features["generated"], features[name]) for name in ("held_out", "train")},
        "held_out_loss": held_out_loss(loaded, config),
        "captions": [s.caption for s in shown],
        "elapsed_s": round(time.perf_counter() - began, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "samples.png", strip(generated[: len(shown)]))
    write_atomically(folder / "real.png", strip(real_images(loaded, shown)))
    write_json(folder / "quality.json", content)
    if config.output_dir is None and isinstance(loaded.subject, Subject):
        write_card(loaded.subject)
    kid = content["against"]["held_out"]["kid"]["value"]
    if progress:
        say(
            f"{loaded.subject.label}: "
            + (
                f"KID {kid:.4f} against {len(reference)} held-out images"
                if kid is not None
                else "too few images for KID"
            )
        )
    if config.json:
        print(json.dumps(content))
    return content


def evaluation_settings(config: EvaluateConfig) -> dict[str, Any]:
    """The options that decide an evaluation's numbers."""
    return {name: getattr(config, name) for name in ("num_images", "seed", "num_inference_steps", "guidance_scale")}


def choose_shown(reference: Sequence[Sample]) -> list[Sample]:
    """Up to ``SHOWN`` held-out images whose captions differ as much as the set allows: captions in turn, by name."""
    by_caption: dict[str, list[Sample]] = {}
    for sample in reference:
        by_caption.setdefault(sample.caption, []).append(sample)
    turns = [(turn, caption, s) for caption, group in by_caption.items() for turn, s in enumerate(group)]
    first = sorted(turns, key=lambda t: t[:2])[:SHOWN]
    return [s for _, _, s in sorted(first, key=lambda t: t[1::-1])]


def generate(loaded: Loaded, captions: Sequence[str], config: EvaluateConfig, progress: bool) -> Tensor:
    """One image per caption, image i from seed + i: [n, 3, H, W] in [0, 1]."""
    parts = []
    with bar(len(captions), f"generate {loaded.subject.label}", unit="image", show=progress) as display:
        for start in range(0, len(captions), config.batch_size):
            part = captions[start : start + config.batch_size]
            parts.append(
                loaded.model.generate(
                    part,
                    [config.seed + start + i for i in range(len(part))],
                    resolution=loaded.resolution,
                    num_inference_steps=config.num_inference_steps,
                    guidance_scale=config.guidance_scale,
                )
            )
            display.update(len(part))
    return torch.cat(parts)


def real_images(loaded: Loaded, samples: Sequence[Sample]) -> Tensor:
    """Squares like the generated ones, whatever the shapes of training: [n, 3, H, W] in [0, 1]."""
    return load_pixels((loaded.source.read(s.file) for s in samples), loaded.resolution) / 2 + 0.5


def held_out_loss(loaded: Loaded, config: EvaluateConfig) -> dict[str, float]:
    """Mean adaptation loss on (up to 200 of) the reference images over timesteps and a noise pair, with the normal
    95 % interval over images: quality without sampling noise."""
    batches = loaded.encode(loaded.split.held_out, LOSS_IMAGES).split(config.batch_size)
    losses = [loss_vector(GreyBox(loaded.model, b, config.seed), LOSS_TIMESTEPS, LOSS_PAIRS).mean(1) for b in batches]
    values = torch.cat(losses).double()
    half = 1.96 * float(values.std(correction=min(1, len(values) - 1))) / len(values) ** 0.5
    mean = float(values.mean())
    return {"value": mean, "low": mean - half, "high": mean + half}


def strip(images: Tensor) -> bytes:
    """Images [n, 3, H, W] in [0, 1] side by side, as PNG without metadata."""
    row = torch.cat(list(images), dim=2).permute(1, 2, 0).mul(255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(row)).save(buffer, "PNG")
    return buffer.getvalue()
