"""Prior preservation (Ruiz et al. 2023, section 3.3): images of the class, drawn by the base model before training."""

from __future__ import annotations

from pathlib import Path

from smplora.config.data import DataOptions
from smplora.config.dreambooth import DreamBoothOptions
from smplora.core.cache import Cache
from smplora.core.console import bar, say_once
from smplora.core.files import write_atomically
from smplora.core.random_streams import stream_seed
from smplora.data.cells import Cell
from smplora.data.encode import encode
from smplora.data.folder import ImageFolder
from smplora.data.listing import list_folder
from smplora.data.pictures import strip
from smplora.data.pool import read_samples
from smplora.data.prepare import Preparation
from smplora.models.adapted import Adapted

FOLDER = "class_images"  # in the run folder
STEPS = 25  # of DDIM


def prior_cell(
    options: DreamBoothOptions,
    run: Path,
    seed: int,
    guidance: float,
    adapted: Adapted,
    prepared: Preparation,
    cache: Cache | None,
    progress: bool,
) -> Cell:
    """``--num_class_images`` images of ``--class_prompt``, encoded; the first by name where there are more.

    Args:
        run: the run folder, where images lie unless ``--class_data_dir`` says where.
        prepared: of the private images; these have their resolution.

    Raises:
        DataError: images that cannot be read.
    """
    folder = Path(options.class_data_dir or run / FOLDER)
    draw_missing(options, seed, guidance, prepared.resolution, adapted, folder, progress)
    images = DataOptions(train_data_dir=str(folder), default_caption=options.class_prompt, folder_repeats=False)
    source = ImageFolder(images, "class_data_dir")
    samples = sorted(read_samples(source), key=lambda s: s.file)
    if len(samples) > options.num_class_images:
        say_once(f"{len(samples)} images of the class; of them --num_class_images {options.num_class_images} are used")
        samples = samples[: options.num_class_images]
    return encode(adapted.model, source, samples, prepared.plain(), cache)


def draw_missing(
    options: DreamBoothOptions,
    seed: int,
    guidance: float,
    resolution: int,
    adapted: Adapted,
    folder: Path,
    progress: bool,
) -> None:
    """Image k of the class, k counting the images in ``folder``, starts from noise that is a function of (seed, k); a
    run that was killed goes on where it stopped."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    have = len(list_folder(folder, "class_data_dir").images)
    numbers = range(have, options.num_class_images)
    if not numbers:
        return
    total, model = options.num_class_images, adapted.model
    with adapted.without(), bar(total, "draw class images", unit="image", initial=have, show=progress) as display:
        for start in numbers[:: options.sample_batch_size]:
            part = range(start, min(start + options.sample_batch_size, total))
            pictures = model.generate(
                [options.class_prompt or ""] * len(part),
                [stream_seed(seed, "class image", k) for k in part],
                resolution=resolution,
                num_inference_steps=STEPS,
                guidance_scale=guidance,
            )
            for k, picture in zip(part, pictures, strict=True):
                write_atomically(folder / f"class-{k:05d}.png", strip(picture[None]))
            display.update(len(part))
