"""Generate from the training captions, look for copies of training images: the "memorisation" object of audit.json.

Pictures, captions and file names go into two private files, for the private report only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smplora.audit.memorisation.captions import NOISES, compare_prompts, magnitudes
from smplora.audit.memorisation.copies import (
    NEAR_ADAPTIVE,
    NEAR_COSINE,
    NEAR_TILES,
    compare,
    conclusion,
    cosine_distances,
    nearer_test,
)
from smplora.config.audit import AuditConfig
from smplora.config.memorisation import MemorisationOptions
from smplora.core.console import progress
from smplora.core.files import write_atomically
from smplora.core.random_streams import stream_seed
from smplora.core.strips import grid
from smplora.data.likeness import adaptive_ratios, pixel_distances
from smplora.data.pictures import load_pixels
from smplora.data.pool import Sample
from smplora.data.split import Split
from smplora.models.encoders.features import weights_of
from smplora.models.encoders.transformers import BUNDLED, LARGEST_FOR_BUNDLED, ImageEncoder, load_encoder
from smplora.models.load import usual_guidance
from smplora.results.gallery import MEMORISED, CaptionMagnitudes, CopiedPair, Memorised, Neighbour
from smplora.results.memorisation import ComparedImages, CopyMeasure, LeftOut, Memorisation, Prompts, SearchSettings
from smplora.results.record import from_plain, write
from smplora.runs.generate import generate
from smplora.runs.subject import Loaded

MOST_IMAGES = 2000  # of each side that generated images are compared with
READ_AT_ONCE = 64
SHOWN, SHOWN_CAPTIONS = 12, 20
CARLINI = """@inproceedings{carlini2023extracting,
  title={Extracting Training Data from Diffusion Models},
  author={Carlini, Nicholas and Hayes, Jamie and Nasr, Milad and Jagielski, Matthew and Sehwag, Vikash and
    Tram{\\`e}r, Florian and Balle, Borja and Ippolito, Daphne and Wallace, Eric},
  booktitle={USENIX Security Symposium}, year={2023}, note={arXiv 2301.13188}}"""
SOMEPALLI = """@inproceedings{somepalli2023diffusion,
  title={Diffusion Art or Digital Forgery? Investigating Data Replication in Diffusion Models},
  author={Somepalli, Gowthami and Singla, Vasu and Goldblum, Micah and Geiping, Jonas and Goldstein, Tom},
  booktitle={CVPR}, year={2023}, note={arXiv 2212.03860}}"""
WEN = """@inproceedings{wen2024detecting,
  title={Detecting, Explaining, and Mitigating Memorization in Diffusion Models},
  author={Wen, Yuxin and Liu, Yuchen and Chen, Chen and Lyu, Lingjuan},
  booktitle={International Conference on Learning Representations}, year={2024}, note={arXiv 2407.21720}}"""


@dataclass(frozen=True)
class BothSides:
    """Equally many training and held-out images, in a random order."""

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Distances:
    """Of generations to the images of one side, [g, n] each; embedding is None where no encoder suits the images."""

    tiles: Tensor
    whole: Tensor
    embedding: Tensor | None


def memorise(
    loaded: Loaded,
    options: MemorisationOptions,
    folder: Path,
    *,
    attack_encoder: str,
    device: str,
    seed: int,
    batch_size: int,
    show: bool,
) -> Memorisation:
    """Look for copies; writes memorised.png and memorised.json into ``folder``.

    Raises:
        ConfigError: the encoder cannot be loaded.
    """
    sides = choose(loaded.split, seed)
    steps, prompted = options.memorisation_steps, sides.train[: options.memorisation_captions]
    base = loaded.subject.config
    guidance = guidance_of(options.memorisation_guidance, base.pretrained_model_name_or_path, base.revision)
    encoder = encoder_for(attack_encoder, loaded.resolution, device)
    prompts_drawn = [(sample, k) for sample in prompted for k in range(options.memorisation_images)]
    images = draw(loaded, prompts_drawn, seed, steps=steps, guidance=guidance, batch_size=batch_size, show=show)
    embeddings = torch.cat([encoder.embedding(part / 255) for part in images.split(READ_AT_ONCE)]) if encoder else None
    by_encoder = {
        side: distances(loaded, images, embeddings, samples, encoder)
        for side, samples in (("train", sides.train), ("held_out", sides.held_out))
    }
    measures = measure(by_encoder["train"], by_encoder["held_out"], seed)
    prompts, captions = score_captions(loaded, sides, seed, steps=steps, batch_size=batch_size)
    write_gallery(folder, loaded, sides, [s for s, _ in prompts_drawn], images, by_encoder, captions)
    weights = encoder_weights(attack_encoder) if encoder else None
    settings = SearchSettings(options.memorisation_images, steps, guidance, weights)
    return Memorisation(
        **conclusion({m["title"]: m for m in measures}, len(images)),
        images=ComparedImages(len(images), len(sides.train), len(sides.held_out)),
        left_out=LeftOut(len(loaded.split.members) - len(prompted), **sides.left_out),
        settings=settings,
        measures=tuple(from_plain(CopyMeasure, m) for m in measures),
        prompts=from_plain(Prompts, prompts),
    )


def guidance_of(guidance: float | None, model: str, revision: str | None) -> float:
    """``--memorisation_guidance``, or what is usual for the base model."""
    return usual_guidance(model, revision) if guidance is None else guidance


def same_search(before: Memorisation | None, config: AuditConfig, model: str, revision: str | None) -> bool:
    """Whether what was found is what ``memorise`` would find of an adapter of ``model``. How many captions were allowed
    is told by how many images there are."""
    if before is None or not config.looks_for_copies:
        return before is None and not config.looks_for_copies
    settings, images = before.settings, before.images
    encoders = [config.attack_encoder, encoder_weights(config.attack_encoder)]  # the option itself: of earlier versions
    none = [None] if config.attack_encoder == BUNDLED else []  # where images are too large for it
    captions = min(config.memorisation_captions, images.train)
    return (
        (settings.images, settings.steps) == (config.memorisation_images, config.memorisation_steps)
        and settings.guidance == guidance_of(config.memorisation_guidance, model, revision)
        and settings.encoder in [*encoders, *none]
        and images.generated == captions * config.memorisation_images
    )


def choose(split: Split, seed: int) -> BothSides:
    """Equally many images of both sides, at random: of a larger set something would lie nearer by chance.

    Held-out are images that nothing was trained on: test non-members and the reference cell; aux non-members, which a
    proxy may have seen, only where these are too few.
    """

    def shuffled(samples: Sequence[Sample]) -> list[Sample]:
        return sorted(samples, key=lambda s: stream_seed(seed, s.digest, "memorisation"))

    train = shuffled(split.members)
    unseen = shuffled(split.cells["test_nonmember"] + split.cells["reference"])
    if len(unseen) < len(train):
        unseen += shuffled(split.cells["aux_nonmember"])
    n = min(len(train), len(unseen), MOST_IMAGES)
    return BothSides(tuple(train[:n]), tuple(unseen[:n]), {"train": len(train) - n, "held_out": len(unseen) - n})


def cost_sentence(loaded: Loaded, options: MemorisationOptions) -> str:
    """For the plan."""
    count = min(len(loaded.split.members), options.memorisation_captions) * options.memorisation_images
    return f"search for copies: {count:,} images, {options.memorisation_steps} steps each, unless they are in the cache"


def encoder_for(attack_encoder: str, resolution: int, device: str) -> ImageEncoder | None:
    """That of --attack_encoder; None where it is the bundled one, which knows digits, and the images are larger."""
    if attack_encoder == BUNDLED and resolution > LARGEST_FOR_BUNDLED:
        return None
    return load_encoder(attack_encoder, device)


def encoder_weights(attack_encoder: str) -> str:
    """How results call --attack_encoder: folders of this machine by their content."""
    return BUNDLED if attack_encoder == BUNDLED else weights_of(attack_encoder)


def draw(
    loaded: Loaded,
    requests: Sequence[tuple[Sample, int]],
    seed: int,
    *,
    steps: int,
    guidance: float,
    batch_size: int,
    show: bool,
) -> Tensor:
    """Image k from the caption of each sample, each from its own noise: [g, 3, H, W] of 8 bits."""
    captions = [sample.caption for sample, _ in requests]
    seeds = [stream_seed(seed, sample.digest, "memorisation", k) for sample, k in requests]
    images = generate(
        loaded,
        captions,
        seeds,
        num_inference_steps=steps,
        guidance_scale=guidance,
        batch_size=batch_size,
        progress=show,
        title="generate from training captions,",
    )
    return torch.cat([eight_bits(part) for part in images.parts()])


def eight_bits(images: Tensor) -> Tensor:
    """[0, 1] as a PNG file would hold it: 0 to 255."""
    return (images * 255).round().byte()


def real_images(loaded: Loaded, samples: Sequence[Sample]) -> Tensor:
    """Squares like the generated ones: [n, 3, H, W] of 8 bits."""
    return eight_bits(load_pixels((loaded.source.read(s.file) for s in samples), loaded.resolution) / 2 + 0.5)


def distances(
    loaded: Loaded, images: Tensor, embeddings: Tensor | None, samples: Sequence[Sample], encoder: ImageEncoder | None
) -> Distances:
    """Of every generation to every sample. Samples are read a few at a time: photographs would fill the memory."""
    device = loaded.model.device if loaded.model.device.type == "cuda" else torch.device("cpu")
    generated, parts = images.to(device), []
    for start in progress(range(0, len(samples), READ_AT_ONCE), "compare with real images", "batch"):
        real = real_images(loaded, samples[start : start + READ_AT_ONCE])
        near = (
            None
            if encoder is None or embeddings is None
            else cosine_distances(embeddings, encoder.embedding(real / 255))
        )
        parts.append((*(d.cpu() for d in pixel_distances(generated, real.to(device))), near))
    tiles, whole, nearness = zip(*parts, strict=True)
    return Distances(torch.cat(tiles, 1), torch.cat(whole, 1), None if embeddings is None else torch.cat(nearness, 1))


def measure(train: Distances, held_out: Distances, seed: int) -> list[dict[str, Any]]:
    """The "measures": near-copies and nearest distances by pixels, and by embeddings where there are such."""

    def copy_measure(
        name: str, title: str, source: tuple[str, str], near: Sequence[Tensor], threshold: float
    ) -> dict[str, Any]:
        rng = np.random.default_rng(stream_seed(seed, "memorisation", name))
        return {
            "name": name,
            "title": title,
            "reference": source[0],
            "bibtex": source[1],
            **compare(near[0], near[1], threshold),
            "nearer_test": None if name == "adaptive" else nearer_test(near[0], near[1], rng),
        }

    ratios = [adaptive_ratios(side.whole) for side in (train, held_out)]
    carlini = ("Carlini et al. 2023", CARLINI)
    results = [
        copy_measure("tiles", "largest distance of 16 tiles", carlini, (train.tiles, held_out.tiles), NEAR_TILES),
        copy_measure("adaptive", "distance relative to the nearest images", carlini, ratios, NEAR_ADAPTIVE),
    ]
    if train.embedding is not None and held_out.embedding is not None:
        somepalli, pair = ("Somepalli et al. 2023", SOMEPALLI), (train.embedding, held_out.embedding)
        results.append(copy_measure("embedding", "cosine distance of embeddings", somepalli, pair, NEAR_COSINE))
    return results


def score_captions(
    loaded: Loaded, sides: BothSides, seed: int, *, steps: int, batch_size: int
) -> tuple[dict[str, Any], list[CaptionMagnitudes]]:
    """The "prompts" object, and for the private file each training caption with its numbers, the best known first."""
    members, others = ({s.caption for s in side} for side in (sides.train, sides.held_out))
    captions, model = sorted(members | others), loaded.model
    timestep = model.noisiest(steps)
    loud = {}
    for name in ("adapter", "base"):
        with loaded.adapted.without(name == "base"):
            loud[name] = magnitudes(model, captions, seed=seed, timestep=timestep,
                                    resolution=loaded.resolution, batch_size=batch_size)  # fmt: skip
    compared = compare_prompts(loud["adapter"], loud["base"], captions, members, others)
    tested = [
        CaptionMagnitudes(c, float(a), float(b), c in others)
        for c, a, b in zip(captions, loud["adapter"], loud["base"], strict=True)
        if c in members
    ]
    tested.sort(key=lambda one: one.base / max(one.adapter, 1e-12))
    about = {"reference": "Wen et al. 2024", "bibtex": WEN, "timestep": timestep, "noises": NOISES}
    return {**about, **compared}, tested


def closest(distances: dict[str, Distances]) -> list[tuple[int, int, int]]:
    """For each training image its closest generation (both relative to the generation's other neighbours) and that
    one's nearest held-out image: (generation, training image, held-out image), closest first, each generation once."""
    ratios = adaptive_ratios(distances["train"].whole)
    best, used, triples = ratios.min(0), set[int](), []
    order = best.values.argsort(stable=True).tolist()
    nearest = distances["held_out"].whole.argmin(1)
    for image in order:
        generation = int(best.indices[image])
        if generation not in used:
            used.add(generation)
            triples.append((generation, image, int(nearest[generation])))
    return triples[:SHOWN]


def write_gallery(
    folder: Path,
    loaded: Loaded,
    sides: BothSides,
    origins: Sequence[Sample],
    images: Tensor,
    distances: dict[str, Distances],
    captions: Sequence[CaptionMagnitudes],
) -> None:
    """memorised.png and memorised.json: of each pair the generated, the training and the held-out image. Private."""
    rows, pairs = [], []
    for generation, image, other in closest(distances):
        train, held_out, origin = sides.train[image], sides.held_out[other], origins[generation]
        pictures = (images[generation], *real_images(loaded, [train, held_out]))
        rows.append([Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in pictures])
        pairs.append(
            CopiedPair(
                caption=origin.caption,
                of_its_own_caption=origin.caption == train.caption,
                train=_neighbour(distances["train"], generation, image, train),
                held_out=_neighbour(distances["held_out"], generation, other, held_out),
            )
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / f"{MEMORISED}.png", grid(rows))
    write(folder / f"{MEMORISED}.json", Memorised(tuple(pairs), tuple(captions[:SHOWN_CAPTIONS])))


def _neighbour(distances: Distances, generation: int, image: int, sample: Sample) -> Neighbour:
    embedding = None if distances.embedding is None else float(distances.embedding[generation, image])
    return Neighbour(sample.file, float(distances.tiles[generation, image]), embedding)


def forget(folder: Path) -> None:
    """Remove the private files of an earlier audit."""
    for ending in ("png", "json"):
        (folder / f"{MEMORISED}.{ending}").unlink(missing_ok=True)
