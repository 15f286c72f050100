"""The bundled model is an ordinary diffusers folder, and adapters are ordinary adapter files."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, ZImagePipeline
from safetensors import safe_open

from smplora.adapters.files.write import ADAPTER_FILE
from smplora.config.data import DataOptions
from smplora.core.errors import CheckpointError
from smplora.core.files import BUNDLED, BUNDLED_FOLDER
from smplora.core.version import __version__
from smplora.data.digits import PRETRAINING_DIGITS, caption, digit_images
from smplora.data.encode import encode
from smplora.data.pool import open_source, read_samples
from smplora.data.prepare import Preparation
from smplora.models.diffusion import SAMPLERS
from smplora.models.load import load_model
from smplora.runs.folder import RunFolder
from smplora.runs.subject import load_subject

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(BUNDLED_FOLDER, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.parametrize("folder", [folder for _, folder in BUNDLED.values()], ids=[*BUNDLED])
def test_each_is_under_six_megabytes_and_says_whose_it_is(folder: Path) -> None:
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 6_000_000
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    assert "CC BY 4.0" in (folder / "README.md").read_text()
    configurations = [p.read_text() for p in folder.rglob("*config.json")]
    assert not [text for text in configurations if re.search(r'_name_or_path": "[^"]', text)]  # whose machine it was


@pytest.mark.parametrize("kind", [StableDiffusionPipeline, ZImagePipeline])
def test_stock_pipeline_samples_the_digit_that_is_asked_for(
    pipeline: StableDiffusionPipeline, kind: type[DiffusionPipeline]
) -> None:
    """Most samples of each digit 0 to 4 are nearest, in pixels, to the mean picture of that digit."""
    asked: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 1.0, "output_type": "np"}
    if kind is ZImagePipeline:
        pipeline = kind.from_pretrained(BUNDLED["tiny-flow"][1], local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        asked |= {"guidance_scale": 0.0, "height": 32, "width": 32}
    pictures, labels = digit_images(PRETRAINING_DIGITS)
    pixels = np.stack([np.asarray(p, dtype=float)[..., 0] for p in pictures])
    means = np.stack([pixels[np.array(labels) == d].mean(0) for d in PRETRAINING_DIGITS])
    right = 0
    for digit in PRETRAINING_DIGITS:
        rngs = [torch.Generator().manual_seed(i) for i in range(6)]
        made = pipeline([caption(digit)] * 6, generator=rngs, **asked).images
        distances = ((made[..., 0][:, None] * 255 - means[None]) ** 2).mean((2, 3))
        right += int((distances.argmin(1) == digit).sum())
    assert right >= 24, f"{right} of 30"


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_our_sampler_is_the_stock_one(pipeline: StableDiffusionPipeline, sampler: str) -> None:
    model = load_model("tiny", CPU)
    prompts = [caption(2), caption(3)]
    at_random = {"algorithm_type": "sde-dpmsolver++"} if sampler == "dpmsolver++" else {}  # as some models have it
    model.scheduler.register_to_config(**at_random)
    kind = getattr(diffusers, SAMPLERS[sampler])
    pipeline.scheduler = kind.from_config(load_model("tiny", CPU).scheduler.config)
    for guidance in (1.0, 3.0):
        rngs = [torch.Generator().manual_seed(i) for i in (5, 6)]
        stock = pipeline(
            prompts, num_inference_steps=5, guidance_scale=guidance, generator=rngs, output_type="np"
        ).images
        asked = {"resolution": 32, "num_inference_steps": 5, "guidance_scale": guidance, "sampler": sampler}
        ours = model.generate(prompts, [5, 6], **asked)
        np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy(), stock, atol=2e-4)


def test_reconstruction_of_digits_it_has_never_seen() -> None:
    model = load_model("tiny", CPU)
    pictures, _ = digit_images(range(5, 10))
    x = torch.from_numpy(np.stack([np.asarray(p) for p in pictures[:100]])).permute(0, 3, 1, 2).float() / 127.5 - 1
    mean, _ = model.encode_images(x)
    with torch.no_grad():
        back = model.vae.decode(mean / model.vae.config.scaling_factor).sample
    assert (back - x).square().mean() < 0.006
    assert 0.7 < mean.std() < 1.3


def test_captions_in_common_words_and_any_others() -> None:
    tokenizer = load_model("tiny", CPU).text.tokenizer
    assert len(tokenizer("a handwritten five").input_ids) == 5
    ids = tokenizer("Zürich, 3 naïve cats!").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "zürich,3naïvecats!"


def test_encoding_keeps_the_order_and_the_captions(image_folder: Path) -> None:
    model = load_model("tiny", CPU)
    source = open_source(DataOptions(train_data_dir=str(image_folder)))
    samples = read_samples(source)
    whole = encode(model, source, samples, Preparation(32)).whole()
    one = encode(model, source, samples[13:14], Preparation(32)).whole()
    assert torch.allclose(whole.mean[13], one.mean[0], atol=1e-5)
    assert torch.allclose(whole.std[13], one.std[0], atol=1e-5)
    assert torch.allclose(
        whole.conditioning["encoder_hidden_states"][13], one.conditioning["encoder_hidden_states"][0], atol=1e-5
    )
    assert whole.digests[13] == samples[13].digest


def test_adapter_loads_in_the_stock_pipeline_with_its_full_effect(
    trained_run: Path, pipeline: StableDiffusionPipeline
) -> None:
    loaded = load_subject(str(trained_run), None, "cpu")
    z, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 500])
    states = loaded.model.encode_captions([caption(5), caption(6)], 32)["encoder_hidden_states"]
    with torch.no_grad():
        ours = loaded.model.denoiser(z, t, states).sample
        base = pipeline.unet(z, t, states).sample
        pipeline.load_lora_weights(trained_run, weight_name=ADAPTER_FILE)
        stock = pipeline.unet(z, t, states).sample
        pipeline.unload_lora_weights()
    effect = (ours - base).norm()
    assert effect > 1e-3
    assert (stock - ours).norm() / effect < 1e-5


def test_adapter_file_tells_nothing_about_the_images(trained_run: Path) -> None:
    with safe_open(trained_run / ADAPTER_FILE, "pt") as file:
        metadata = file.metadata()
    told = json.loads(metadata.pop("lora_adapter_metadata"))
    assert told.keys() == {f"unet.{k}" for k in ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora")}
    assert metadata == {
        "format": "pt",
        "smplora_version": __version__,
        "smplora_objective": "smp_lora",
        "smplora_family": "sd_v1",
        "smplora_resolution": "32",
        "smplora_base_model": "the bundled model",
        "smplora_layers_per_block": "1",
    }
    content = (trained_run / ADAPTER_FILE).read_bytes()
    assert b"handwritten" not in content
    assert b".png" not in content


def test_wrong_model_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither 'tiny', nor 'tiny-flow', nor a folder in diffusers format"):
        load_model(str(tmp_path), CPU)


def edited(folder: Path, file: str, **changes: object) -> Path:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))
    return folder


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("vae/config.json", {"scaling_factor": 0.3}),
        ("unet/config.json", {"norm_eps": 1e-3}),
        ("text_encoder/config.json", {"hidden_act": "gelu"}),
        ("scheduler/scheduler_config.json", {"beta_end": 0.013}),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "trailing"}),
    ],
)
def test_a_model_is_all_that_decides_its_output(file: str, changes: dict[str, object], tmp_path: Path) -> None:
    """Equal weights with other settings are another model: another digest, so other latents in the cache."""
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "a")
    plain = load_model("tiny", CPU)
    assert load_model(str(tmp_path / "a"), CPU).digest == plain.digest
    other = load_model(str(edited(tmp_path / "a", file, **changes)), CPU)
    assert other.digest != plain.digest
    assert other.weights_digest == plain.weights_digest


def test_another_tokenizer_is_another_model(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "a")
    files = {p.name: p for p in (tmp_path / "a" / "tokenizer").iterdir()}
    path = files.get("tokenizer.json") or files["vocab.json"]
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"] if path.name == "tokenizer.json" else content
    first, second = sorted(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content))
    assert load_model(str(tmp_path / "a"), CPU).digest != load_model("tiny", CPU).digest


def test_how_many_tokens_are_read_is_part_of_a_model(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "a")
    folder = edited(tmp_path / "a", "tokenizer/tokenizer_config.json", model_max_length=12)
    assert load_model(str(folder), CPU).digest != load_model("tiny", CPU).digest


@pytest.mark.parametrize("factor", [float("nan"), 0.0, -1.0, "big", True, None])
def test_a_factor_that_spoils_everything_is_refused(factor: object, tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "a")
    with pytest.raises(CheckpointError, match="scaling_factor"):
        load_model(str(edited(tmp_path / "a", "vae/config.json", scaling_factor=factor)), CPU)


def test_a_run_of_another_model_is_not_resumed(trained_run: Path, tmp_path: Path) -> None:
    model = load_model("tiny", CPU)
    run = RunFolder(trained_run)
    run.check_model(model)
    run.check_model(replace(model, digest="another", weights_digest=model.digest))  # as version 0.1 noted it
    with pytest.raises(CheckpointError, match="other weights, settings or tokenizer"):
        run.check_model(replace(model, digest="another"))


def test_the_size_to_train_at_is_not_guessed_from_a_strangers_vae(tmp_path: Path) -> None:
    """Libraries write a default there; of the bundled model it is known to be true."""
    shutil.copytree(BUNDLED["tiny-flow"][1], tmp_path / "a")
    assert [load_model(name, CPU).resolution for name in ("tiny-flow", str(tmp_path / "a"))] == [32, 1024]
