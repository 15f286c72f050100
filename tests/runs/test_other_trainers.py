"""Audits of adapters without their run: the same scores as with it, and one line for everything that is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import build
from conftest import short_config
from said import complaint
from smplora.adapters.files.read import read_adapter
from smplora.adapters.files.write import ADAPTER_FILE, KOHYA_FILE
from smplora.cli.main import main
from smplora.cli.parse import parse
from smplora.core.files import BUNDLED_FOLDER
from smplora.data.split import MANIFEST
from smplora.experiments.tasks import train
from smplora.runs.other_trainers import load_any
from smplora.runs.subject import load_subject

QUICK = ("--attacks", "[calibrated_loss]", "--num_timesteps", "4", "--noise_pairs", "1")


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 members learned by heart; both components adapted, every kind of layer, alpha not the rank."""
    changes: dict[str, Any] = {
        **{"objective": "lora", "lora_targets": "all", "rank": 16, "lora_alpha": 4, "use_rslora": True},
        **{"train_text_encoder": True, "text_encoder_lr": 1e-3, "learning_rate": 1e-2},
        **{"train_batch_size": 8, "max_train_steps": 100, "checkpointing_steps": 100, "aux_size": 6},
    }
    return train(short_config(image_folder, tmp_path_factory.mktemp("foreign") / "run", **changes), progress=False)


@pytest.fixture(scope="module")
def folders(run: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run's members and non-members, each in a folder."""
    cells = json.loads((run / MANIFEST).read_text())["cells"]
    rows = [json.loads(line) for line in (image_folder / "metadata.jsonl").read_text().splitlines()]
    captions = {row["file_name"]: row["text"] for row in rows}
    root = tmp_path_factory.mktemp("pools")
    for name in ("member", "nonmember"):
        folder = root / f"{name}s"
        folder.mkdir()
        for entry in cells[f"aux_{name}"] + cells[f"test_{name}"]:
            shutil.copy(image_folder / entry["file"], folder / entry["file"])
            (folder / entry["file"]).with_suffix(".txt").write_text(captions[entry["file"]])
    return {"members": root / "members", "nonmembers": root / "nonmembers"}


def pools(folders: dict[str, Path]) -> list[str]:
    return [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(word) for word in arguments]) == 2
    out, err = capsys.readouterr()
    err = complaint(err)
    assert (out, err.count("\n")) == ("", 1), err
    return err


def test_a_file_scores_as_its_run(run: Path, image_folder: Path, tmp_path: Path) -> None:
    one = (*QUICK, "--num_timesteps", "1")
    assert main(["audit", "--adapter", str(run), "--output_dir", str(tmp_path / "run"), *one]) == 0
    expected = np.load(tmp_path / "run" / "scores.npz")
    own = read_adapter(run / ADAPTER_FILE)
    wrapped = {re.sub(r"^(\w+)\.", r"\1.base_model.model.", name): tensor for name, tensor in own.state.items()}
    alphas = {f"{module}.alpha": torch.tensor(alpha) for module, alpha in own.alphas.items()}
    save_file(wrapped | alphas, run / "wrapped.safetensors")
    for file in (ADAPTER_FILE, KOHYA_FILE, "wrapped.safetensors"):
        output = tmp_path / file
        options = ["--split_manifest", str(run / MANIFEST), "--train_data_dir", str(image_folder)]
        adapter = ["--adapter", str(run / file), "--pretrained_model_name_or_path", "tiny"]
        assert main(["audit", *adapter, *options, "--output_dir", str(output), *one]) == 0
        found = np.load(output / "scores.npz")
        assert found.files == expected.files
        for name in expected.files:
            if expected[name].dtype.kind == "f":
                np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=f"{file}: {name}")
        about = json.loads((output / "audit.json").read_text())["subject"]
        assert (about["label"], about["objective"], about["trained_with"]["resolution"]) == (file, "unknown", 32)
        assert file in (output / "report.html").read_text()


def test_learned_embeddings_are_those_of_their_run(
    image_folder: Path, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Textual inversion, in the layouts of diffusers and of A1111; the word goes in front of captions without it."""
    settings: dict[str, Any] = {"adaptation": "textual_inversion", "initializer_token": "six", "learning_rate": 1.0}
    run = train(short_config(image_folder, tmp_path / "run", aux_size=2, max_train_steps=1, **settings), progress=False)
    published, other = run / "learned_embeds.safetensors", tmp_path / "<smplora>.safetensors"
    save_file({"emb_params": load_file(published)["<smplora>"]}, other)
    base = [
        "--pretrained_model_name_or_path",
        "tiny",
        "--initializer_token",
        "six",
        "--output_dir",
        str(tmp_path / "x"),
    ]
    split = ["--split_manifest", str(run / MANIFEST), "--train_data_dir", str(image_folder)]
    own = load_subject(str(run), None, "cpu")
    told = own.encode("test_member").whole().conditioning["input_ids"]
    for file in (published, other):
        found = load_any(parse("audit", ["--adapter", str(file), *base, *split]), None)
        assert torch.equal(found.encode("test_member").whole().conditioning["input_ids"], told)
        for trained in (True, False):
            vectors = []
            for loaded in (own, found):
                with loaded.adapted.without(not trained):
                    vectors.append(loaded.adapted.adaptation.state_dict(loaded.model)["text_encoder.learned"])
            assert torch.equal(*vectors)
        assert found.subject.summary("", found.model).adaptation == "textual_inversion"
    narrow = tmp_path / "narrow.safetensors"
    save_file({"emb_params": torch.zeros(1, 7)}, narrow)
    said = refused(capsys, "audit", "--adapter", narrow, *base, *pools(folders))
    assert "its embeddings have 7 numbers, those of text_encoder have 64" in said
    known = ("audit", "--adapter", other, *base, *pools(folders), "--placeholder_token", "six</w>")
    assert "is a word that the model knows" in refused(capsys, *known)


def test_folders_are_divided_and_a_leak_is_found(run: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    adapter = ["--adapter", str(run / KOHYA_FILE), "--pretrained_model_name_or_path", "tiny", *pools(folders)]
    assert main(["audit", *adapter, "--output_dir", str(tmp_path / "audit"), *QUICK]) == 0
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert content["split"]["protocol"] == "pools"
    assert content["attacks"][0]["test"]["auc"]["value"] > 0.8
    cells = json.loads((tmp_path / "audit" / MANIFEST).read_text())["cells"]
    for name in ("member", "nonmember"):
        files = [{row["file"] for row in cells[f"{kind}_{name}"]} for kind in ("aux", "test")]
        assert [len(part) for part in files] == [6, 6]
        assert files[0] | files[1] == {f"{name}s/{p.name}" for p in folders[f"{name}s"].glob("*.png")}
    assert cells["reference"] == []
    quality = ["--num_images", "20", "--num_inference_steps", "2", "--output_dir", str(tmp_path / "quality")]
    assert main(["evaluate", *adapter, *quality]) == 0
    assert json.loads((tmp_path / "quality" / "quality.json").read_text())["against"]["held_out"]["n"] == 6


def test_a_fine_tuned_model_is_an_adapter_too(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(BUNDLED_FOLDER, tuned)
    command = ["audit", "--adapter", str(tuned), "--pretrained_model_name_or_path", "tiny", *pools(folders), *QUICK]
    command += ["--output_dir", str(tmp_path / "audit")]
    assert "changes nothing" in refused(capsys, *command)
    weights = tuned / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({name: tensor * 1.01 for name, tensor in state.items()}, weights)
    loaded = load_any(parse("audit", command[1:]), None)
    assert loaded.adapted.adaptation.components(loaded.model) == ["unet"]
    now = dict(loaded.model.denoiser.named_parameters())
    assert all(torch.equal(now[name], tensor * 1.01) for name, tensor in state.items())
    with loaded.adapted.without():
        assert all(torch.equal(now[name], tensor) for name, tensor in state.items())
    config = tuned / "unet" / "config.json"
    config.write_text(config.read_text().replace('"cross_attention_dim": 64', '"cross_attention_dim": 32'))
    halved = {n: t[:, : t.shape[1] // 2] if "attn2.to_k" in n or "attn2.to_v" in n else t for n, t in state.items()}
    save_file({name: tensor.contiguous() for name, tensor in halved.items()}, weights)
    assert "--adapter got" in (said := refused(capsys, *command))
    assert "which does not work as a whole" in said, "its U-Net does not fit its text encoder"
    command[command.index(str(tuned))] = str(build("sd1", tmp_path / "other"))
    assert "they differ in unet." in refused(capsys, *command)


def test_what_the_header_says_is_used_unless_an_option_is_given(
    run: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    told = {"ss_clip_skip": "2", "ss_max_token_length": "None", "ss_resolution": "(16, 16)", "ss_enable_bucket": "True"}
    save_file(load_file(run / KOHYA_FILE), tmp_path / "lora.safetensors", told)
    command = ["--adapter", str(tmp_path / "lora.safetensors"), "--pretrained_model_name_or_path", "tiny"]
    command += [*pools(folders), "--output_dir", str(tmp_path), "--enable_bucket", "false"]
    loaded = load_any(parse("audit", command), None)
    assert (loaded.resolution, loaded.model.text.clip_skip, loaded.model.text.chunks) == (16, 2, 1)
    assert loaded.latent_size is None


def test_embeddings_beside_an_adapter_are_said(
    run: Path, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = {f"bundle_emb.{word}.clip_l": torch.ones(1, 64) for word in ("cat", "dog")}
    save_file(load_file(run / KOHYA_FILE) | bundle, tmp_path / "lora.safetensors")
    command = ["--adapter", str(tmp_path / "lora.safetensors"), "--pretrained_model_name_or_path", "tiny"]
    load_any(parse("audit", [*command, *pools(folders), "--output_dir", str(tmp_path)]), None)
    assert "also holds 2 learned embeddings ('cat', 'dog'), which are not used" in capsys.readouterr().err


def test_what_cannot_be_audited_is_said_in_a_line(
    run: Path, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("--pretrained_model_name_or_path", "tiny")
    output = ("--output_dir", tmp_path / "audit", *QUICK)
    file = tmp_path / "lora.safetensors"
    shutil.copy(run / ADAPTER_FILE, file)
    tensors = load_file(file)

    def said(adapter: object, *options: object) -> str:
        return refused(capsys, "audit", "--adapter", adapter, *(options or pools(folders)), *base, *output)

    def changed(**changes: torch.Tensor) -> str:
        save_file({name: t.contiguous() for name, t in changes.items()}, tmp_path / "changed.safetensors")
        return said(tmp_path / "changed.safetensors")

    needs = refused(capsys, "audit", "--adapter", file)
    assert all(f"--{n}" in needs for n in ("pretrained_model_name_or_path", "members", "nonmembers", "output_dir"))
    assert "give --train_data_dir" in said(file, "--split_manifest", run / MANIFEST)
    assert "two ways" in said(file, *pools(folders), "--split_manifest", run / MANIFEST)
    assert "is a run, which knows its own" in said(run)
    assert "does not exist" in said(tmp_path / "nothing.safetensors")
    assert "is not a run folder" in refused(capsys, "audit", "--adapter", tmp_path / "nothing.safetensors")
    assert "0 .safetensors files" in said(folders["members"])
    (tmp_path / "pickle.ckpt").write_bytes(b"")
    assert "a pickle" in said(tmp_path / "pickle.ckpt")
    assert "--pretrained_model_name_or_path got 'sd.ckpt', a pickle" in refused(
        capsys, "audit", "--adapter", file, *pools(folders), "--pretrained_model_name_or_path", "sd.ckpt", *output
    )
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "pickles")
    weights = tmp_path / "pickles" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    there = ("--pretrained_model_name_or_path", tmp_path / "pickles")
    assert "unet/ holds pickles" in refused(capsys, "audit", "--adapter", file, *pools(folders), *there, *output)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    assert "damaged" in said(tmp_path / "broken.safetensors")
    (tmp_path / "pointer.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is a git-lfs pointer: the file itself was not downloaded" in said(tmp_path / "pointer.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "is a pipe or a device, not a file" in said(tmp_path / "pipe.safetensors")
    assert "is a pipe or a device, not a file" in said("/dev/null")
    save_file(tensors, tmp_path / "told.safetensors", {"ss_clip_skip": "9"})
    assert "says ss_clip_skip = '9': --clip_skip got 9; allowed: 1 to" in said(tmp_path / "told.safetensors")
    assert "the file is of FLUX" in changed(**{"lora_unet_single_blocks_0_linear1.alpha": torch.ones(1)})
    first = next(name for name in tensors if name.endswith("lora_B.weight"))
    assert "not numbers" in changed(**{**tensors, first: tensors[first] * float("nan")})
    assert "changes nothing" in changed(**{n: t * 0 if "lora_B" in n else t for n, t in tensors.items()})
    assert "maps" in changed(**{**tensors, first: torch.cat([tensors[first]] * 2)})
    assert "it has no layer unet.up_blocks.9" in changed(
        **{n.replace("up_blocks.1", "up_blocks.9").replace("up_blocks.0", "up_blocks.9"): t for n, t in tensors.items()}
    )
    one = tmp_path / "one"
    one.mkdir()
    picture = next(folders["members"].glob("*.png"))
    for part in (picture, picture.with_suffix(".txt")):
        shutil.copy(part, one / part.name)
    assert "--members has 1 image;" in said(file, *pools({**folders, "members": one}))
    assert "share 1 pictures" in said(file, *pools({**folders, "nonmembers": one}))
    (one / picture.with_suffix(".txt").name).unlink()
    assert "no caption" in said(file, *pools({**folders, "members": one}))
    assert "not a folder" in said(file, *pools({**folders, "members": tmp_path / "gone"}))
