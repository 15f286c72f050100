"""Folders as people have them: what is read, what is not and is said, and what is a question."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smplora.config.data import DataOptions
from smplora.core.console import forget_what_was_said
from smplora.core.errors import DataError
from smplora.data import pictures
from smplora.data.listing import list_folder
from smplora.data.pool import Sample, open_source, read_samples
from smplora.runs.folder import CONFIG, MODEL

RNG = np.random.default_rng(0)


def draw(path: Path, **options: object) -> Path:
    """A picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path, **options)
    return path


def read(folder: Path, **options: object) -> list[Sample]:
    forget_what_was_said()
    return read_samples(open_source(DataOptions(train_data_dir=str(folder), **{"default_caption": "x", **options})))


def names(samples: list[Sample]) -> list[str]:
    return [sample.file for sample in samples]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_everything_that_pillow_opens_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suffixes = [
        "png",
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "webp",
        "avif",
        "gif",
        "bmp",
        "tif",
        "tiff",
        "tga",
        "jp2",
        "ppm",
        "ico",
    ]
    files = [draw(tmp_path / f"{number:02d}.{suffix}") for number, suffix in enumerate(suffixes)]
    files[0].rename(tmp_path / "00.PNG")
    assert len(read(tmp_path)) == len(suffixes)
    assert f"{len(suffixes)} images; captions: {len(suffixes)} from --default_caption\n" in said(capsys)


def test_what_is_not_read_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.jxl", "e.eps", ".hidden.png", "notes", "f.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    assert names(read(tmp_path)) == ["a.png"]
    assert (
        "1 image; captions: 1 from --default_caption; not read: 1 .eps, 2 .heic, 1 .jxl, 1 broken link, "
        "1 caption file of no image, 1 hidden, 1 pipe or device, 1 without a suffix\n"
    ) in said(capsys)


def test_a_folder_without_images_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds no images .*; it has 1 \.heic"):
        read(tmp_path)


def test_an_image_in_a_format_that_runs_programs_is_not_opened(tmp_path: Path) -> None:
    assert "EPS" not in pictures.formats()
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        read(tmp_path)


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pool").mkdir()
    draw(tmp_path / "pool" / "own" / "a.png")
    draw(tmp_path / "elsewhere" / "b.png")
    for name, target in (("0-loop", "pool"), ("1-up", "."), ("2-there", "elsewhere"), ("3-again", "elsewhere")):
        (tmp_path / "pool" / name).symlink_to(tmp_path / target)
    (tmp_path / "pool" / "4-own").symlink_to(tmp_path / "pool" / "own")
    assert sorted(Path(name).name for name in names(read(tmp_path / "pool"))) == ["a.png", "b.png"]
    assert "own/a.png" in names(read(tmp_path / "pool"))  # the real folder, not the link to it
    assert "1 link to a folder that holds this one, 3 links to folders that were read already" in said(capsys)


@pytest.mark.parametrize("mask", ["a-masklabel.png", "a-condlabel.png", "a_mask.png", "a.mask.webp", "masks/a.png"])
def test_masks_are_not_trained_on(mask: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / mask)
    assert names(read(tmp_path)) == ["a.png"]
    assert "not read: 1 mask\n" in said(capsys)


def test_what_a_run_drew_is_no_image_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "runs/one/validation/b.png", "runs/c.png"):
        draw(tmp_path / name)
    for name in (CONFIG, MODEL):
        (tmp_path / "runs" / "one" / name).write_text("")
    assert names(read(tmp_path)) == ["a.png", "runs/c.png"]
    assert "not read: 1 folder of a run\n" in said(capsys)
    assert names(read(tmp_path / "runs" / "one")) == ["validation/b.png"]  # asked for by name


def test_pictures_of_masks_are_pictures(tmp_path: Path) -> None:
    for name in ("carnival_mask.png", "masks/venice.png", "masks/basel.png", "a.png", "masks/a.png"):
        draw(tmp_path / name)
    assert len(read(tmp_path)) == 5


@pytest.mark.parametrize("name", ["reg", "Regularization", "regularisation_images", "reg/1_dog", "data/reg"])
def test_regularization_images_are_a_question(name: str, tmp_path: Path) -> None:
    draw(tmp_path / "10_sks dog" / "a.png")
    draw(tmp_path / name / "b.png")
    with pytest.raises(DataError, match=r"regularization images.*--class_data_dir"):
        read(tmp_path)


def test_class_images_inside_of_the_folder_are_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "reg" / "1_dog" / "b.png")
    listing = list_folder(tmp_path, "train_data_dir", class_images=tmp_path / "reg")
    assert (listing.images, dict(listing.left_out)) == ([Path("a.png")], {"of --class_data_dir": 1})


def test_repeats_and_classes_of_kohyas_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("10_sks dog/a.png", "10_sks dog/inner/b.png", "3_red_cat/c.png", "d.png"):
        draw(tmp_path / name)
    with pytest.raises(DataError, match=r"d\.png: no caption"):
        read(tmp_path, default_caption="a {class}")
    (tmp_path / "d.txt").write_text("other")
    samples = {s.file: s for s in read(tmp_path, default_caption="a {class}")}
    assert [(s.caption, s.repeats) for s in samples.values()] == [
        ("a sks dog", 10), ("a sks dog", 10), ("a red cat", 3), ("other", 1),
    ]  # fmt: skip
    assert "; trained on more often: 1 image 3 times, 2 images 10 times\n" in said(capsys)
    as_named = {s.file: s for s in read(tmp_path, default_caption="a {class}", folder_repeats=False)}
    assert as_named["10_sks dog/a.png"].caption == "a 10 sks dog"
    assert {s.repeats for s in as_named.values()} == {1}


@pytest.mark.parametrize("folders", [["1_a", "2_b"], ["0_a", "1_b", "2_c"], ["01_a"], ["2019_trip"], ["0_a"]])
def test_what_may_be_a_numbering_is_asked(folders: list[str], tmp_path: Path) -> None:
    for folder in folders:
        draw(tmp_path / folder / "x.png")
    with pytest.raises(DataError, match="--folder_repeats false"):
        read(tmp_path)
    assert {s.repeats for s in read(tmp_path, folder_repeats=False)} == {1}
    if folders == ["1_a", "2_b"]:
        assert [s.repeats for s in read(tmp_path, folder_repeats=True)] == [1, 2]


def test_caption_files_in_any_case_and_two_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        draw(tmp_path / f"{name}.png")
    (tmp_path / "a.TXT").write_text("loud")
    (tmp_path / "b.txt").write_bytes("größe".encode("utf-16"))
    (tmp_path / "b.caption").write_text("not read")
    samples = read(tmp_path)
    assert [s.caption for s in samples] == ["loud", "größe", "x"]
    assert "1 from --default_caption, 2 from .txt files; not read: 1 caption file of an image that" in said(capsys)
    (tmp_path / "a.txt").write_text("quiet")
    with pytest.raises(DataError, match=r"a\.png: two caption files"):
        read(tmp_path)


def test_captions_of_a_table_are_counted_and_caption_files_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        draw(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("from the file")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,from the table\n")
    assert [s.caption for s in read(tmp_path)] == ["from the table", "from the file"]
    line = said(capsys)
    assert "captions: 1 from .txt files, 1 from metadata.csv; not read: 1 caption file of an image that" in line


def test_a_table_without_the_captions_column_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png,t\n")
    assert [s.caption for s in read(tmp_path)] == ["x"]
    assert "not read: 1 metadata.csv without a column 'text' (it has 'caption')\n" in said(capsys)


def csv(content: str | bytes, folder: Path) -> list[str | None]:
    for name in "abc":
        draw(folder / f"{name}.png")
    data = content.encode() if isinstance(content, str) else content
    (folder / "metadata.csv").write_bytes(data)
    return [s.caption for s in read(folder)]


@pytest.mark.parametrize(
    "content",
    [
        "file_name;text\na.png;one, two\nb.png;t\n",
        "file_name, text\na.png,\"one, two\"\nb.png,t\n",
        "file_name\ttext\na.png\tone, two\nb.png\tt\n",
        "file_name,text\ra.png,\"one, two\"\rb.png,t\r",
        "\r\nfile_name,text\r\n\r\na.png,\"one, two\"\r\nb.png,t",
        "file_name,text\na.png,\"one, two\"\nb.png,t\n".encode("utf-16"),
        "\ufefffile_name,text\na.png,\"one, two\"\nb.png,t\n",
    ],
)  # fmt: skip
def test_tables_from_any_program(content: str | bytes, tmp_path: Path) -> None:
    assert csv(content, tmp_path) == ["one, two", "t", "x"]


def test_a_caption_of_several_lines_and_a_long_one(tmp_path: Path) -> None:
    long = "word " * 40_000
    assert csv(f'file_name,text\na.png,"one\ntwo ""quoted"""\nb.png,"{long}"\n', tmp_path) == [
        'one\ntwo "quoted"', long.strip(), "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("file_name,text\na.png,1girl, solo\n", r"metadata\.csv line 2: 3 fields, and the header has 2.*double quotes"),
        ("file_name,text\na.png\n", "line 2: 1 field, and the header has 2"),
        ("file_name,text\na.png,t\n./a.png,u\n", "line 3: './a.png' again, after metadata.csv line 2"),
        ('file_name,text\na.png,"t\nb.png,u\nc.png,v\n', "line 2: a quote that is not closed"),
        ('file_name,text\na.png,"t\nb.png,"u"\n', "line 2: not a row of CSV"),
        (
            "image,caption\na.png,t\n",
            "metadata.csv: its first line has no column file_name; the columns are 'image', 'capt",
        ),
        ("file_name,text,text\na.png,t,u\n", "line 1: the column 'text' is there twice"),
        ("file_name,text\nz.png,t\n", "line 2: no image 'z.png'"),
        ("file_name,text\na.png,größe\n".encode("latin-1"), "metadata.csv: line 2: not UTF-8"),
        (f'file_name,text\na.png,"{"x" * (2**20 + 1)}"\n', "line 2: not a row of CSV .field larger"),
    ],
)
def test_rows_that_cannot_be_meant(content: str | bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        csv(content, tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"file_name": "a.png", "text": "x", "text": "y"}', "line 1: .*'text' is there twice"),
        ('{"file_name": "a.png", "text": 5}', "line 1: text is 5, not a text"),
        ('{"image": "a.png", "text": "x"}', "line 1: no file_name, but 'image', 'text'"),
        ('\n["a.png"]', "line 2: not an object"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "brackets"),
        (f'{{"file_name": "a.png", "n": {"9" * 5000}}}', "5000 digits"),
    ],
)
def test_lines_of_json_that_cannot_be_meant(content: str, problem: str, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(DataError, match=problem):
        read(tmp_path)


def test_two_tables_may_not_name_the_same_image(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "one\u2028line"}')
    assert [s.caption for s in read(tmp_path)] == ["one\u2028line"]
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,two\n")
    with pytest.raises(DataError, match=r"metadata\.jsonl line 1: 'a\.png' again, after metadata\.csv line 2"):
        read(tmp_path)


def test_damaged_exif_data_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words " * 9
    whole = draw(tmp_path / "a.jpg", exif=exif).read_bytes()
    assert (read(tmp_path)[0].size, "EXIF" in said(capsys)) == ((16, 16), False)
    entries = whole.index(b"Exif\0\0") + 6 + 8  # how many there are, after the header of 8 bytes
    (tmp_path / "a.jpg").write_bytes(whole[:entries] + b"\xff\xff" + whole[entries + 2 :])
    assert len(read(tmp_path)) == 1
    assert "1 have damaged EXIF data" in said(capsys)


def bomb(path: Path, edge: int) -> None:
    """A PNG that says that it is ``edge`` pixels wide and high."""
    content = bytearray(draw(path).read_bytes())
    content[16:24] = struct.pack(">II", edge, edge)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.png", 13_000)
    with pytest.raises(DataError, match=r"bomb\.png: 13000 x 13000 pixels; allowed: \d+ in all"):
        read(tmp_path)
    bomb(tmp_path / "bomb.png", 20_000)
    with pytest.raises(DataError, match=r"bomb\.png: more than \d+ pixels"):
        read(tmp_path)


@pytest.mark.parametrize("error", [TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError, AttributeError])
def test_whatever_a_decoder_ends_in_is_said_of_the_file(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(picture: Image.Image) -> Image.Image:
        raise error("inside of Pillow")

    draw(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "upright", broken)
    with pytest.raises(DataError, match=rf"a\.png: not a readable image \({error.__name__}\)"):
        read(tmp_path)


def test_the_first_of_several_pictures_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    draw(tmp_path / "b.png")
    assert len(read(tmp_path)) == 2
    assert "1 hold several pictures, of which the first is read" in said(capsys)


def test_a_name_that_is_not_text_is_a_problem(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png").read_bytes()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(picture)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    with pytest.raises(DataError, match="not UTF-8; rename"):
        read(tmp_path)


def test_the_same_line_is_said_once_in_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "a\nsmplora: forged.png")
    read(tmp_path)
    read_samples(open_source(DataOptions(train_data_dir=str(tmp_path), default_caption="x")))
    assert said(capsys).count("\n") == 1
