"""What ``--scale sd15`` works with, and where it comes from: data sets, base model, networks. All of it is looked for
before anything starts, because what is missing would else be found out after days."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from smplora.config.catalogue.paper_data_sets import ORIGINALS, SUBSETS
from smplora.config.evaluate import feature_source
from smplora.config.train import TrainConfig
from smplora.core.errors import UserError
from smplora.core.registry import load
from smplora.data.pool import open_source
from smplora.experiments.reproduce.paper import published
from smplora.models.hub import at_hand

HAS_CAPTIONS = ("pokemon",)  # originals whose own captions the paper took; the others it captioned by BLIP (App. E)


def images_needed(dataset: str) -> int:
    """In all cells of one of the paper's data sets."""
    return sum(published()["splits"][dataset].values())


def images_missing(dataset: str, place: TrainConfig) -> str | None:
    """What is wrong with the images at ``place``, if they are not enough or not all captioned; else None."""
    needed, problems = images_needed(dataset), list[str]()
    try:
        source = open_source(place)
        captions = source.captions(problems)
    except UserError as error:
        return f"{dataset}: {error}"
    without = sum(not text for text in captions.values())
    if problems:
        return f"{dataset}: {source.title}: {problems[0]}"
    if len(captions) < needed:
        return f"{dataset}: {source.title} holds {len(captions)} images, the paper's cells take {needed}"
    if without:
        message = f"{dataset}: {source.title} holds {without} images without captions, of {len(captions)}"
        return f"{message}; write them: smplora caption {place.train_data_dir}" if place.train_data_dir else message
    return None


def recipes(places: dict[str, Path]) -> list[str]:
    """For each folder that is not there the command that makes it; with the first of each original, where that is to be
    had and under which licence.

    Args:
        places: folders by the paper's names.
    """
    lines, named = [], set[str]()
    for dataset, folder in places.items():
        original = SUBSETS[dataset.lower()].original
        command = f"smplora dataset {dataset.lower()} --source FOLDER_OF_{original.upper()} --output_dir {folder}"
        command += " --captions none" if original == "mscoco" else ""
        command += "" if original in HAS_CAPTIONS else f", then smplora caption {folder}"
        source = load(ORIGINALS, original, "name")
        licence = "" if original in named else f". {source.title}: {source.source_and_licence}"
        lines.append(f"'{folder}' is missing; make it: {command}{licence}")
        named.add(original)
    return lines


def networks(features: Iterable[str], encoder: str | None) -> dict[str, str]:
    """Networks by what they are for: those of ``--features`` that are not files, and the encoder of attack II-S."""
    sources = {f"the network of --features {feature_source(name)[0]}": feature_source(name)[1] for name in features}
    sources = {what: source for what, source in sources.items() if source != "bundled"}
    return sources | ({"the image encoder of II-S, an attack of Table 11": encoder} if encoder else {})


def models_missing(models: dict[str, str]) -> list[str]:
    """Models that are neither here nor in the local hub cache.

    Args:
        models: paths or hub ids by what they are for.
    """
    return [
        f"{what}, '{name}', is neither here nor in the local hub cache; --allow_download fetches it"
        for what, name in models.items()
        if not at_hand(name)
    ]
