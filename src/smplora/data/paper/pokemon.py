"""Pokemon (Pinkney 2022): drawings with captions by BLIP. The paper takes all of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from smplora.config.data import DataOptions
from smplora.data.folder import ImageFolder
from smplora.data.paper.drawing import Selection
from smplora.data.paper.files import Originals, images_in
from smplora.data.source import ImageSource
from smplora.data.table import ImageTable


class Pokemon(Originals):
    """A folder of images with captions, or a data set of the datasets library."""

    title = "Pokemon BLIP captions"
    parts = "its 833 images with captions, or its parquet files, or what save_to_disk wrote"
    source_and_licence = (
        "On the hub it was lambdalabs/pokemon-blip-captions, which may be withdrawn; a copy that you have will do. "
        "Licence of the captions: CC BY-NC-SA 4.0; the drawings belong to The Pokemon Company."
    )

    def scan(self) -> None:
        """See Originals.scan."""
        pictures = any(
            images_in(folder) for folder in (self.source, *(f for f in self.source.rglob("*") if f.is_dir()))
        )
        folder = str(self.source)
        self.images: ImageSource = (
            ImageFolder(DataOptions(train_data_dir=folder, folder_repeats=False), "source")
            if pictures
            else ImageTable(DataOptions(dataset_name=folder))
        )
        self.is_folder = pictures
        problems: list[str] = []
        captions = self.images.captions(problems)
        if problems:
            raise self.refusal(*problems)
        self.names = list(captions)
        self.captions = {name: text for name, text in captions.items() if text}
        self.facts = {"images": len(self.names), "captions": len(self.captions)}

    def draws(self) -> list[Selection]:
        """See Originals.draws."""
        if len(self.names) != self.subset.images:
            raise self.refusal(
                f"--source '{self.source}' has {len(self.names)} images, {self.subset.title} {self.subset.images}; any "
                "folder of images can be trained on with 'smplora train --train_data_dir' as it is"
            )
        return [Selection("all", self.subset.images, tuple(self.names))]

    def read(self, name: str) -> Image.Image:
        return self.images.read(name)

    def file(self, name: str) -> Path | None:
        return self.source / name if self.is_folder else None

    def place(self, name: str, group: str) -> str:
        return f"images/{name}" if self.is_folder else f"images/{name}.png"
