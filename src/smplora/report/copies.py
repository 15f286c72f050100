"""Copies of training images: read from audit.json and the private files beside it, and put into cells and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from smplora.core.files import read_json
from smplora.core.wording import decimal, p_text, percent
from smplora.report.parse import estimate, number, one_of, plain
from smplora.report.rows import Cell
from smplora.report.subject import CopyMeasure, CopyPair, Counted, Estimate, Memorisation, Prompts
from smplora.report.wording import NOT_MEASURED, interval

HEADERS = (
    "Near-copies are",
    "Training images copied",
    "Held-out images copied",
    "More than held-out (p)",
    "Generations that copy training images",
    "Generations that copy held-out images",
    "Nearest training / nearest held-out image",
)
PROMPT_HEADERS = ("Training captions", "Captions of held-out images", "AUC")
SCORES = {"adapter": "With the adapter", "base": "Base model (control)", "adapter_to_base": "Adapter over base model"}
SIDES = ("train", "held_out")
COLUMNS = ("Generated", "Nearest training image", "Nearest held-out image")


def read_memorisation(data: Any, folder: Path) -> Memorisation | None:
    """The "memorisation" object of audit.json, with the pictures and captions in the same folder, if there are any."""
    if not data:
        return None
    images, settings = data["images"], data["settings"]
    guidance = float(settings["guidance"])
    guided = f"guidance {guidance:g}" if guidance != 1 else "no guidance"
    about = (
        f"{int(images['generated'])} images generated from training captions ({int(settings['images'])} for each "
        f"training image, {int(settings['steps'])} steps, {guided}), compared "
        f"with {int(images['train'])} training and {int(images['held_out'])} held-out images."
    )
    pairs, captions = _private(folder)
    return Memorisation(
        found=one_of(data["found"], ("copies", "nearer", None)),
        sentence=plain(data["sentence"]),
        about=about if settings["encoder"] else f"{about} Embeddings were not compared: no --attack_encoder.",
        measures=tuple(_measure(m) for m in data["measures"]),
        prompts=_prompts(data["prompts"]),
        pairs=pairs,
        captions=captions,
    )


def _measure(data: Mapping[str, Any]) -> CopyMeasure:
    test = data["nearer_test"]
    ratio = estimate({"value": test["ratio"]["value"], **test["ratio"]["chance"]}) if test else None
    return CopyMeasure(
        title=plain(data["title"]),
        reference=plain(data["reference"]),
        bibtex=str(data["bibtex"]).strip(),
        threshold=float(data["threshold"]),
        images={side: _counted(data["images"][side]) for side in SIDES},
        generations={side: _counted(data["generations"][side]) for side in SIDES},
        p=float(data["p"]),
        ratio=ratio,
        ratio_p=float(test["p"]) if test else None,
    )


def _counted(data: Mapping[str, Any]) -> Counted:
    return Counted(int(data["count"]), int(data["of"]), estimate(data))


def _prompts(data: Mapping[str, Any]) -> Prompts:
    scores = {
        name: (number(found["train"]), number(found["held_out"]), estimate(found["auc"]))
        for name, found in data["scores"].items()
    }
    return Prompts(plain(data["reference"]), str(data["bibtex"]).strip(), scores, plain(data["reason"] or ""))


def _private(folder: Path) -> tuple[tuple[CopyPair, ...], tuple[tuple[str, float, float], ...]]:
    try:
        about = read_json(folder / "memorised.json")
        with Image.open(folder / "memorised.png") as file:
            grid = file.convert("RGB")
        side = grid.width // len(COLUMNS)
        if grid.height != side * len(about["pairs"]):
            return (), ()
        pairs = []
        for row, pair in enumerate(about["pairs"]):
            pictures = []
            for column in range(len(COLUMNS)):
                buffer = BytesIO()
                left, top = side * column, side * row
                grid.crop((left, top, left + side, top + side)).save(buffer, format="PNG")
                pictures.append(buffer.getvalue())
            pairs.append(CopyPair(tuple(pictures), _note(pair)))
        captions = tuple((plain(c["caption"]), float(c["adapter"]), float(c["base"])) for c in about["captions"])
        return tuple(pairs), captions
    except (OSError, ValueError, KeyError, TypeError):
        return (), ()


def _note(pair: Mapping[str, Any]) -> str:
    near, other = pair["train"], pair["held_out"]
    measured = [name for name in ("tiles", "embedding") if near[name] is not None]
    distances = "; ".join(
        f"{name} {decimal(float(near[name]), 2)}, held-out {decimal(float(other[name]), 2)}" for name in measured
    )
    own = "from its own caption" if pair["of_its_own_caption"] else "from another image's caption"
    return f"{plain(pair['caption'])}; {own}; {distances}"


def measure_rows(found: Memorisation) -> list[tuple[str, tuple[Cell, ...]]]:
    """Title and cells that go with ``HEADERS``."""
    return [(m.title, _cells(m)) for m in found.measures]


def _cells(m: CopyMeasure) -> tuple[Cell, ...]:
    return (
        Cell(f"at most {m.threshold:g}", note=m.reference),
        *(_counted_cell(m.images[side]) for side in SIDES),
        Cell(p_text(m.p)),
        *(_counted_cell(m.generations[side]) for side in SIDES),
        _ratio_cell(m.ratio, m.ratio_p),
    )


def _counted_cell(counted: Counted) -> Cell:
    text = f"{counted.count:,} of {counted.of:,}"
    return Cell(text, interval(counted.share, 0, 100), f"{percent(counted.share.value or 0.0)}")


def _ratio_cell(ratio: Estimate | None, p: float | None) -> Cell:
    if ratio is None or ratio.value is None or p is None:
        return Cell("\N{EN DASH}")
    chance = f"chance {decimal(ratio.low or 0.0, 2)} to {decimal(ratio.high or 0.0, 2)}; p {p_text(p)}"
    return Cell(decimal(ratio.value, 2), note=chance)


def prompt_rows(found: Memorisation) -> list[tuple[str, tuple[Cell, ...]]]:
    """Title and cells that go with ``PROMPT_HEADERS``."""
    rows = []
    for name, (train, held_out, auc) in found.prompts.scores.items():
        means = (Cell("", note=NOT_MEASURED) if v is None else Cell(decimal(v, 2)) for v in (train, held_out))
        area = Cell("\N{EN DASH}") if auc.value is None else Cell(decimal(auc.value, 2), interval(auc))
        rows.append((SCORES.get(name, name), (*means, area)))
    return rows


def galleries(
    found: Memorisation, uris: Callable[[Sequence[bytes]], tuple[str, ...]]
) -> list[tuple[list[tuple[str, str]], str]]:
    """Of each pair its pictures (title, data URI) and the note."""
    return [(list(zip(COLUMNS, uris(pair.pictures), strict=True)), pair.note) for pair in found.pairs]


def cited(found: Memorisation) -> list[str]:
    """BibTeX of what was used."""
    return [entry for entry in (*(m.bibtex for m in found.measures), found.prompts.bibtex) if entry]
