"""Images of ``--objective synth_lora``: drawn by private teachers, in ``synthetic_images`` of the run folder. What is
published learns from them and from nothing else.

They are as private as what the teachers know, and nothing publishes them. metadata.jsonl, which is written last, says
which are used, by which caption and digest each was drawn; with it the folder is one that diffusers' scripts read too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from smplora.config.data import DataOptions
from smplora.config.dreambooth import CAPTION
from smplora.config.synthetic import BALANCED, RECOMBINED, TOGETHER, TRAINING
from smplora.config.train import TrainConfig
from smplora.core.cache import Cache
from smplora.core.console import bar, progress, say, say_once
from smplora.core.device import choose_device
from smplora.core.errors import CheckpointError, ConfigError, DataError
from smplora.core.files import PRIVATE, write_atomically
from smplora.core.random_streams import generator, stream_seed
from smplora.core.reading import Unreadable, json_lines, read_text
from smplora.data.cells import Cell
from smplora.data.encode import encode
from smplora.data.folder import ImageFolder
from smplora.data.likeness import adaptive_ratios, pixel_distances
from smplora.data.pictures import load_pixels, pixel_digest, read_image, strip
from smplora.data.pool import Sample, open_source
from smplora.data.prepare import Preparation
from smplora.data.split import Split, chooses
from smplora.models.diffusion import LatentDiffusion
from smplora.runs.subject import find_subject, load_adapted
from smplora.training.precision import frozen_type
from smplora.training.teacher_weights import TeacherWeights
from smplora.training.teachers import TEACHERS, number_of_teachers

FOLDER = "synthetic_images"  # in the run folder
TABLE, CAPTIONS = "metadata.jsonl", "captions.sha256"
COMPARED_AT_ONCE = 64
LARGEST_CAPTIONS = 2**26  # bytes
FEWEST_CHOOSERS = 30
LEAST_KEPT = 0.1  # of the drawn images must stay


def captions_to_draw(config: TrainConfig, split: Split) -> list[str]:
    """One for each image to draw, as teachers know them.

    Args:
        config: of the run, resolved.
        split: of the run, with captions as they are on disk.

    Raises:
        ConfigError: a file of captions without any, or that cannot be read.
    """
    count = config.num_synthetic_images or 0
    if config.synthetic_captions in (TRAINING, RECOMBINED):
        ordered = sorted(split.train, key=lambda s: stream_seed(config.seed, "captions to draw", s.digest))
        known = [(s.caption, *s.more_captions) for s in ordered]  # at random: no cell comes first
        longest = max(map(len, known))
        captions = [of_one[k] for k in range(longest) for of_one in known if k < len(of_one)]
    else:
        captions = _own_captions(Path(config.synthetic_captions))
    if config.synthetic_captions == RECOMBINED:
        captions = recombined(captions, count, config.seed)
    if count < len(captions):
        say_once(f"--num_synthetic_images {count}: so many of the {len(captions)} captions are drawn, the others not")
    return [config.wording.replace(CAPTION, captions[k % len(captions)]) for k in range(count)]


def _own_captions(file: Path) -> list[str]:
    try:
        lines = read_text(file, LARGEST_CAPTIONS).splitlines()
    except (Unreadable, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--synthetic_captions: {file} cannot be read: {reason}") from error
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise ConfigError(f"--synthetic_captions got '{file}', which has no captions; give one a line")
    return captions


def recombined(captions: Sequence[str], count: int, seed: int) -> list[str]:
    """New captions, each of as many tags (what commas separate) as one of ``captions``; tag number j is the j-th of a
    caption drawn at random among those that have so many. Captions without commas stay what they are."""
    tags = [[tag.strip() for tag in caption.split(",") if tag.strip()] or [caption] for caption in captions]
    at = [[of_one[j] for of_one in tags if len(of_one) > j] for j in range(max(map(len, tags)))]
    mixed = []
    for k in range(count):
        rng = generator(seed, "recombined caption", k)
        own = len(tags[k % len(tags)])
        mixed.append(", ".join(at[j][int(torch.randint(len(at[j]), (1,), generator=rng))] for j in range(own)))
    return mixed


def draw_images(config: TrainConfig, split: Split, accelerator: Accelerator, show: bool) -> None:
    """Draw what is lacking of the images. Image i is drawn by teacher i modulo their number, or by all together, from
    noise that is a function of (seed, i), always among the same others, so that a killed run goes on with the same.
    Several processes share the work.

    Args:
        config, split: as of ``captions_to_draw``.

    Raises:
        CheckpointError: a teacher is gone or damaged.
        ConfigError: the file of captions is not what it was when the drawing began.
        OSError: they cannot be written.
    """
    folder = Path(config.output_dir) / FOLDER
    with accelerator.main_process_first():
        complete = (folder / TABLE).exists()
        captions = [] if complete else _begun(config, split, folder)
    if not complete:
        _draw_lacking(config, captions, folder, accelerator, show)
        accelerator.wait_for_everyone()
    with accelerator.main_process_first():
        if not (folder / TABLE).exists():
            write_table(config, split, captions, show)
    if accelerator.is_main_process:
        _delete_dropped(folder)


def _begun(config: TrainConfig, split: Split, folder: Path) -> list[str]:
    """The captions, which are noted before the first image is drawn."""
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    captions = captions_to_draw(config, split)
    noted = hashlib.sha256("\x1e".join(captions).encode()).hexdigest()
    mark = folder / CAPTIONS
    if not mark.exists():
        write_atomically(mark, noted)
    elif mark.read_text(encoding="utf-8") != noted:
        raise ConfigError(
            f"--synthetic_captions: '{config.synthetic_captions}' is not what it was when the drawing began; restore "
            f"it, or delete {folder} to draw anew"
        )
    return captions


def _draw_lacking(
    config: TrainConfig, captions: Sequence[str], folder: Path, accelerator: Accelerator, show: bool
) -> None:
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    files = [folder / f"{i:06d}.png" for i in range(len(captions))]
    have = sum(file.exists() for file in files)
    with bar(len(files), "draw images", unit="image", initial=have, show=show and have < len(files)) as display:
        for teachers, numbers in _turns(config, len(files)):
            parts = list(_parts(numbers, config.sample_batch_size))[mine]
            lacking = [part for part in parts if not all(files[i].exists() for i in part)]
            if not lacking:
                continue
            model, generate = _teachers_model(config, teachers)
            for part in lacking:
                pictures = generate(
                    [captions[i] for i in part],
                    [stream_seed(config.seed, "synthetic image", i) for i in part],
                    resolution=config.resolution or model.resolution,
                    num_inference_steps=config.synthetic_inference_steps,
                    guidance_scale=config.synthetic_guidance_scale or 1.0,
                    sampler=config.synthetic_sampler,
                )
                for i, picture in zip(part, pictures, strict=True):
                    if not files[i].exists():
                        write_atomically(files[i], strip(picture[None]))
                        display.update()


def _turns(config: TrainConfig, images: int) -> list[tuple[list[int], range]]:
    """Which teachers draw which images: one after the other, or all of them all images."""
    count = number_of_teachers(config)
    if config.teachers_draw == TOGETHER:
        return [([*range(count)], range(images))]
    return [([k], range(k, images, count)) for k in range(count)]


def _teachers_model(
    config: TrainConfig, teachers: Sequence[int]
) -> tuple[LatentDiffusion, Callable[..., torch.Tensor]]:
    """A model with the first of the teachers, and what draws."""
    run = Path(config.output_dir)
    subject = find_subject(str(run / TEACHERS / f"teacher-{teachers[0]}"))
    dtype = frozen_type(config.mixed_precision, config.adaptation)
    model = load_adapted(subject, choose_device(config.device), dtype, config.quantize).model
    if len(teachers) == 1:
        return model, model.generate
    adaptation = subject.adaptation
    trained = [
        p for name in adaptation.components(model) for p in model.component(name).parameters() if p.requires_grad
    ]
    return model, TeacherWeights.read(run, len(teachers), model, adaptation, trained).generate


def write_table(config: TrainConfig, split: Split, captions: Sequence[str], show: bool) -> None:
    """Choose which of the images are used, and say it; nothing else is.

    Args:
        captions: that they were drawn by, in order.
    """
    folder = Path(config.output_dir) / FOLDER
    files = [folder / f"{i:06d}.png" for i in range(len(captions))]
    kept = set(range(len(files))) - _nearest_to_training(config, split, files)
    if config.drop_nearest == BALANCED and len(kept) < LEAST_KEPT * len(files):
        raise ConfigError(
            f"--drop_nearest {BALANCED} would leave {len(kept)} of {len(files)} drawn images: nearly all lie nearer to "
            "a training image than to a held-out one. Train teachers less (--teacher_steps) or give a share, such as "
            "0.5, in a new --output_dir"
        )
    if show and len(kept) < len(files):
        why = "lie nearest to a training image"
        if config.drop_nearest == BALANCED:
            why = f"lie nearer to a training image than {len(choosers(split))} held-out images have it by chance"
        say(f"{len(files) - len(kept)} of {len(files)} drawn images {why}: left out (--drop_nearest)")
    rows = [
        {"file_name": files[i].name, "text": captions[i], "digest": pixel_digest(read_image(files[i]))}
        for i in sorted(kept)
    ]
    write_atomically(folder / TABLE, "".join(json.dumps(row) + "\n" for row in rows))


def _parts(numbers: range, size: int) -> Iterator[range]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def _delete_dropped(folder: Path) -> None:
    used = {row["file_name"] for row in _rows(folder)}
    for file in folder.glob("*.png"):
        if file.name not in used:
            file.unlink()


def _rows(folder: Path) -> list[dict[str, str]]:
    try:
        return [dict(row) for _, row in json_lines(read_text(folder / TABLE))]
    except (Unreadable, OSError, ValueError, TypeError) as error:
        raise _damaged(folder, f"{TABLE}: {error}") from error


def drawn_captions(run: Path) -> list[str]:
    """Of the images that are used.

    Raises:
        CheckpointError: a damaged table.
    """
    return [row["text"] for row in _rows(run / FOLDER)]


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{folder} is damaged ({reason}); delete the folder, and its images are drawn again")


def _nearest_to_training(config: TrainConfig, split: Split, files: Sequence[Path]) -> set[int]:
    """The images to drop: those whose nearest training image is much nearer than the next ones (adaptive distances of
    Carlini et al. 2023, section 5); of ``BALANCED`` those of ``unbalanced``."""
    if config.drop_nearest == BALANCED:
        trained, held_out = (distances_to(part, config, files).amin(1) for part in (split.train, choosers(split)))
        return unbalanced(trained, held_out, len(split.train), len(choosers(split)))
    count = min(round(float(config.drop_nearest) * len(files)), len(files) - 2)
    if not count:
        return set()
    nearest = adaptive_ratios(distances_to(split.train, config, files)).amin(1)
    return set(nearest.argsort(stable=True)[:count].tolist())


def choosers(split: Split) -> list[Sample]:
    """The held-out images that balance is measured by."""
    return [s for s in split.cells["reference"] if chooses(s)]


def check_choosers(config: TrainConfig, split: Split) -> None:
    """See, before anything is trained, whether there are images to measure balance by.

    Raises:
        ConfigError: too few.
    """
    if config.drop_nearest == BALANCED and len(choosers(split)) < FEWEST_CHOOSERS:
        raise ConfigError(
            f"--drop_nearest got '{BALANCED}', which needs {FEWEST_CHOOSERS} held-out images or more, and has "
            f"{len(choosers(split))} (half of the reference images): give --reference_size {3 * FEWEST_CHOOSERS} or "
            "more, or a share such as 0.1"
        )


def unbalanced(trained: torch.Tensor, held_out: torch.Tensor, images: int, others: int) -> set[int]:
    """The images to drop so that no more of them lie nearer to a training than to a held-out image than there would be
    if nothing was learned by heart: images / (images + others), since the nearest of all would be any of them.

    With k of n nearer to a training image, j of them must go: (k - j) / (n - j) <= images / (images + others). Those
    go whose distances are in the smallest ratio.

    Args:
        trained, held_out: distance [n] of each to the nearest training image, and to the nearest held-out one.
        images, others: how many there are of both.
    """
    ratios, n = (trained + 1e-12) / (held_out + 1e-12), len(trained)  # two distances of 0 are equal
    nearer = int((trained < held_out).sum())
    too_many = nearer * (images + others) - n * images
    count = min(max(0, -(-too_many // others)), n - 2)
    return set(ratios.argsort(stable=True)[:count].tolist())


def distances_to(samples: Sequence[Sample], config: TrainConfig, files: Sequence[Path]) -> torch.Tensor:
    """Of every drawn image (``files``) to every one of ``samples``, by their pixels: [drawn, samples]."""
    source, resolution = open_source(config), config.resolution or 0

    def eight_bits(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels / 2 + 0.5) * 255).round().byte()

    drawn = eight_bits(load_pixels((read_image(file) for file in files), resolution))
    columns = []
    for part in progress(list(_parts(range(len(samples)), COMPARED_AT_ONCE)), "look for copies", "batch"):
        real = load_pixels((source.read(samples[i].file) for i in part), resolution)
        columns.append(pixel_distances(drawn, eight_bits(real))[1])
    return torch.cat(columns, 1)


def synthetic_cell(config: TrainConfig, model: LatentDiffusion, prepared: Preparation, cache: Cache | None) -> Cell:
    """The images of ``draw_images``, encoded.

    Raises:
        CheckpointError: one is gone, or not what was drawn.
    """
    folder = Path(config.output_dir) / FOLDER
    samples = []
    for row in _rows(folder):
        try:
            picture = read_image(folder / row["file_name"])
        except (DataError, KeyError, OSError) as error:
            raise _damaged(folder, str(error)) from error
        if pixel_digest(picture) != row["digest"]:
            raise _damaged(folder, f"{row['file_name']} is another image than was drawn")
        samples.append(Sample(row["file_name"], row["text"], row["digest"], picture.size))
    source = ImageFolder(DataOptions(train_data_dir=str(folder), folder_repeats=False), FOLDER)
    return encode(model, source, samples, prepared, cache)
