"""What a file's header says of its training passes the checks of the options, and nothing of it is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smplora.config.audit import AuditConfig
from smplora.core.errors import CheckpointError
from smplora.runs.header_settings import told_training

FILE = Path("lora.safetensors")
UNDERSTOOD: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({"ss_resolution": "(512, 512)"}, {"resolution": 512}),
    ({"ss_resolution": "512,512"}, {"resolution": 512}),
    ({"ss_resolution": "512x512", "smplora_resolution": "512"}, {"resolution": 512}),
    ({"ss_resolution": "[768]", "ss_clip_skip": "2", "ss_max_token_length": "150"},
     {"resolution": 768, "clip_skip": 2, "max_token_length": 150}),
    ({"ss_resolution": "None", "ss_clip_skip": "None", "ss_max_token_length": "", "ss_enable_bucket": "False"},
     {"enable_bucket": False}),
    ({"ss_enable_bucket": "True", "ss_bucket_no_upscale": "true", "ss_max_bucket_reso": "1024"},
     {"enable_bucket": True, "bucket_no_upscale": True, "max_bucket_reso": 1024}),
    ({"ss_enable_bucket": "False", "ss_max_bucket_reso": "1024"}, {"enable_bucket": False}),
    ({"ss_datasets": json.dumps([{"resolution": [64, 64], "enable_bucket": True}] * 2)},
     {"resolution": 64, "enable_bucket": True}),
]  # fmt: skip


@pytest.mark.parametrize(("metadata", "options"), UNDERSTOOD)
def test_what_is_understood(
    metadata: dict[str, str], options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told_training(AuditConfig(), FILE, metadata, skips_layers=True).options == options
    assert capsys.readouterr().err == ""


REFUSED = {
    "ss_clip_skip": [
        ("0", "--clip_skip got 0; allowed: 1 or more"),
        ("9" * 5000, "--clip_skip got 1000000000000000000"),
    ],
    "ss_resolution": [
        ("(7, 7)", "--resolution got 7; allowed: 8 or more"),
        ("-512", "--resolution got -512; allowed: 8 or more"),
        ("9" * 5000, "--resolution got 1000000000000000000; allowed: 8192 at most"),
        ("(512, 768)", "which is not square; give the --resolution"),
    ],
    "ss_max_token_length": [("77", "--max_token_length got 77; allowed: 75, 150, 225")],
    "smplora_resolution": [("4", "--resolution got 4; allowed: 8 or more")],
    "ss_datasets": [('[{"resolution": [64, 32]}]', "not square"), ('[{"resolution": 4}]', "--resolution got 4")],
}


@pytest.mark.parametrize(("key", "text", "words"), [(key, *case) for key, cases in REFUSED.items() for case in cases])
def test_what_the_options_refuse(key: str, text: str, words: str) -> None:
    """The message names file and key; an option that is given overrules the header unread."""
    with pytest.raises(CheckpointError) as error:
        told_training(AuditConfig(), FILE, {key: text}, skips_layers=True)
    assert words in str(error.value)
    assert f"the header of lora.safetensors says {key} = '" in str(error.value)
    assert len(str(error.value)) < 500
    given: dict[str, Any] = {"resolution": 64, "clip_skip": 1, "max_token_length": 75}
    assert told_training(AuditConfig(**given), FILE, {key: text}, skips_layers=True).options == {}


def test_two_keys_that_disagree() -> None:
    with pytest.raises(CheckpointError, match=r"ss_resolution = '64' and smplora_resolution = '32'; give --resolution"):
        told_training(AuditConfig(), FILE, {"ss_resolution": "64", "smplora_resolution": "32"}, skips_layers=True)


@pytest.mark.parametrize(
    ("key", "text", "option"),
    [
        ("ss_resolution", "large", "resolution"),
        ("ss_resolution", "512.5", "resolution"),
        ("ss_clip_skip", "2, 2", "clip_skip"),
        ("ss_enable_bucket", "perhaps", "enable_bucket"),
        ("ss_datasets", "[1]", None),
        ("ss_datasets", "[" * 10**5, None),
        ("ss_datasets", '[{"resolution": 64}, {"resolution": 32}]', "resolution"),
    ],
)
def test_what_is_not_understood_is_said(
    key: str, text: str, option: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told_training(AuditConfig(), FILE, {key: text}, skips_layers=True).options == {}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert key in said
    assert option is None or f"--{option}" in said


def test_sdxl_reads_its_own_layers() -> None:
    assert told_training(AuditConfig(), FILE, {"ss_clip_skip": "2"}, skips_layers=False).options == {}
