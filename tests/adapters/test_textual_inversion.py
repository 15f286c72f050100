"""Textual inversion beyond the contract's tests: two text encoders, where the new word goes, options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import build, stock
from conftest import short_config
from smplora.adapters.textual_inversion import FILES, ExtendedEmbedding
from smplora.cli.main import main
from smplora.experiments.tasks import train
from smplora.runs.subject import load_subject

CPU = torch.device("cpu")
LEARNED: dict[str, Any] = {"adaptation": "textual_inversion", "initializer_token": "handwritten", "aux_size": 2,
                           "train_batch_size": 2, "max_train_steps": 2, "learning_rate": 1e-2}  # fmt: skip


def test_new_ids_take_learned_rows_and_all_others_the_tables() -> None:
    table = torch.nn.Embedding(8, 3).requires_grad_(False)
    extended = ExtendedEmbedding(table, 6, torch.arange(6.0).reshape(2, 3))  # rows 6 and 7, which the table has too
    ids = torch.tensor([[0, 6, 5], [7, 7, 1]])
    found = extended(ids)
    expected = torch.stack([
        torch.stack([table.weight[0], torch.tensor([0.0, 1, 2]), table.weight[5]]),
        torch.stack([torch.tensor([3.0, 4, 5]), torch.tensor([3.0, 4, 5]), table.weight[1]]),
    ])  # fmt: skip
    assert torch.equal(found, expected)
    found.sum().backward()
    assert torch.equal(extended.learned.grad, torch.tensor([[1.0] * 3, [2.0] * 3]))  # type: ignore[arg-type]


def test_both_encoders_of_sdxl_learn_the_word(noise_folder: Path, tmp_path: Path) -> None:
    folder = build("sdxl", tmp_path / "model")
    config = short_config(noise_folder, tmp_path / "run", pretrained_model_name_or_path=str(folder), **LEARNED)
    run = train(config, progress=False)
    for name, width in zip(FILES.values(), (32, 16), strict=True):
        assert {k: tuple(t.shape) for k, t in load_file(run / name).items()} == {"<smplora>": (1, width)}
    model = load_subject(str(run), None, "cpu").model
    pipeline = stock("sdxl", folder)
    pipeline.load_textual_inversion(run, weight_name=FILES["text_encoder"])
    pipeline.load_textual_inversion(
        run, weight_name=FILES["text_encoder_2"], text_encoder=pipeline.text_encoder_2, tokenizer=pipeline.tokenizer_2
    )
    with torch.no_grad():
        ours = model.text.embed(model.text.tokens(["a <smplora> six"], 32))
        theirs, _, pooled, _ = pipeline.encode_prompt("a <smplora> six", device=CPU, do_classifier_free_guidance=False)
        plain, *_ = pipeline.encode_prompt("a handwritten six", device=CPU, do_classifier_free_guidance=False)
    torch.testing.assert_close(ours["encoder_hidden_states"], theirs)
    torch.testing.assert_close(ours["text_embeds"], pooled)
    assert (theirs - plain).norm() > 1e-3 * plain.norm()


def test_the_word_stands_before_every_caption_or_where_it_is_wanted(noise_folder: Path, tmp_path: Path) -> None:
    for given, expected in (({}, "<smplora> picture "), ({"instance_prompt": "a <smplora>"}, "a <smplora>")):
        run = train(short_config(noise_folder, tmp_path / expected[:3], **LEARNED, **given), progress=False)
        loaded = load_subject(str(run), None, "cpu")
        assert all(s.caption.startswith(expected) for s in loaded.split.train)
        batch = loaded.encode("test_member").whole()
        tokenizer: Any = loaded.model.text
        new = tokenizer.tokenizer.convert_tokens_to_ids("<smplora>")
        assert (batch.conditioning["input_ids"] == new).flatten(1).sum(1).tolist() == [1] * len(batch)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--initializer_token is missing: give a word for what the images show"),
        (["--initializer_token", "dog", "--rank", "8"], "--rank: of --adaptation lora; leave out"),
        (["--initializer_token", "dog", "--train_text_encoder", "true"], "--train_text_encoder: nothing that"),
        (["--initializer_token", "dog", "--instance_prompt", "a dog"], "without --placeholder_token <smplora>"),
        (["--initializer_token", "dog", "--placeholder_token", "two words"], "allowed: one word"),
        (["--initializer_token", "six", "--placeholder_token", "six</w>"], "is a word that the model knows"),
        (["--initializer_token", "handwritten six"], "is 2 tokens; give a word of at most --num_vectors 1"),
    ],
)
def test_options_that_do_not_go_together(
    given: list[str], said: str, noise_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--train_data_dir", str(noise_folder), "--output_dir", str(tmp_path / "run"), "--aux_size", "2"]
    assert main(["train", *output, "--adaptation", "textual_inversion", *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
