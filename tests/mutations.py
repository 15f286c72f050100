"""Files of every kind, changed at random: whoever reads one uses it or says in a line what is wrong with it.

``kinds`` prepares a small project and says, of each kind of file that comes from outside or that a disk may damage, who
reads it. ``attempt`` calls the reader and holds it to the promise. ``benchmarks/mutations.py`` tries more of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

LONGEST_S = 10
NASTY = [
    "null", "true", "-1", "0", "1e999", "1e308", "-0.0", "NaN", "Infinity", ".inf", '""', '"x"', "[]", "{}", "[1]",
    '{"a": 1}', "9" * 5000, "9" * 25, "[" * 3000, '{"a":' * 3000, '"\\ud800"', "\x1b[31m", "\n", "\0", "\t",
    '"' + "a" * 100_000 + '"', "*a", "&a [*a]", "!!python/name:os.system", '"../../etc/passwd"', '"/dev/zero"',
    "(((a+)+)+)+$", "\u2028", "é", "no", "1_0", '"1"', "-9223372036854775809", "0x1F", "1:30", "<<", "---\n",
    '"a": 1, "a": 2', "<html>", "version https://git-lfs",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    path: Path
    read: Callable[[], object]
    binary: bool = False
    weight: int = 2  # share of the mutations
    seconds: float = LONGEST_S  # more is a hang


class Hang(Exception):
    """A reader took longer than it may."""


def attempt(read: Callable[[], object], seconds: float = LONGEST_S) -> str | None:
    """Call a reader; the message of its refusal, None where it took the file.

    Raises:
        AssertionError: a refusal that is no message for people.
        Exception: whatever else the reader ended in.
    """
    from smplora.core.errors import MOST_LISTED, UserError

    def ring(number: int, frame: object) -> None:
        raise Hang(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            read()
        return None
    except UserError as error:
        first, *more = str(error).split("\n")
        message = str(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    first, *more = message.split("\n")
    assert first.strip()
    assert all(line.startswith("  - ") for line in more), message
    assert len(more) <= MOST_LISTED + 1
    assert all(line.isprintable() and len(line) < 2100 for line in (first, *more)), message[:500]
    return first


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with one to three changes."""
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from([_flip, _cut, _insert, _repeat, _replace_value, _replace_value, _replace_value]))
        content = change(draw, content)
    return content


@st.composite
def mutated_tensors(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file whose header is changed, half of the time with its length put right."""
    if draw(st.booleans()):
        return draw(mutated(content))
    (length,) = struct.unpack("<Q", content[:8])
    header = draw(mutated(content[8 : 8 + length]))
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _place(draw: st.DrawFn, content: bytes) -> int:
    return draw(st.integers(0, len(content)))


def _flip(draw: st.DrawFn, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 8))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def _cut(draw: st.DrawFn, content: bytes) -> bytes:
    return content[: _place(draw, content)]


def _insert(draw: st.DrawFn, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + draw(st.sampled_from(NASTY)).encode(errors="surrogatepass") + content[place:]


def _repeat(draw: st.DrawFn, content: bytes) -> bytes:
    start, end = sorted((_place(draw, content), _place(draw, content)))
    return content[:end] + content[start:end][:10_000] + content[end:]


_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+]?[0-9][0-9.eE+-]*|true|false|null|[\w.]+')


def _replace_value(draw: st.DrawFn, content: bytes) -> bytes:
    """A word, number or text in place of another: what passes the parser."""
    values = list(_VALUE.finditer(content[:100_000]))
    if not values:
        return content
    value = draw(st.sampled_from(values))
    return content[: value.start()] + draw(st.sampled_from(NASTY)).encode() + content[value.end() :]


def kinds(folder: Path, run: Path, images: Path, subject: Path) -> Iterator[Kind]:
    """All kinds.

    Args:
        folder: empty, for copies.
        run: a finished training run.
        images: the images that it was trained on, with metadata.jsonl.
        subject: an audited and evaluated run.
    """
    from smplora.adapters.files.read import read_adapter
    from smplora.audit.external_scores import read_signals
    from smplora.cli.parse import parse
    from smplora.config.data import DataOptions
    from smplora.config.train import TrainConfig
    from smplora.data.pool import open_source, read_samples
    from smplora.data.split import read_split
    from smplora.results.subjects import collect
    from smplora.runs.checkpoints import damage, read_checkpoint
    from smplora.runs.folder import RunFolder, read_config
    from smplora.runs.subject import find_subject

    own, seen = folder / "run", folder / "seen"
    shutil.copytree(run, own)
    shutil.copytree(subject, seen)
    newest = sorted((own / "checkpoints").glob("checkpoint-*"))[-1]

    yield Kind("config.yaml of a run", own / "config.yaml", lambda: read_config(own, TrainConfig), weight=4)
    pool, few = folder / "pool", folder / "few"  # few: what is read again and again
    pool.mkdir()
    few.mkdir()
    for number, picture in enumerate(sorted(images.glob("*.png"))[:9]):
        shutil.copy(picture, pool / f"{number}.png")
    shutil.copy(pool / "0.png", few / "0.png")
    shutil.copy(pool / "1.png", few / "1.png")
    samples = read_samples(open_source(DataOptions(train_data_dir=str(images))))
    yield Kind("split.json", own / "split.json", lambda: read_split(own / "split.json", samples))
    yield Kind("DONE.json", own / "DONE.json", lambda: find_subject(str(own)).check_files())
    yield Kind("state.json", newest / "state.json", lambda: (damage(newest), find_subject(str(newest)).check_files()))
    yield Kind("state.json, resumed", newest / "state.json", lambda: damage(newest) or read_checkpoint(newest))
    yield Kind("metrics.jsonl", own / "metrics.jsonl", lambda: RunFolder(own).metrics())
    yield Kind("a checkpoint's tensors", newest / "proxy.safetensors", lambda: read_checkpoint(newest), binary=True)
    for name in ("audit/audit.json", "quality/quality.json", "config.yaml", "metrics.jsonl", "environment.json"):
        if (seen / name).exists():
            yield Kind(f"{name} for a report", seen / name, lambda: collect([seen]), weight=4)

    def captions(**options: Any) -> object:
        return read_samples(open_source(DataOptions(train_data_dir=str(few), **options)))

    rows = [{"file_name": f"{k}.png", "text": f"a digit, {k}"} for k in range(2)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metadata.csv").write_text("file_name,text\n" + "".join(f'{k}.png,"a digit, {k}"\n' for k in range(2)))
    for name in ("metadata.jsonl", "metadata.csv"):
        yield Kind(name, folder / name, _beside(folder / name, few / name, captions), weight=6)
    (folder / "0.txt").write_text("a digit, large")
    yield Kind(
        "a caption file",
        folder / "0.txt",
        _beside(folder / "0.txt", few / "0.txt", lambda: captions(default_caption="x")),
    )
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    with Image.open(sorted(images.glob("*.png"))[12]) as picture:
        for suffix in ("png", "jpg", "webp", "gif", "tif", "bmp", "avif", "ico", "tga", "jp2", "ppm"):
            path = folder / f"picture.{suffix}"
            picture.save(path, **({"exif": exif} if suffix in ("jpg", "webp", "png", "tif") else {}))
            look = _beside(path, few / path.name, lambda: captions(default_caption="x"))
            yield Kind(f"a picture in {suffix}", path, look, binary=True)
    yield from _datasets(folder, pool)
    (folder / "options.yaml").write_text(
        f"train_data_dir: {pool}\npretrained_model_name_or_path: tiny\nrank: 8\nlearning_rate: 1e-4\n"
        "objective: smp_lora\nmixed_precision: 'no'\n"
        "validation_prompts: [a, b]\nsnr_gamma: 5.0\nuse_ema: true\n"
    )
    yield Kind(
        "--config",
        folder / "options.yaml",
        lambda: parse("train", ["--config", str(folder / "options.yaml")]),
        weight=1,
    )
    (folder / "sweep.yaml").write_text(
        f"train_data_dir: {pool}\npretrained_model_name_or_path: tiny\ngrid: {{rank: [4, 8]}}\n"
        "seeds: [0, 1]\nmax_train_steps: 5\n"
    )
    yield Kind(
        "--config of a sweep", folder / "sweep.yaml", lambda: parse("sweep", ["--config", str(folder / "sweep.yaml")])
    )
    lines = "".join(f"{k % 2},{'aux' if k < 20 else 'test'},{k / 7:.3f},{-k}\n" for k in range(40))
    (folder / "signals.csv").write_text(f"member,cell,loss,other\n{lines}")
    yield Kind("--signals", folder / "signals.csv", lambda: read_signals(folder / "signals.csv"), weight=4)
    for path in sorted(own.glob("*.safetensors")):
        yield Kind(f"adapter, {path.name}", path, lambda path=path: read_adapter(path), binary=True, weight=6)  # type: ignore[misc]
    peft = folder / "peft"
    peft.mkdir()
    _as_peft(own, peft)
    weights, settings = peft / "adapter_model.safetensors", peft / "adapter_config.json"
    yield Kind("adapter of peft", weights, lambda: read_adapter(weights), binary=True, weight=6)
    yield Kind("adapter_config.json", settings, lambda: read_adapter(weights), weight=4)


def _datasets(folder: Path, pool: Path) -> Iterator[Kind]:
    import datasets
    import pyarrow.parquet

    from smplora.config.data import DataOptions
    from smplora.data.pool import open_source, read_samples

    datasets.disable_progress_bars()
    contents = [path.read_bytes() for path in sorted(pool.glob("*.png"))[:3]]
    saved, parquet = folder / "saved", folder / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": contents, "text": list("abc")}), parquet)
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    columns = {"image": [{"bytes": content, "path": None} for content in contents], "text": list("abc")}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(saved)

    def read(place: Path) -> Callable[[], object]:
        return lambda: read_samples(open_source(DataOptions(dataset_name=str(place), default_caption="x")))

    yield Kind("a parquet file", parquet, read(parquet), binary=True)
    for path in sorted(saved.iterdir()):
        yield Kind(f"a saved data set, {path.name}", path, read(saved), binary=path.suffix == ".arrow")


def _beside(source: Path, copy: Path, read: Callable[[], object]) -> Callable[[], object]:
    """Read with a copy of ``source`` in place, which then is removed."""

    def reading() -> object:
        copy.write_bytes(source.read_bytes())
        try:
            return read()
        finally:
            copy.unlink()

    return reading


def _as_peft(run: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    from smplora.adapters.files.read import read_adapter
    from smplora.adapters.files.write import ADAPTER_FILE

    state = read_adapter(run / ADAPTER_FILE).state
    own = {f"base_model.model.{n.removeprefix('unet.')}": t for n, t in state.items() if n.startswith("unet.")}
    save_file(own, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": False, "alpha_pattern": {"to_q": 2}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def try_one(kind: Kind, content: bytes) -> str | None:
    """Put ``content`` in place of the kind's file and read it; the file is what it was afterwards."""
    before = kind.path.read_bytes()
    kind.path.write_bytes(content)
    try:
        return attempt(kind.read, kind.seconds)
    finally:
        kind.path.write_bytes(before)
