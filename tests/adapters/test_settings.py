"""peft's settings beside the tensors: patterns as peft matches them, none that takes long, nothing odd accepted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from peft.utils.other import get_pattern_key
from test_kohya import adapted_modules

from smplora.adapters.files.kohya import SDXL
from smplora.adapters.files.settings import IN_HEADER, PEFT_CONFIG, PEFT_FILE, Patterns, loader_settings, read_settings
from smplora.core.console import forget_what_was_said

PATTERNS = (
    "to_q",
    "attn1.to_k",
    r"down_blocks\.1\..*\.to_v",
    "mid_block.*to_q",
    "transformer_blocks.0.attn2.to_out.0",
    r"^mid_block\.attentions\.0\.proj_in",
    r"up_blocks.\d+.attentions.[02].proj_out",
    "fc1|fc2",
    "attn..to_v",
    r"encoder.layers.1\d.self_attn.q_proj$",
    "q",
)


def test_patterns_are_those_of_peft() -> None:
    """Every pattern alone and all in turn, on every module of SDXL."""
    modules = [module.partition(".")[2] for module in adapted_modules(SDXL)]
    for patterns in ([one] for one in PATTERNS):
        table = {pattern: float(number) for number, pattern in enumerate(patterns)}
        ours = Patterns(table)
        for module in modules:
            assert ours.value(module, -1) == table.get(get_pattern_key(patterns, module), -1), (patterns, module)
    table = {pattern: float(number) for number, pattern in enumerate(PATTERNS)}
    assert [Patterns(table).value(m, -1) for m in modules] == [
        table.get(get_pattern_key(PATTERNS, m), -1) for m in modules
    ]


@pytest.mark.parametrize(
    "pattern",
    ["(", "(a*)*x", "(_?){50}x", "(|)(|)(|)(|)x", ".*.*.*x", "a?", "a{9}", "(?=a)", "[z-a]", "a**", "", "a||b", "*"],
)
def test_other_regular_expressions_are_not_run(pattern: str) -> None:
    with pytest.raises(ValueError, match="the regular expression"):
        Patterns({pattern: 1.0})


def test_patterns_take_no_time() -> None:
    began = time.process_time()
    names = {f"down_blocks.{i}.attentions.0.to_q": 1.0 for i in range(20_000)}
    slow = {f"{'.*_' * 2}[{letter}]": 1.0 for letter in "abcdefghijklmnopqrst"}
    patterns = Patterns(names | slow)
    for module in [m.partition(".")[2] for m in adapted_modules(SDXL)]:
        patterns.value(module, 2.0)
    assert time.process_time() - began < 5
    with pytest.raises(ValueError, match="21 regular expressions; allowed: 20 at most"):
        Patterns(slow | {"u.*": 1.0})


ODD = {
    "lora_alpha": ["8", [1], True, float("inf"), float("nan"), 10**12, {}],
    "alpha": ["8"],
    "r": [[8]],
    "alpha_pattern": [[1], "x", {"a": "b"}, {"(": 1}, {"a": None}],
    "rank_pattern": [7],
    "use_rslora": ["no", 2, []],
    "init_lora_weights": ["pissa", "PiSSA_niter_4", "olora", "loftq"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_odd_settings_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        read_settings({name: value})


@pytest.mark.parametrize("text", ["[1]", "null", "3", "", "{", "[" * 10**5, '{"unet.lora_alpha": %s}' % ("9" * 5000)])
def test_what_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    for beside in (False, True):
        (tmp_path / PEFT_CONFIG).write_text(text) if beside else None
        with pytest.raises(ValueError, match="beside it" if beside else "in its header"):
            loader_settings(tmp_path / "a.safetensors", {} if beside else {IN_HEADER: text})


def test_settings_are_of_their_component(tmp_path: Path) -> None:
    told = {
        "unet.lora_alpha": 4,
        "unet.use_rslora": True,
        "text_encoder.lora_alpha": None,
        "unet.target_modules": ["x"],
    }
    settings = loader_settings(tmp_path / "a.safetensors", {IN_HEADER: json.dumps(told)})
    assert settings["unet"].low_rank("x", 16) == 16
    assert settings["text_encoder"].low_rank("x", 16) is None
    assert loader_settings(tmp_path / "a.safetensors", {}) == {}


def test_a_file_beside_another_adapters_settings_says_whose_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_what_was_said()
    (tmp_path / PEFT_CONFIG).write_text(json.dumps({"lora_alpha": 8, "r": 4}))
    assert loader_settings(tmp_path / PEFT_FILE, {})["unet"].lora_alpha == 8
    assert capsys.readouterr().err == ""
    assert loader_settings(tmp_path / "other.safetensors", {})["unet"].lora_alpha == 8
    assert "other.safetensors: what it does not say itself, such as alpha, is taken from" in capsys.readouterr().err
