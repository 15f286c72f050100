"""MS-COCO (Lin et al. 2014): photographs with five captions each, written by people."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from smplora.core.reading import read_json
from smplora.data.paper.drawing import Selection, shuffled
from smplora.data.paper.files import Originals, images_in

SPLITS = ("train2017", "train2014", "val2017", "val2014")  # the first one that is there


class MSCOCO(Originals):
    """Any images that have captions."""

    title = "MS-COCO"
    parts = "train2017/ and annotations/captions_train2017.json"
    source_and_licence = (
        "It is at https://cocodataset.org/#download: train2017.zip ('2017 Train images') and "
        "annotations_trainval2017.zip; those of 2014 and the validation images are taken too. Annotations: CC BY 4.0; "
        "each image has the licence of its owner at Flickr, which the annotations name."
    )

    def scan(self) -> None:
        """See Originals.scan."""
        tables = {split: self.find(f"annotations/captions_{split}.json") for split in SPLITS}
        split = next((split for split, table in tables.items() if isinstance(table, Path)), SPLITS[0])
        places = [tables[split], self.find(split, ("", "images"), archive=f"{split}.zip")]
        if problems := [part for part in places if isinstance(part, str)]:
            raise self.refusal(*problems)
        table, folder = (part for part in places if isinstance(part, Path))
        there, own = images_in(folder), folder.relative_to(self.source).as_posix()
        captions: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        try:
            content = read_json(table)
            names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
            for note in content["annotations"]:
                captions[int(note["image_id"])].append((int(note["id"]), str(note["caption"]).strip()))
        except (ValueError, KeyError, TypeError) as error:
            raise self.refusal(f"{table.name} is not a file of COCO's captions ({type(error).__name__})") from error
        remarks = {
            f"{own}/{names[i]}": [text for _, text in sorted(captions[i])] for i in captions if names.get(i) in there
        }
        self.split, self.names = split, list(remarks)
        self.facts = {"images": len(remarks), "images_listed_but_missing": len(set(names.values()) - there)}
        if self.config.captions != "none":
            self.captions = {n: texts if self.config.captions == "all" else texts[0] for n, texts in remarks.items()}

    def draws(self) -> list[Selection]:
        """See Originals.draws."""
        number = self.subset.images
        if len(self.names) < number:
            raise self.refusal(
                f"{self.subset.title} takes {number} images; --source '{self.source}' has {len(self.names)} with "
                f"captions in {self.split} ({self.facts['images_listed_but_missing']} listed but missing)"
            )
        return [Selection(self.split, number, tuple(shuffled(self.names, self.config.seed, "mscoco", self.split)))]
