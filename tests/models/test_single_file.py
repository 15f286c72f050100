"""Base models in one file: the model of the folder it was made of, bit for bit, without network; what is refused."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from checkpoints import FAMILIES, build
from conftest import short_config
from said import complaint
from single_files import clip, open_clip, single_file, unet, vae
from smplora.adapters.lora import LoRAAdaptation
from smplora.cli.main import main
from smplora.core.errors import CheckpointError
from smplora.core.files import BUNDLED_FOLDER
from smplora.experiments.tasks import train
from smplora.models import single_file as reader
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.models.load import load_model, observed_prediction_type
from smplora.models.single_file import CONFIGS, clip_tokenizer, family_of_file
from smplora.models.text import ClipText, SdxlText
from smplora.runs.subject import load_subject

CPU = torch.device("cpu")
CAPTIONS = ["a red cat", "two dogs"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not because the hub's client was told so, as it is in all other tests."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def error_maps(model: LatentDiffusion) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    mean, std = model.encode_images(torch.rand(2, 3, 32, 32, generator=g) * 2 - 1)
    batch = Batch(mean, std, model.encode_captions(CAPTIONS, 32), ("a", "b"))
    draw = Draw(torch.tensor([100, 900]), torch.randn(mean.shape, generator=g), torch.randn(mean.shape, generator=g))
    with torch.no_grad():
        return model.error_maps(batch, draw)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_model_as_its_folder(family: str, tmp_path: Path) -> None:
    folder = build(family, tmp_path / "folder")
    file = single_file(family, folder, tmp_path / "model.safetensors")
    expected, model = load_model(str(folder), CPU), load_model(str(file), CPU, config=str(folder))
    assert model.digest == expected.digest  # every weight, under the same name
    assert (model.family, model.resolution) == (expected.family, expected.resolution)
    assert torch.equal(error_maps(model), error_maps(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_alone(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own configuration and vocabulary, stood in for by small ones of the same family."""
    family_folder = {"sd1": "sd1", "sd2_v": "sd2", "sdxl": "sdxl"}[family]
    folder = build(family, tmp_path / "configs" / family_folder, vocabulary=49408, text_layers=10, tokens=77)
    for name, pad in zip(("tokenizer", "tokenizer_2"), reader.PADDING[family_folder], strict=False):
        shutil.rmtree(folder / name)
        clip_tokenizer(pad).save_pretrained(folder / name)
    file = single_file(family, folder, tmp_path / "model.safetensors")
    monkeypatch.setattr(reader, "CONFIGS", tmp_path / "configs")
    if family == "sd2_v":  # known by its width of 1024, which is too much for a test
        monkeypatch.setattr(reader, "family_of_file", lambda *_: "sd2")
    model = load_model(str(file), CPU)
    assert torch.equal(error_maps(model), error_maps(load_model(str(folder), CPU)))
    assert model.scheduler.config.prediction_type == ("v_prediction" if family == "sd2_v" else "epsilon")


def test_clip_token_ids() -> None:
    """Known from CLIP's own tokenizer; SD 1.x and SDXL's first encoder pad with the end token, the others with "!"."""
    for pad, pad_id in (("<|endoftext|>", 49407), ("!", 0)):
        tokenizer = clip_tokenizer(pad)
        ids = tokenizer("A photo  of a cat", padding="max_length", max_length=77, truncation=True).input_ids
        assert ids == [49406, 320, 1125, 539, 320, 2368, 49407, *[pad_id] * 70]
        assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)


def true_model(family: str) -> LatentDiffusion:
    """The real size, without memory: tensors on the meta device."""
    folder = str(CONFIGS / family)
    with torch.device("meta"):
        net = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, subfolder="unet"))
        autoencoder = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
        first = CLIPTextModel(CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder"))
        text: Any = ClipText(first, None)
        if family == "sdxl":
            second = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder_2"))
            text = SdxlText(first, second, (None, None), True)
    scheduler = load_model("tiny", CPU).scheduler
    return LatentDiffusion(autoencoder, text, net, scheduler, family, "")


@pytest.mark.parametrize(
    ("family", "parameters"), [("sd1", 859_520_964), ("sd2", 865_910_724), ("sdxl", 2_567_463_684)]
)
def test_true_sizes(family: str, parameters: int) -> None:
    """The published parameter counts; a file of the true family is recognised; one training step's tensors fit."""
    model = true_model(family)
    assert sum(p.numel() for p in model.denoiser.parameters()) == parameters
    assert sum(p.numel() for p in model.vae.parameters()) == 83_653_863
    if family == "sdxl":
        first, second = model.text.encoders.values()
        assert sum(p.numel() for p in second.parameters()) == 694_659_840
        text = clip(first.state_dict(), "conditioner.embedders.0.transformer.")
        text |= open_clip(second.state_dict(), "conditioner.embedders.1.model.")
    else:
        states = model.text.encoders["text_encoder"].state_dict()
        text = open_clip(states, "cond_stage_model.model.") if family == "sd2" else clip(states, "cond_stage_model.t")
    content = unet(model.denoiser.state_dict(), 2) | vae(model.vae.state_dict()) | text
    assert family_of_file(content, "the file") == family

    size = model.denoiser.config.sample_size
    width = model.denoiser.config.cross_attention_dim
    told = {"encoder_hidden_states": torch.empty(1, 77, width, device="meta")}
    if family == "sdxl":
        told |= {"text_embeds": torch.empty(1, 1280, device="meta"), "time_ids": torch.empty(1, 6, device="meta")}
    latents = torch.empty(1, 4, size, size, device="meta")
    trained = LoRAAdaptation(rank=4, lora_alpha=4.0, lora_targets="all").attach(model)
    draw = Draw(torch.empty(1, dtype=torch.long, device="meta"), latents)
    loss = adaptation_loss(model.error_maps(Batch(latents, latents, told, ("a",)), draw))
    assert loss.shape == (1,)
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in trained["unet"])


def test_prediction_type_is_seen_stated_or_given(tmp_path: Path) -> None:
    """SD 2.x files rarely say what they predict. The bundled model predicts noise; as v = (eps - s z_t) / a it is seen
    to do that."""
    model = load_model("tiny", CPU)
    assert observed_prediction_type(model) == "epsilon"
    predict = model.predict
    a, s = model.alphas_cumprod[-1].sqrt(), (1 - model.alphas_cumprod[-1]).sqrt()
    model.predict = lambda z, t, told: (predict(z, t, told) - s * z) / a  # type: ignore[method-assign]
    assert observed_prediction_type(model) == "v_prediction"

    folder = build("sd1", tmp_path / "folder")
    assert load_model(str(folder), CPU, prediction_type="v_prediction").family == "sd_v2_v"
    for name, metadata, kind in (
        ("stated", {"modelspec.prediction_type": "v"}, "v_prediction"),
        ("silent", None, "epsilon"),
    ):
        file = single_file("sd1", folder, tmp_path / f"{name}.safetensors", metadata)
        loaded = load_model(str(file), CPU, config=str(folder))
        assert loaded.scheduler.config.prediction_type == kind
    marked = load_file(file) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file(marked, file)
    loaded = load_model(str(file), CPU, config=str(folder))
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert loaded.alphas_cumprod[-1] < 1e-6


def test_variant(tmp_path: Path) -> None:
    folder = build("sd1", tmp_path / "folder")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(CheckpointError, match="neither 'tiny'"):
        load_model(str(tmp_path / "half"), CPU)
    half = load_model(str(tmp_path / "half"), CPU, variant="fp16")
    assert {p.dtype for p in half.denoiser.parameters()} == {torch.float32}
    torch.testing.assert_close(error_maps(half), error_maps(load_model(str(folder), CPU)), rtol=0.02, atol=0.02)


def test_train_on_a_file_and_audit_it(tmp_path: Path, image_folder: Path) -> None:
    folder = build("sd1", tmp_path / "folder")
    file = single_file("sd1", folder, tmp_path / "model.safetensors")
    config = short_config(
        image_folder, tmp_path / "run", pretrained_model_name_or_path=str(file), model_config=str(folder),
        max_train_steps=2,
    )  # fmt: skip
    subject = load_subject(str(train(config, progress=False)), None, "cpu")
    assert subject.model.digest == load_model(str(folder), CPU).digest


def wrong_files(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """name -> (options, the words that say what is wrong and the way out)."""
    folder = build("sd1", tmp_path / "folder")
    whole = load_file(single_file("sd1", folder, tmp_path / "whole.safetensors"))
    net = {k: v for k, v in whole.items() if k.startswith("model.")}
    (tmp_path / "old.ckpt").write_bytes(b"\x80")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:5000])
    save_file(net, tmp_path / "net.safetensors")
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    save_file(whole | {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(1)}, tmp_path / "flux.safetensors")
    for part in ("middle_block.0", "layers.1.mlp"):
        save_file({k: v for k, v in whole.items() if part not in k}, tmp_path / f"no_{part}.safetensors")
    given = ["--model_config", str(folder)]
    return {
        "old.ckpt": ([], "a pickle, which can run any program when it is read; take the model's .safetensors file"),
        "none.safetensors": ([], "does not exist"),
        "cut.safetensors": (given, "is not a safetensors file, or is damaged"),
        "net.safetensors": (given, "has no VAE and no text encoder; a whole checkpoint is needed"),
        "lora.safetensors": (given, "is not a Stable Diffusion checkpoint"),
        "flux.safetensors": (given, "holds 'flux-schnell'; smplora knows Stable Diffusion 1.x, 2.x and SDXL"),
        "no_middle_block.0.safetensors": (given, "lacks weights of the U-Net or the VAE"),
        "no_layers.1.mlp.safetensors": (given, "lacks 4 weights of the text_encoder, such as "),
        "whole.safetensors": ([], "--model_config takes a folder in diffusers format with the right one"),
        "folder": (given, "--model_config is for base models in one .safetensors file"),
    }


def test_what_is_wrong_with_a_file(tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (options, words) in wrong_files(tmp_path).items():
        command = ["train", "--pretrained_model_name_or_path", str(tmp_path / name), "--device", "cpu"]
        more = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), *options]
        assert main(command + more) == 2, name
        said = complaint(capsys.readouterr().err).strip().splitlines()
        assert len(said) == 1, said
        assert words in said[0], said
        assert not (tmp_path / "run").exists()


def test_a_config_that_is_no_model(tmp_path: Path) -> None:
    file = single_file("sd1", build("sd1", tmp_path / "folder"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"--model_config got .* which is not a folder in diffusers format"):
        load_model(str(file), CPU, config=str(BUNDLED_FOLDER / "unet"))
