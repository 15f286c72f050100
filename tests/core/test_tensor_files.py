"""Files called .safetensors from outside: what they are is said in one line, and no header takes long."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from smplora.core import tensor_files
from smplora.core.errors import CheckpointError
from smplora.core.tensor_files import read_header, read_tensors

GOOD = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}, {"who": "me"})


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes


def zipped() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", "x")
    return content.getvalue()


WRONG: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "page": (b"\r\n<!DOCTYPE html><html><body>Sign in</body></html>", "is an HTML page, not the file"),
    "comment": (b"<!-- x --><html></html>", "is an HTML page"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "is a git-lfs pointer: the file",
    ),
    "zip": (zipped, "is a zip archive"),
    "pickle": (pickle.dumps({"a": 1}), "is a pickle, which can run any program"),
    "gzip": (gzip.compress(GOOD), "is a compressed file"),
    "json": (b'{"error": "Invalid username or password."}', "is JSON, perhaps a server's message"),
    "text": (b"Entry not found", "is a text, perhaps a server's message"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(20), "is a picture"),
    "empty": (b"", "it is empty"),
    "few bytes": (b"no", "it is cut short"),
    "cut": (GOOD[:-3], "it is cut short: 25 of 28 bytes of tensors are there"),
    "cut in the header": (GOOD[:40], "it is cut short: its header alone has"),
    "more": (GOOD + b"x", "1 bytes more than its header names"),
    "noise": (bytes(range(128, 256)), "it does not begin as one"),
    "large": (file(b"{" * 9)[:0] + (2**40).to_bytes(8, "little") + b"{}" * 9, "has a header of 1099511627776 bytes"),
    "no object": (file(b"[1]          "), "is not a safetensors file"),
    "deep": (file(b'{"a":' + b"[" * 10**5), "more than 64 brackets"),
    "twice": (file(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)), "the key 'a' is there twice"),
    "overlapping": (file({"a": entry(), "b": entry()}, bytes(4)), "b begins at byte 0, where 4 was due"),
    "outside": (file({"a": entry(shape=[2], data_offsets=[0, 8])}, bytes(4)), "cut short: 4 of 8 bytes"),
    "gap": (file({"a": entry(data_offsets=[4, 8])}, bytes(8)), "begins at byte 4, where 0 was due"),
    "backwards": (file({"a": entry(shape=[0], data_offsets=[4, 0])}, bytes(4)), "a place that its shape"),
    "negative": (file({"a": entry(shape=[-1, -1])}, bytes(4)), "no shape or no place of whole numbers"),
    "type": (file({"a": entry(dtype="X9")}, bytes(4)), "a has dtype 'X9', which the format does not know"),
    "no type": (file({"a": 7}), "dtype None"),
    "metadata": (file({"__metadata__": {"a": 1}}), "does not map text to text"),
    "digits": (file(b'{"a":' + b"9" * 5000 + b"}"), "a number of 5000 digits"),
    "name": (file({"x" * 1001: entry()}, bytes(4)), "a name of 1001 characters"),
    "control": (file({"\x1b[31m\n": entry()}, bytes(4)), r"a name with control characters, '\x1b[31m\n'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_else_a_file_is(kind: str, tmp_path: Path) -> None:
    content, words = WRONG[kind]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(CheckpointError) as error:
        read_header(path, "--adapter: a")
    assert words in str(error.value)
    assert str(error.value).startswith("--adapter: a ")
    assert "\n" not in str(error.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "a pipe or a device"), (Path("/dev/null"), "a pipe or a device"),
                        (Path("/dev/zero"), "a pipe or a device"), (tmp_path, "is a folder"),
                        (tmp_path / "none", "does not exist"), (Path("a\0b"), "cannot be read")):  # fmt: skip
        with pytest.raises(CheckpointError, match=words):
            read_header(path, "--adapter: a")


def test_a_good_file_is_read_whole(tmp_path: Path) -> None:
    """Also where the header's length happens to begin as the mark of another kind of file: any two bytes may."""
    path = tmp_path / "a.safetensors"
    for length in (None, 0x0280, 0x8B1F):  # a pickle's mark, gzip's
        content = GOOD
        if length:
            size = int.from_bytes(GOOD[:8], "little")
            content = length.to_bytes(8, "little") + GOOD[8 : 8 + size].ljust(length) + GOOD[8 + size :]
        path.write_bytes(content)
        tensors, header = read_tensors(path, "a")
        assert header.shapes == {"a": (2, 3), "b": (2,)}
        assert header.metadata == {"who": "me"}
        assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))


def test_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MOST_TENSORS", 500)
    many = {str(i): entry(data_offsets=[4 * i, 4 * i + 4]) for i in range(501)}
    (tmp_path / "a.safetensors").write_bytes(file(many, bytes(4 * len(many))))
    with pytest.raises(CheckpointError, match=r"it has 501 tensors; allowed: 500 at most"):
        read_header(tmp_path / "a.safetensors", "a")
