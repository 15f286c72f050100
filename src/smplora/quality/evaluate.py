"""Quality of an adapter's images: generate with held-out captions, compare with held-out and with training images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from smplora.attacks.methods.loss import loss_vector
from smplora.attacks.views import GreyBox
from smplora.config.evaluate import EvaluateConfig, feature_source
from smplora.core.cache import open_cache
from smplora.core.console import progress as with_bar
from smplora.core.console import say
from smplora.core.errors import DataError
from smplora.core.files import write_atomically
from smplora.core.output import output_folder
from smplora.data.pictures import load_pixels, strip
from smplora.data.pool import Sample
from smplora.models.encoders.features import Extractor, load_clip, load_extractor, weights_of
from smplora.models.encoders.transformers import LARGEST_FOR_BUNDLED, ClipEncoder
from smplora.quality.distances import compare, nearest, normal_interval
from smplora.results.estimate import Estimate
from smplora.results.quality import FORMAT, Against, AgainstBoth, ClipScore, NearestImages, NetworkQuality, Quality
from smplora.results.record import from_plain, write
from smplora.runs.generate import AT_ONCE, Images, check_inference_steps, generate
from smplora.runs.other_trainers import load_any
from smplora.runs.subject import RESULT_FILES, Loaded, result_folder

SHOWN = 10  # pictures side by side
LOSS_TIMESTEPS, LOSS_PAIRS, LOSS_IMAGES = 8, 1, 200

Features = dict[str, Tensor]  # of a network, by set of images: [n, d]


def evaluate(config: EvaluateConfig, *, progress: bool = True) -> Quality:
    """Write quality.json, samples.png and real.png; returns the content of the first.

    Raises:
        UserError: anything that the user can mend, an empty reference set among it.
    """
    began = time.perf_counter()
    folder = result_folder(config.adapter, config.output_dir, "quality")
    loaded = load_any(config, open_cache(config.cache_dir, config.cache_latents_to_disk))
    check_inference_steps(config.num_inference_steps, "num_inference_steps", loaded.model)
    reference = loaded.split.cells[loaded.split.held_out]
    if not reference:
        raise DataError(
            "the split has no held-out reference images to measure quality; split anew with --reference_size above 0"
        )
    download, device = bool(config.allow_download), loaded.model.device
    extractors = [load_extractor(*feature_source(feature), device, download) for feature in config.features]
    clip = load_clip(config.clip_score_model, device, download) if config.clip_score_model else None
    if progress:
        warn_of_photographs(config.features, loaded.resolution)
    shown = choose_shown(reference)
    captions = [s.caption for s in shown] + [
        reference[i % len(reference)].caption for i in range(config.num_images - len(shown))
    ]
    with output_folder(folder, RESULT_FILES["quality"]):
        images = generate(
            loaded,
            captions,
            range(config.seed, config.seed + len(captions)),
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.batch_size,
            progress=progress,
        )
        features, scores = extract_features(loaded, images, captions, extractors, clip)
        first, *others = [measures(extractor, features[extractor.name]) for extractor in extractors]
        result = Quality(
            format=FORMAT,
            subject=loaded.subject.summary(loaded.adapter_sha256, loaded.model),
            seal=loaded.split.seal,
            n_generated=len(images),
            **evaluation_settings(config),
            **vars(first),
            others={x.name: measured for x, measured in zip(extractors[1:], others, strict=True)},
            clip_score=from_plain(ClipScore, {"weights": weights_of(config.clip_score_model or ""), **scores})
            if scores
            else None,
            held_out_loss=held_out_loss(loaded, config.seed, config.batch_size),
            captions=tuple(s.caption for s in shown),
            elapsed_s=round(time.perf_counter() - began, 1),
        )
        write_atomically(folder / "samples.png", strip(images[: len(shown)]))
        write_atomically(folder / "real.png", strip(real_images(loaded, shown)))
        write(folder / "quality.json", result)
        return result


def evaluation_settings(config: EvaluateConfig) -> dict[str, Any]:
    """The options that decide an evaluation's numbers; what weights they name is told beside the numbers."""
    named = ("num_images", "seed", "num_inference_steps", "guidance_scale")
    return {name: getattr(config, name) for name in named} | {
        "mixed_precision": config.mixed_precision if config.mixed_precision != "no" else None,
        "features": tuple(feature_source(feature)[0] for feature in config.features),
    }


def same_evaluation(before: Quality, config: EvaluateConfig) -> bool:
    """Whether a quality of this adapter and split has what ``config`` asks for: as many images, drawn alike and
    seen by the same networks with the same weights. What it has besides, such as a CLIP score, does no harm."""
    if any(getattr(before, name) != value for name, value in evaluation_settings(config).items()):
        return False
    networks = before.by_network
    pairs = [(networks[name].weights, source) for name, source in map(feature_source, config.features)]
    if config.clip_score_model:
        pairs.append((before.clip_score.weights if before.clip_score else "", config.clip_score_model))
    return all(recorded == weights_of(source) for recorded, source in pairs)


def extract_features(
    loaded: Loaded,
    images: Images,
    captions: Sequence[str],
    extractors: Sequence[Extractor],
    clip: ClipEncoder | None,
) -> tuple[dict[str, Features], dict[str, Any] | None]:
    """What every network sees in generated, held-out and training images, by network and set; and, with ``clip``, how
    well images go with their captions, 100 times the cosine where it is positive (Hessel et al. 2021, with
    torchmetrics' factor), of the generated and, to compare with, of the held-out images."""
    held_out, train = loaded.split.cells[loaded.split.held_out], loaded.split.members
    sets: dict[str, tuple[int, Callable[[int], Tensor], Sequence[str]]] = {
        "generated": (len(images), lambda i: images[i : i + AT_ONCE], captions),
        "held_out": (
            len(held_out),
            lambda i: real_images(loaded, held_out[i : i + AT_ONCE]),
            [s.caption for s in held_out],
        ),
        "train": (len(train), lambda i: real_images(loaded, train[i : i + AT_ONCE]), []),
    }
    features: dict[str, dict[str, list[Tensor]]] = {x.name: {name: [] for name in sets} for x in extractors}
    cosines: dict[str, list[Tensor]] = {name: [] for name in sets}
    for name, (size, read, words) in sets.items():
        for start in with_bar(range(0, size, AT_ONCE), f"look at {name.replace('_', '-')} images", "batch"):
            part = read(start)
            for extractor in extractors:
                features[extractor.name][name].append(extractor.embed(part))
            if clip and words:
                texts = clip.read(words[start : start + AT_ONCE])
                cosines[name].append((clip.embedding(part) * texts).sum(1))
    scores = {name: normal_interval(100 * torch.cat(c).clamp(min=0)) for name, c in cosines.items() if c}
    return {n: {k: torch.cat(parts) for k, parts in by_set.items()} for n, by_set in features.items()}, scores or None


def measures(extractor: Extractor, features: Features) -> NetworkQuality:
    """Everything that is measured with one network."""
    generated = features["generated"]
    against = {
        name: from_plain(Against, compare(generated, features[name], unit_clip=extractor.name == "clip"))
        for name in with_bar(("held_out", "train"), f"distances by {extractor.name}", "set")
    }
    return NetworkQuality(
        title=extractor.title(generated.shape[1]),
        weights=extractor.weights,
        dimensions=generated.shape[1],
        against=AgainstBoth(**against),
        nearest=from_plain(NearestImages, nearest(generated, features["train"], features["held_out"])),
    )


def in_words(quality: Quality) -> str:
    """The result in one line."""
    held_out, ratio = quality.against.held_out, quality.nearest.ratio if quality.nearest else None
    if held_out.kid.value is None:
        return "too few images for KID"
    parts = [f"KID {held_out.kid.value:.4f} against {held_out.n} held-out images"]
    if held_out.fid.value is None:
        parts.append(f"no FID ({held_out.fid.reason})")
    if ratio and ratio.value is not None and ratio.high is not None and ratio.high < 1:
        parts.append(f"its images lie nearer to the training images than to others (distances {ratio.value:.2f} to 1)")
    return "; ".join(parts)


def warn_of_photographs(features: Sequence[str], resolution: int) -> None:
    """Say so where the first features know nothing of such pictures."""
    if features[0] == "tiny" and resolution > LARGEST_FOR_BUNDLED:
        say(
            "--features tiny knows small digits only and says little about photographs; "
            "'--features [dinov2] --allow_download' measures them (docs/quality.md)"
        )


def choose_shown(reference: Sequence[Sample]) -> list[Sample]:
    """Up to ``SHOWN`` held-out images whose captions differ as much as the set allows: captions in turn, by name."""
    by_caption: dict[str, list[Sample]] = {}
    for sample in reference:
        by_caption.setdefault(sample.caption, []).append(sample)
    turns = [(turn, caption, s) for caption, group in by_caption.items() for turn, s in enumerate(group)]
    first = sorted(turns, key=lambda t: t[:2])[:SHOWN]
    return [s for _, _, s in sorted(first, key=lambda t: t[1::-1])]


def real_images(loaded: Loaded, samples: Sequence[Sample]) -> Tensor:
    """Squares like the generated ones, whatever the shapes of training: [n, 3, H, W] in [0, 1]."""
    return load_pixels((loaded.source.read(s.file) for s in samples), loaded.resolution) / 2 + 0.5


def held_out_loss(loaded: Loaded, seed: int, batch_size: int) -> Estimate:
    """Mean adaptation loss on (up to 200 of) the reference images over timesteps and a noise pair, with the normal
    95 % interval over images: quality without sampling noise."""
    batches = loaded.encode(loaded.split.held_out, LOSS_IMAGES).split(batch_size)
    losses = [loss_vector(GreyBox(loaded.adapted, b, seed), LOSS_TIMESTEPS, LOSS_PAIRS).mean(1) for b in batches]
    return from_plain(Estimate, normal_interval(torch.cat(losses)))
