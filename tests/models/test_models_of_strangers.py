"""Base models whose files say what cannot be: one line that names the option, the file and the field, never a
traceback. One field or file of the bundled model is changed at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from encoder_folders import saved
from smplora.cli.main import main
from smplora.core.errors import CheckpointError, UserError
from smplora.core.files import BUNDLED_FOLDER
from smplora.models.diffusers_format import KNOWN_TITLES
from smplora.models.encoders.transformers import load_encoder
from smplora.models.families import FAMILIES
from smplora.models.load import load_model

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")
CONFIGS = {"unet": "unet/config.json", "vae": "vae/config.json", "text": "text_encoder/config.json",
           "noise": "scheduler/scheduler_config.json", "tokens": "tokenizer/tokenizer_config.json",
           "index": "model_index.json"}  # fmt: skip
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
FIELDS: dict[str, dict[str, list[Any]]] = {
    "unet": {
        "attention_head_dim": [0, "4", [0]], "sample_size": ["big", 0, 10**9, [8, 8]], "norm_eps": [NAN, 0, "1"],
        "block_out_channels": [[10**6] * 2, [10**30], "32", [], [32, "64"]], "layers_per_block": [10**6, 0],
        "down_block_types": [[], ["Nothing"] * 2, "DownBlock2D"], "cross_attention_dim": [63, 10**7, [64]],
        "norm_num_groups": [0, 3], "act_fn": ["nonsense", None], "transformer_layers_per_block": [10**6, [[[1]]]],
        "mid_block_scale_factor": [INF], "class_embed_type": ["timestep"], "_class_name": ["MyUNet"],
        "freq_shift": ["a"], "in_channels": [9], "quantization_config": [{"a": 1}],
        "auto_map": [{"AutoModel": "code.Model"}], "_diffusers_version": [[1]], "dtype": ["nonsense"],
    },
    "vae": {
        "scaling_factor": [0, NAN, "x", True, None], "shift_factor": [0.1], "latent_channels": [16],
        "out_channels": [1], "block_out_channels": [[16, 32]], "layers_per_block": [2], "use_quant_conv": [False],
    },
    "text": {
        "num_attention_heads": [0, 3], "hidden_size": [10**6, 63], "vocab_size": [10, "a"], "eos_token_id": [-1],
        "max_position_embeddings": [10**9, 2, 12], "num_hidden_layers": [1, 3, 10**6], "hidden_act": ["nonsense"],
        "dtype": ["int8"], "return_dict": [False], "architectures": [["MyText"]], "model_type": ["t5"],
    },
    "noise": {
        "num_train_timesteps": [0, "1000", 10**9, 1.5], "beta_start": [0, NAN, "a"], "beta_end": [INF, 5],
        "beta_schedule": ["nonsense", 0], "trained_betas": [[], [NAN] * 1000, "a"], "timestep_spacing": [0],
        "prediction_type": ["sample", 0], "steps_offset": [-1], "thresholding": [True],
        "_class_name": ["os", "FlowMatchEulerDiscreteScheduler"],
    },
    "tokens": {"model_max_length": [1, NAN, 17, "a"], "bos_token": [3], "tokenizer_class": ["T5Tokenizer"]},
    "index": {
        "_class_name": [None, ["code", "Pipeline"], "FluxPipeline", "StableDiffusion3Pipeline"],
        "unet": [None, ["code", "MyUNet"], 3, ["diffusers"]], "scheduler": [[1, 2]],
        "vae": [["diffusers", "AutoencoderTiny"]], "force_zeros_for_empty_prompt": ["yes"],
        "text_encoder_2": [["transformers", "CLIPTextModelWithProjection"]],
    },
}  # fmt: skip
TEXTS = [
    b"",
    b"[1]",
    b"null",
    b"hello",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"a": "\xff"}',
    b'{"a": 1, "a": 2}',
    b'{"a": ' + b"9" * 5000 + b"}",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(BUNDLED_FOLDER, tmp_path_factory.mktemp("models") / "model")


def refused(folder: Path) -> str:
    """The message about a model, without its first words."""
    with pytest.raises(CheckpointError) as caught:
        load_model(str(folder), CPU)
    message = str(caught.value)
    start = f"--pretrained_model_name_or_path got '{folder}', w"
    assert message.startswith((start, f"'{folder}' ")), message
    assert "\n" not in message
    return message.removeprefix(start)


@pytest.mark.parametrize("config", FIELDS)
def test_fields(config: str, folder: Path) -> None:
    path = folder / CONFIGS[config]
    before = path.read_text()
    try:
        for field, values in FIELDS[config].items():
            for value in values:
                path.write_text(json.dumps({**json.loads(before), field: value}))
                message = refused(folder)
                told = CONFIGS[config], path.parent.name + "/", "predicts"
                assert any(words in message for words in told), (field, value, message)
    finally:
        path.write_text(before)


def test_other_families_by_name(folder: Path) -> None:
    path = folder / "model_index.json"
    before = path.read_text()
    for name, family in (("FluxKontextPipeline", "(FLUX)"), ("SanaPipeline", "(Sana)")):
        path.write_text(json.dumps({**json.loads(before), "_class_name": name}))
        assert f"{name} {family}; smplora knows {KNOWN_TITLES}" in refused(folder)
    path.write_text(before)
    assert all(family.TITLE in KNOWN_TITLES for family in FAMILIES)
    assert load_model(str(folder), CPU).digest == load_model("tiny", CPU).digest


@pytest.mark.parametrize("file", [*CONFIGS.values(), "tokenizer/tokenizer.json"])
def test_files_that_are_no_settings(file: str, folder: Path) -> None:
    path = folder / file
    before = path.read_bytes()
    for content in TEXTS:
        path.write_bytes(content)
        assert file in refused(folder) or file == "tokenizer/tokenizer.json"
    os.truncate(path, 10**10)
    assert file in refused(folder)
    path.unlink()
    os.mkfifo(path)
    assert file in refused(folder)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert file in refused(folder)
    path.unlink()
    path.write_bytes(before)


def changed(file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Of a model's folder: some weights."""

    def edit(folder: Path) -> None:
        weights = load_file(folder / file)
        change(weights)
        save_file(weights, folder / file)

    return edit


def sharded(shard: object) -> Callable[[Path], None]:
    """A model whose U-Net is in shards of this name."""

    def edit(folder: Path) -> None:
        index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(folder / UNET), shard)}
        (folder / UNET).rename(folder / "unet" / "a.safetensors")
        (folder / f"{UNET}.index.json").write_text(json.dumps(index))

    return edit


def put(name: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights.update({name: tensor})


def written(file: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(content) and None


FOLDERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("unet/ lacks 1 weight by its config.json, such as conv_in.bias", changed(UNET, lambda w: w.pop("conv_in.bias"))),
    ("unet/ has 1 weight too many by its config.json, such as more", changed(UNET, put("more", torch.zeros(1)))),
    ("conv_in.bias expected shape", changed(UNET, put("conv_in.bias", torch.zeros(3)))),
    ("unet has weights that are not finite in", changed(UNET, put("conv_in.bias", torch.full((32,), NAN)))),
    ("I64 numbers in conv_in.bias", changed(UNET, put("conv_in.bias", torch.zeros(32, dtype=torch.long)))),
    ("text_encoder/ lacks 1 weight", changed(TEXT, lambda w: w.pop(min(w)))),
    ("text_encoder/ has 1 weight of another shape", changed(TEXT, lambda w: put(min(w), torch.zeros(2))(w))),
    ("lacks beta_start", written("scheduler/scheduler_config.json", "{}")),
    (f"{UNET} is not a safetensors file, or is damaged", lambda folder: os.truncate(folder / UNET, 5000)),
    ("unet/ has no diffusion_pytorch_model.safetensors", lambda folder: (folder / UNET).unlink()),
    ("allowed: the names of .safetensors files beside it", sharded("../a.safetensors")),
    ("allowed: the names of .safetensors files beside it", sharded("/etc/passwd")),
    ("index.json has weight_map", sharded(3)),
    ("tokenizer/ cannot be used", written("tokenizer/added_tokens.json", "[1]")),
    ("tokenizer/ has neither tokenizer.json nor", lambda folder: (folder / "tokenizer/tokenizer.json").unlink()),
    ("is of an adapter", written("text_encoder/adapter_config.json", '{"base_model_name_or_path": "x"}')),
    ("it has no folder vae", lambda folder: shutil.rmtree(folder / "vae")),
]  # fmt: skip


def test_weights_and_vocabularies(tmp_path: Path) -> None:
    for number, (words, edit) in enumerate(FOLDERS):
        copy = shutil.copytree(BUNDLED_FOLDER, tmp_path / str(number))
        edit(copy)
        assert words in refused(copy)
        shutil.rmtree(copy)


def test_shards_beside_their_index_are_read(tmp_path: Path) -> None:
    copy = shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    sharded("a.safetensors")(copy)
    assert load_model(str(copy), CPU).digest == load_model("tiny", CPU).digest


def test_a_length_that_the_tokenizer_does_not_state_is_its_encoders(tmp_path: Path) -> None:
    copy = shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    (copy / CONFIGS["tokens"]).unlink()
    assert load_model(str(copy), CPU).text.tokenizer.model_max_length == 16


def test_code_of_a_model_is_never_run(tmp_path: Path) -> None:
    """Neither a base model's nor an image encoder's."""
    copy = shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    saved("dino", tmp_path / "encoder")
    for folder, file in (
        (copy, copy / "text_encoder/config.json"),
        (tmp_path / "encoder", tmp_path / "encoder/config.json"),
    ):
        (file.parent / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        own = {"auto_map": dict.fromkeys(("AutoConfig", "AutoModel", "AutoImageProcessor"), "code.Model")}
        file.write_text(json.dumps({**json.loads(file.read_text()), **own}))
        with pytest.raises(UserError, match=r"has auto_map: .*never run"):
            load_model(str(folder), CPU) if folder == copy else load_encoder(str(folder), "cpu")
    assert not (tmp_path / "ran").exists()


def test_image_encoders(tmp_path: Path) -> None:
    saved("dino", tmp_path)
    path = tmp_path / "config.json"
    before = path.read_text()
    for changes in (
        {"num_hidden_layers": 10**6},
        {"hidden_size": 10**6},
        {"image_size": NAN},
        {"model_type": "nothing"},
        {"num_hidden_layers": 2},
    ):
        path.write_text(json.dumps({**json.loads(before), **changes}))
        with pytest.raises(UserError, match=r"^--attack_encoder got "):
            load_encoder(str(tmp_path), "cpu")


def test_small_single_files(tmp_path: Path) -> None:
    names = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x", "cond_stage_model.transformer.x")
    for shape in ((4, 4, 3, 3), (), (0,)):
        save_file({name: torch.zeros(shape) for name in names}, tmp_path / "a.safetensors")
        assert "\n" not in refused(tmp_path / "a.safetensors")


def test_through_the_command(
    folder: Path, noise_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "unet" / "config.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "attention_head_dim": 0}))
    words = ["--train_data_dir", str(noise_folder), "--output_dir", str(tmp_path / "run"), "--device", "cpu"]
    words += ["--aux_size", "2"]
    assert main(["train", "--pretrained_model_name_or_path", str(folder), *words]) == 2
    path.write_text(before)
    said = capsys.readouterr().err.splitlines()[-1]  # before it stands what was read of the images
    assert said.startswith("smplora: --pretrained_model_name_or_path got ")
    assert "unet/config.json has attention_head_dim 0; allowed: greater than or equal to 1" in said
    assert not (tmp_path / "run").exists()


PUBLISHED = {  # of SD 1.5, 2.1 and SDXL, as their authors published them
    "scheduler/scheduler_config.json": [
        {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1},
        {"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "prediction_type": "v_prediction"},
        {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear", "use_karras_sigmas": False},
        {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -1e9, "solver_order": 2},
    ],
    "model_index.json": [
        {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "image_encoder": [None, None],
         "feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": True},
    ],
    "text_encoder/config.json": [
        {"_name_or_path": "openai/clip-vit-large-patch14", "torch_dtype": "float32", "dropout": 0.0, "eos_token_id": 2,
         "transformers_version": "4.22.0.dev0"},
    ],
}  # fmt: skip


def test_what_published_models_say_besides_is_no_fault(tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    for several in zip_longest(*PUBLISHED.values(), fillvalue=dict[str, Any]()):
        for file, more in zip(PUBLISHED, several, strict=True):
            before = json.loads((BUNDLED_FOLDER / file).read_text())
            (folder / file).write_text(json.dumps({**before, **more}))
        load_model(str(folder), CPU)


def test_weights_of_older_versions_are_the_same_model(tmp_path: Path) -> None:
    """SD 1.5 as it was published: the VAE's attention under old names, and the text encoder's places as weights."""
    folder = shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    text, vae = folder / TEXT, folder / "vae/diffusion_pytorch_model.safetensors"
    places = load_file(text)["embeddings.position_embedding.weight"]
    named = {f"text_model.{name}": tensor for name, tensor in load_file(text).items()}
    save_file({**named, "text_model.embeddings.position_ids": torch.arange(len(places))[None]}, text, {"format": "pt"})
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = load_file(vae)
    for new, former in old.items():
        weights = {name.replace(new, former) if "attentions" in name else name: t for name, t in weights.items()}
    assert sum(".proj_attn." in name for name in weights) == 4
    save_file(weights, vae, {"format": "pt"})
    assert load_model(str(folder), CPU).digest == load_model("tiny", CPU).digest
