"""CelebA (Liu et al. 2015): photographs of people, several of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from smplora.data.paper.drawing import Selection, counts, shuffled
from smplora.data.paper.files import Originals, images_in

IDENTITIES, ATTRIBUTES, IMAGES = "identity_CelebA.txt", "list_attr_celeba.txt", "img_align_celeba"
PLACES = ("", "Anno", "Img")  # the folders of the download are Anno and Img


class CelebA(Originals):
    """People with enough images in random order; of each, images in random order."""

    title = "CelebA"
    parts = f"{IMAGES}/, {IDENTITIES} and, for celeba_gender, {ATTRIBUTES}"
    source_and_licence = (
        "It is at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: Img/img_align_celeba.zip ('Align&Cropped "
        "Images'), Anno/list_attr_celeba.txt and Anno/identity_CelebA.txt (its owners give the identities on request). "
        "For non-commercial research only; copies must not be passed on."
    )

    def scan(self) -> None:
        """See Originals.scan."""
        parts = [IMAGES, IDENTITIES, *([ATTRIBUTES] if self.subset.majority_groups is not None else [])]
        places = [self.find(part, PLACES, archive=f"{IMAGES}.zip" if part == IMAGES else None) for part in parts]
        if problems := [part for part in places if isinstance(part, str)]:
            raise self.refusal(*problems)
        folder, identities, *attributes = (part for part in places if isinstance(part, Path))
        if (folder / IMAGES).is_dir():  # unpacked into a folder of the same name
            folder = folder / IMAGES
        self.folder = folder.relative_to(self.source).as_posix()
        self.people = self._people(identities, images_in(folder))
        self.men = self._men(attributes[0]) if attributes else {}

    def _people(self, table: Path, there: set[str]) -> dict[str, list[str]]:
        people: defaultdict[str, list[str]] = defaultdict(list)
        listed = 0
        for number, words in _rows(table):
            if len(words) != 2 or not words[1].isdecimal():
                raise self.refusal(f"{table.name} line {number} is not 'FILE PERSON', as in '000001.jpg 2880'")
            listed += 1
            if words[0] in there:
                people[words[1]].append(words[0])
        images = sum(map(len, people.values()))
        self.facts = {"images": images, "images_listed_but_missing": listed - images, "people": len(people)}
        return dict(people)

    def _men(self, table: Path) -> dict[str, bool]:
        """By person: whether most of the images are of a man; the table speaks of images and errs now and then. Those
        with a draw are left out."""
        rows = iter(_rows(table))
        next(rows, None)  # how many images
        header = next(rows, (0, []))[1]
        if "Male" not in header:
            raise self.refusal(f"{table.name} has no column 'Male' in its second line")
        column = header.index("Male") + 1
        votes: dict[str, int] = {}
        for number, words in rows:
            if len(words) != len(header) + 1 or words[column] not in ("1", "-1"):
                raise self.refusal(f"{table.name} line {number} is not a file name with {len(header)} times 1 or -1")
            votes[words[0]] = int(words[column])
        sums = {person: sum(votes.get(image, 0) for image in images) for person, images in self.people.items()}
        return {person: total > 0 for person, total in sums.items() if total}

    def draws(self) -> list[Selection]:
        """See Originals.draws."""
        subset, seed = self.subset, self.config.seed
        able = [person for person, images in self.people.items() if len(images) >= subset.most]
        self.facts[f"people_with_{subset.most}_images"] = len(able)
        able = shuffled(able, seed, "celeba", "people")
        if subset.majority_groups is None:
            chosen = self._first(able, subset.groups, "people")
        else:
            male = self.config.majority == "male"
            more = [p for p in able if self.men.get(p) is male]
            fewer = [p for p in able if self.men.get(p) is (not male)]
            names = ("men", "women") if male else ("women", "men")
            chosen = [
                *self._first(more, subset.majority_groups, names[0]),
                *self._first(fewer, subset.groups - subset.majority_groups, names[1]),
            ]
        each = counts(subset.groups, subset.fewest, subset.most, subset.images, seed, "celeba", "counts")
        return [
            Selection(
                person,
                n,
                tuple(f"{self.folder}/{image}" for image in shuffled(self.people[person], seed, "celeba", person)),
            )
            for person, n in zip(chosen, each, strict=True)
        ]

    def _first(self, people: list[str], number: int, called: str) -> list[str]:
        if len(people) < number:
            raise self.refusal(
                f"{self.subset.title} takes {number} {called} with {self.subset.most} images or more; "
                f"--source '{self.source}' has {len(people)} ({self.facts['people']} people, "
                f"{self.facts['images']} images, {self.facts['images_listed_but_missing']} listed but missing)"
            )
        return people[:number]


def _rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and words of every line that has any."""
    with table.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if words := line.split():
                yield number, words
