"""AFHQ (Choi et al. 2020): faces of cats, dogs and wild animals."""

from __future__ import annotations

from pathlib import Path

from smplora.data.paper.drawing import Selection, shuffled
from smplora.data.paper.files import Originals, images_in

CLASSES = ("cat", "dog", "wild")


class AFHQ(Originals):
    """Equally many of each class."""

    title = "AFHQ"
    parts = "train/cat, train/dog and train/wild"
    source_and_licence = (
        "It comes with https://github.com/clovaai/stargan-v2 ('bash download.sh afhq-dataset'). "
        "Licence: CC BY-NC 4.0, non-commercial."
    )

    def scan(self) -> None:
        """See Originals.scan."""
        places = ("", "afhq", "afhq_v2")
        folders = [self.find(f"train/{name}", places, archive="afhq.zip") for name in CLASSES]
        if problems := [part for part in folders if isinstance(part, str)]:
            raise self.refusal(*problems)
        self.images = {
            name: [(folder / image).relative_to(self.source).as_posix() for image in images_in(folder)]
            for name, folder in zip(CLASSES, (f for f in folders if isinstance(f, Path)), strict=True)
        }
        self.facts = {name: len(images) for name, images in self.images.items()}

    def draws(self) -> list[Selection]:
        """See Originals.draws."""
        each = self.subset.most
        if short := [f"{name} {n}" for name, n in self.facts.items() if n < each]:
            raise self.refusal(
                f"{self.subset.title} takes {each} images of each class; --source '{self.source}' has "
                f"{', '.join(short)}"
            )
        return [
            Selection(name, each, tuple(shuffled(images, self.config.seed, "afhq", name)))
            for name, images in self.images.items()
        ]

    def place(self, name: str, group: str) -> str:
        return f"images/{group}/{Path(name).name}"  # for '--default_caption "a photo of a {class}"'
