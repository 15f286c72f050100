"""Does anything that is published hold a trace of the private images?

    python benchmarks/traces.py [--only lora smp_lora ...]     -> benchmarks/results/traces.json

Pictures of random coloured squares with names, captions and a folder that occur nowhere else are trained on, with
each objective and adaptation; each adapter is audited, evaluated, exported and reported for others (--shareable).
Every file that goes out is then searched for the needles: names, captions and their rare words, folders, user and
host name, seeds (who knows the images and the split's seed knows the members), digests of files and of pixels; as
UTF-8, Latin-1, UTF-16 and hexadecimal, escaped for JSON, HTML and addresses; in the file as it is and in whatever
base64, zip, gzip and zlib in it unpack to. Pictures are compared with the private ones in small: a thumbnail is found
too. The search itself is tried on needles that are planted ("control").
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import os
import random
import re
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from common import command, parser, write_result
from smplora.cli.main import main as smplora
from smplora.results.record import plain

PICTURES, SIDE, SQUARES = 24, 32, 4
SEED, SPLIT_SEED = 918_273_645, 564_738_291
NEAR = 30.0  # mean difference of colours in small, of 255, below which a picture shows a private one
DEEPEST = 3  # an archive in base64 in an archive
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
STARTS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
KINDS = {
    "lora": [], "mp_lora": ["--objective", "mp_lora"], "smp_lora": ["--objective", "smp_lora"],
    "distill_lora": ["--objective", "distill_lora", "--teacher_steps", "2"],
    "synth_lora": ["--objective", "synth_lora", "--num_synthetic_images", 4, "--synthetic_inference_steps", 1],
    "dp_lora": ["--objective", "dp_lora", "--noise_multiplier", "1"],
    "dora": ["--use_dora", "true", "--train_text_encoder", "true"],
    "full": ["--adaptation", "full"],
    "dreambooth": ["--adaptation", "dreambooth", "--with_prior_preservation", "false"],
    "textual_inversion": ["--adaptation", "textual_inversion", "--initializer_token", "digit"],
}  # fmt: skip
TRAIN = ["--pretrained_model_name_or_path", "tiny", "--seed", SEED, "--split_seed", SPLIT_SEED,
         "--aux_size", 4, "--reference_size", 8, "--train_batch_size", 2,
         "--max_train_steps", 2, "--checkpointing_steps", 2, "--validation_steps", 2,
         "--validation_inference_steps", 1, "--monitor_steps", 0, "--run_page", "false", "--device", "cpu"]  # fmt: skip
RANK = ["--rank", 2]
Small = NDArray[np.float64]


class Private(NamedTuple):
    """The pictures, and what must not be found of them."""

    folder: Path
    needles: tuple[tuple[str, bytes], ...]  # kind, bytes in lower case
    small: Small  # [pictures, SQUARES * SQUARES * 3]
    files: tuple[Path, ...]


def in_small(picture: Image.Image) -> Small:
    """The means of a picture's squares, one row."""
    return np.asarray(picture.convert("RGB").resize((SQUARES, SQUARES), Image.Resampling.BOX), dtype=float).reshape(-1)


def private_pictures(folder: Path) -> Private:
    """Write pictures, with names, captions and digests as needles."""
    rng = random.Random(SEED)
    folder.mkdir(parents=True)
    texts: list[tuple[str, str]] = [
        ("folder", "Zwölf-Hollyquist"),
        ("folder", str(folder)),
        ("folder", folder.parent.name),
    ]
    texts += [("user", "wombat_ferrule"), ("seed", str(SEED)), ("seed", str(SPLIT_SEED))]
    host = socket.gethostname()
    texts += [("host", host)] if len(host) > 5 else []
    raw: list[tuple[str, bytes]] = []
    rows, small, files = [], [], []
    for _ in range(PICTURES):
        squares = np.array([rng.randrange(256) for _ in range(SQUARES * SQUARES * 3)], dtype=np.uint8)
        picture = Image.fromarray(squares.reshape(SQUARES, SQUARES, 3))
        picture = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
        name, word = f"quillon_{rng.randrange(10**8):08d}.png", f"vexat{rng.randrange(10**8):08d}ß"
        caption = f"a {word} beside the ferrous gannet"
        picture.save(folder / name)
        rows.append(json.dumps({"file_name": name, "text": caption}))
        texts += [("name", name), ("name", Path(name).stem), ("caption", caption), ("caption", word)]
        for content in ((folder / name).read_bytes(), picture.tobytes()):
            raw += [("digest", hashlib.new(h, content).digest()) for h in ("sha256", "md5", "sha1", "blake2b")]
        raw.append(("pixels", picture.tobytes()[:96]))
        small.append(in_small(picture))
        files.append(folder / name)
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    needles = {(kind, form) for kind, text in texts for form in forms(text)}
    needles |= {(kind, form) for kind, value in raw for form in (value, value.hex().encode(), value[:8].hex().encode())}
    return Private(folder, tuple(sorted((k, n.lower()) for k, n in needles)), np.stack(small), tuple(files))


def forms(text: str) -> set[bytes]:
    """A text as files may write it."""
    written = {text, json.dumps(text)[1:-1], html.escape(text), quote(text), quote(text, safe=""), plain(text)}
    found = {form.encode() for form in written}
    found |= {text.encode(code) for code in ("utf-16-le", "utf-16-be")} | {text.encode().hex().encode()}
    return found | {text.encode("latin-1", "replace")}


def views(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """The content, and whatever in it unpacks."""
    yield content
    if depth >= DEEPEST:
        return
    inner: list[bytes] = []
    for match in BASE64.finditer(content):
        for start in range(4):  # where in a run it began is unknown
            run = match[0][start:].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
            run = run[: len(run) - (len(run) % 4 == 1)]
            inner.append(base64.b64decode(run + b"=" * (-len(run) % 4)))
    for match in ZLIB.finditer(content):
        inner.append(_unpacked(zlib.decompressobj(), content[match.start() :]))
    for place in (m.start() for m in re.finditer(rb"\x1f\x8b\x08", content)):
        inner.append(_unpacked(zlib.decompressobj(31), content[place:]))
    if b"PK\x03\x04" in content:
        try:
            with zipfile.ZipFile(io.BytesIO(content[content.index(b"PK\x03\x04") :])) as archive:
                inner += [archive.read(name) for name in archive.namelist()]
        except (zipfile.BadZipFile, OSError, ValueError):
            pass
    for part in dict.fromkeys(inner):
        if len(part) >= 8:
            yield from views(part, depth + 1)


def _unpacked(unpacker: Any, content: bytes) -> bytes:
    try:
        found: bytes = unpacker.decompress(content, 2**26)
        return found
    except zlib.error:
        return b""


def pictures(content: bytes) -> Iterator[Image.Image]:
    """Every picture whose file begins somewhere in ``content``."""
    for start in STARTS:
        for place in (m.start() for m in re.finditer(re.escape(start), content)):
            try:
                with Image.open(io.BytesIO(content[place:])) as picture:
                    yield picture.convert("RGB")
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                continue


def traces(content: bytes, private: Private) -> tuple[set[str], int]:
    """Kinds of needles in a file, and how many pictures were compared."""
    found, seen = set(), 0
    for view in views(content):
        lower = view.lower()
        found |= {kind for kind, needle in private.needles if needle in lower}
        for picture in pictures(view):
            seen += 1
            if np.abs(private.small - in_small(picture)).mean(1).min() < NEAR:
                found.add("picture")
    return found, seen


def controls(private: Private, carrier: bytes) -> dict[str, bool]:
    """Whether needles that are planted in a published file are found."""
    caption = json.loads((private.folder / "metadata.jsonl").read_text().splitlines()[0])["text"]
    name, text = private.files[1].name.encode(), caption.encode()
    picture = Image.open(private.files[2])

    def saved(kind: str, scale: int = 1, **options: Any) -> bytes:
        buffer = io.BytesIO()
        picture.resize((SIDE // scale, SIDE // scale)).save(buffer, kind, **options)
        return buffer.getvalue()

    def zipped(content: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", content)
        return buffer.getvalue()

    note = PngImagePlugin.PngInfo()
    note.add_text("comment", caption, zip=True)
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "PNG", pnginfo=note)
    file_digest = hashlib.sha256(private.files[3].read_bytes()).hexdigest()
    planted: dict[str, tuple[str, bytes]] = {
        "caption": ("caption", text),
        "name": ("name", name),
        "upper case": ("name", name.upper()),
        "UTF-16": ("caption", caption.encode("utf-16-le")),
        "hexadecimal": ("caption", text.hex().encode()),
        "JSON": ("caption", json.dumps(caption).encode()),
        "address": ("folder", quote(str(private.folder)).encode()),
        "base64": ("caption", base64.b64encode(b"x" + text)),
        "base64 for addresses": ("name", base64.urlsafe_b64encode(name)),
        "zlib": ("caption", zlib.compress(text)),
        "gzip": ("caption", gzip.compress(text)),
        "zip": ("name", zipped(name)),
        "zip in base64": ("caption", base64.b64encode(zipped(text))),
        "text in a PNG": ("caption", blank.getvalue()),
        "digest": ("digest", file_digest.encode()),
        "seed": ("seed", str(SEED).encode()),
        "user": ("user", b"/home/wombat_ferrule/a"),
        "picture": ("picture", saved("PNG")),
        "thumbnail in JPEG": ("picture", saved("JPEG", 2, quality=90)),
        "picture in base64": ("picture", base64.b64encode(saved("PNG"))),
        "WebP": ("picture", saved("WEBP")),
    }
    half = len(carrier) // 2
    return {
        title: kind in traces(carrier[:half] + b" " + needle + b" " + carrier[half:], private)[0]
        for title, (kind, needle) in planted.items()
    }


def run(*words: object) -> str:
    """A command in this process; what it printed."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = smplora([str(word) for word in words])
    if status not in (0, 3):  # 3: the squares of 16 images may tell members apart
        raise SystemExit(f"{' '.join(map(str, words))} ended with exit status {status}: {said.getvalue()}")
    return said.getvalue()


def published(kind: str, private: Private, folder: Path) -> dict[str, bytes]:
    """Train, audit and evaluate; every file that goes out, by name."""
    adapter, out = folder / "run", folder / "out"
    own = [*KINDS[kind], *([] if "--adaptation" in KINDS[kind] else RANK)]
    run("train", "--train_data_dir", private.folder, "--output_dir", adapter, *TRAIN, *own)
    quick = ["--attacks", "[loss]", "--num_timesteps", 1, "--noise_pairs", 1, "--device", "cpu"]
    run("audit", adapter, *quick)
    run("evaluate", adapter, "--num_images", 20, "--num_inference_steps", 1, "--device", "cpu")
    run("export", "--adapter", adapter, "--output_dir", out / "export")
    run("report", adapter, "--shareable", "true", "--output", out / "report.html")
    steps = adapter / "checkpoints" / "checkpoint-2"
    run("export", "--adapter", steps, "--output_dir", out / "checkpoint")
    drafts = run("push", "--adapter", adapter, "--repo_id", "a/b", "--dry_run", "true")
    files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    return {**files, "said by push": drafts.encode()}


def main(arguments: list[str] | None = None) -> None:
    """Search and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME")
    args = options.parse_args(arguments)
    record: dict[str, Any] = {"command": command(options, args)}
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        root = Path(temporary) / "home" / "wombat_ferrule"
        private = private_pictures(root / "Zwölf-Hollyquist" / "originals")
        for name in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(name, "wombat_ferrule")
        patch.setenv("SMPLORA_CACHE", os.fspath(root / "cache"))
        for kind in args.only:
            files = published(kind, private, root / kind)
            found: dict[str, list[str]] = {}
            seen = 0
            for name, content in files.items():
                kinds, compared = traces(content, private)
                seen += compared
                found |= {name: sorted(kinds)} if kinds else {}
            rows[kind] = {"files": len(files), "bytes": sum(map(len, files.values())), "pictures": seen, "found": found}
            print(kind, rows[kind], flush=True)
        last = next(content for name, content in files.items() if name.endswith("report.html"))
        record["needles"] = {kind: sum(k == kind for k, _ in private.needles) for kind, _ in private.needles}
        record["control"] = controls(private, last)
    record["found"] = sum(len(row["found"]) for row in rows.values())
    write_result(args.results, "traces", {**record, "by_adapter": rows})


if __name__ == "__main__":
    main()
