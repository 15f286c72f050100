"""Captions -> token ids -> embeddings, against the stock tokenizers and pipelines; adapters on text encoders."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import CPU, FAMILIES, build
from conftest import short_config
from smplora.cli.main import main
from smplora.core.errors import ConfigError
from smplora.core.files import BUNDLED_FOLDER
from smplora.experiments.tasks import train
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion
from smplora.models.load import load_model
from smplora.models.text import TIME_IDS, configured, token_ids
from smplora.runs.subject import load_subject

LONG = " ".join(["a red cat and two dogs"] * 9)
CAPTIONS = ["", "a red cat", LONG]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: build(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def test_one_passage_is_what_the_tokenizer_gives() -> None:
    text: Any = load_model(str(BUNDLED_FOLDER), CPU).text
    theirs = text.tokenizer(
        CAPTIONS,
        padding="max_length",
        truncation=True,
        max_length=text.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    assert torch.equal(token_ids(text.tokenizer, CAPTIONS, 1, CPU)[:, 0], theirs)
    assert text.cut(CAPTIONS) == 1
    assert configured(text, 1, 225).cut([LONG[:60]]) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_passages_are_encoded_apart_and_joined(family: str, folders: dict[str, Path]) -> None:
    """Slow twin: every passage of 14 tokens as a caption of its own."""
    model = load_model(str(folders[family]), CPU)
    text: Any = configured(model.text, 1, 225)
    tokenizer = text.tokenizer if family != "sdxl" else text.tokenizers[0]
    ids = tokenizer(LONG, add_special_tokens=False).input_ids
    assert len(ids) > 3 * 14
    with torch.no_grad():
        whole = text.embed(text.tokens([LONG], 32))["encoder_hidden_states"]
        parts = []
        for k in range(3):
            told = model.text.tokens(["x"], 32)
            alone = torch.tensor([[[tokenizer.bos_token_id, *ids[k * 14 : k * 14 + 14], tokenizer.eos_token_id]]])
            told |= {name: alone for name in told if name.startswith("input_ids")}
            parts.append(model.text.embed(told)["encoder_hidden_states"])
    expected = torch.cat([parts[0][:, :1], *(p[:, 1:-1] for p in parts), parts[2][:, -1:]], 1)
    assert whole.shape[1] == 2 + 3 * 14
    torch.testing.assert_close(whole, expected, atol=1e-6, rtol=1e-5)


def test_clip_skip_leaves_out_the_last_layers(folders: dict[str, Path]) -> None:
    """Twin: an encoder whose last layers are cut off."""
    model = load_model(str(folders["sd1"]), CPU)
    full: Any = model.text
    for skip in (1, 2, 3):
        text = configured(model.text, skip, 75)
        shorter = copy.deepcopy(full.encoder)
        shorter.encoder.layers = shorter.encoder.layers[: 4 - skip]
        with torch.no_grad():
            told = text.tokens(["a red cat"], 32)
            expected = shorter(told["input_ids"][:, 0]).last_hidden_state
            torch.testing.assert_close(text.embed(told)["encoder_hidden_states"], expected, atol=1e-6, rtol=1e-5)


def test_sdxl_has_no_clip_skip(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="clip_skip got 2; SDXL always reads the last but one layer"):
        configured(load_model(str(folders["sdxl"]), CPU).text, 2, 75)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_encoders_are_trained_and_come_back(family: str, folders: dict[str, Path], noise_folder: Path) -> None:
    run = noise_folder.parent / "run"
    config = short_config(
        noise_folder, run, pretrained_model_name_or_path=str(folders[family]), aux_size=2, train_batch_size=2,
        train_text_encoder=True, text_encoder_lr=1e-2, clip_skip=1 if family == "sdxl" else 2, max_token_length=150,
        lora_targets="all", lora_alpha=8, lora_dropout=0.1, use_rslora=True, use_dora=True,
    )  # fmt: skip
    train(config, progress=False)
    states = [load_file(run / f"checkpoints/checkpoint-{k}/adapter_state.safetensors") for k in (3, 6)]
    components = {"unet", "text_encoder"} | ({"text_encoder_2"} if family == "sdxl" else set())
    assert {name.split(".")[0] for name in states[1]} == components
    assert any(".mlp.fc1." in name for name in states[1])
    assert any(name.endswith("lora_magnitude_vector") for name in states[1])
    for component in components:
        moved = [n for n in states[1] if n.startswith(f"{component}.") and not torch.equal(states[0][n], states[1][n])]
        assert moved, component

    loaded = load_subject(str(run), None, "cpu")
    base = load_model(str(folders[family]), CPU)
    base.text = configured(base.text, config.clip_skip, 150)
    batch: Batch = loaded.encode("test_member").whole()
    draw = Draw(torch.full((len(batch),), 400), torch.randn(batch.mean.shape))
    captions = [s.caption for s in loaded.split.cells["test_member"]]
    sizes = {name: value for name, value in batch.conditioning.items() if name == TIME_IDS}
    frozen = Batch(batch.mean, batch.std, {**base.encode_captions(captions, 32), **sizes}, batch.digests)
    with torch.no_grad():
        adapted = loaded.model.error_maps(batch, draw)
        with loaded.adapted.without():
            switched_off = loaded.model.error_maps(batch, draw)
        torch.testing.assert_close(switched_off, base.error_maps(frozen, draw), atol=1e-5, rtol=1e-4)
    assert (adapted - switched_off).abs().max() > 1e-4
    with torch.no_grad():  # the text encoder's share: what its adapter alone changes
        loaded.model.text.encoders["text_encoder"].disable_adapters()
        assert (loaded.model.error_maps(batch, draw) - adapted).abs().max() > 1e-6


def test_text_encoders_stay_as_they_are_by_default(trained_run: Path) -> None:
    names = load_file(trained_run / "checkpoints/checkpoint-6/adapter_state.safetensors")
    assert all(name.startswith("unet.") for name in names)


def test_a_run_with_text_encoders_is_audited(image_folder: Path, tmp_path: Path) -> None:
    train(short_config(image_folder, tmp_path / "run", train_text_encoder=True), progress=False)
    few = ["--attacks", "[loss]", "--num_timesteps", "2", "--noise_pairs", "1", "--device", "cpu"]
    assert main(["audit", "--adapter", str(tmp_path / "run"), *few]) == 0


def test_dropout_is_off_where_nothing_is_trained(image_folder: Path, tmp_path: Path) -> None:
    train(short_config(image_folder, tmp_path / "run", lora_dropout=0.5), progress=False)
    loaded = load_subject(str(tmp_path / "run"), None, "cpu")
    batch = loaded.encode("test_member", 2).whole()
    draw = Draw(torch.full((2,), 400), torch.randn(batch.mean.shape))
    with torch.no_grad():
        assert torch.equal(loaded.model.error_maps(batch, draw), loaded.model.error_maps(batch, draw))


def test_more_skipped_than_there_is(noise_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before anything is written, so that the same command with another value starts."""
    run = tmp_path / "run"
    cells = ["--aux_size", "2", "--device", "cpu", "--output_dir", str(run)]
    assert main(["train", "--train_data_dir", str(noise_folder), *cells, "--clip_skip", "50"]) == 2
    assert re.search(r"--clip_skip got 50; allowed: 1 to \d+, the layers", capsys.readouterr().err)
    assert not run.exists()


def test_bad_options_are_named(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "r")]
    wrong = ["--clip_skip", "0", "--max_token_length", "80", "--lora_dropout", "1.5", "--text_encoder_lr", "0"]
    assert main(["train", *arguments, *wrong]) == 2
    message = capsys.readouterr().err
    for option in ("clip_skip", "max_token_length", "lora_dropout", "text_encoder_lr"):
        assert f"--{option} got" in message


@pytest.mark.parametrize("name", ["tiny", "tiny-flow"])
def test_encoders_that_rest_elsewhere_still_tell_the_denoiser(name: str) -> None:
    """As after the captions of training are embedded on a GPU: here the denoiser is on a device without values."""
    model = load_model(name, CPU)
    before = model.embedded(["a six"], 32)
    model.denoiser.to("meta")
    model.rest_text()
    told, empty = model.embedded(["a six"], 32), model.unconditional(2, 32)
    assert {t.device.type for t in (*told.values(), *empty.values())} == {"meta"}
    assert {k: (t.shape, t.dtype) for k, t in told.items()} == {k: (t.shape, t.dtype) for k, t in before.items()}


@pytest.mark.parametrize("learns_text", [False, True])
def test_encoders_rest_while_others_learn(
    learns_text: bool, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[LatentDiffusion] = []
    monkeypatch.setattr(LatentDiffusion, "rest_text", lambda self: rested.append(self))
    config = short_config(image_folder, tmp_path / "run", train_text_encoder=learns_text, max_train_steps=1)
    train(config, progress=False)
    assert len(rested) == (not learns_text)
