"""What every adaptation promises, on the bundled model and on a small random SD 1.x checkpoint."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from checkpoints import build, stock
from conftest import short_config
from smplora.adapters.base import PublishedAdaptation
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.catalogue.adaptations import ADAPTATIONS
from smplora.config.train import TrainConfig
from smplora.core import registry
from smplora.core.files import BUNDLED_FOLDER
from smplora.experiments.tasks import train
from smplora.models.adapted import Adapted
from smplora.models.diffusion import LatentDiffusion
from smplora.models.load import load_model
from smplora.runs.subject import find_subject, load_subject

CPU = torch.device("cpu")
MODELS = ("bundled", "sd1")
CAPTION = "a handwritten six"
MORE: dict[str, dict[str, Any]] = {  # options of each method
    "lora": {"lora_targets": "all"},
    "full": {},
    "dreambooth": {"class_prompt": "a handwritten digit", "num_class_images": 2},
    "textual_inversion": {"initializer_token": "handwritten", "num_vectors": 2},
}
TEXT = {name: {"train_text_encoder": True, "text_encoder_lr": 1e-3} for name in ("lora", "full", "dreambooth")}


def into_lora(pipeline: StableDiffusionPipeline, run: Path) -> StableDiffusionPipeline:
    pipeline.load_lora_weights(run, weight_name=ADAPTER_FILE)
    return pipeline


def into_full(pipeline: StableDiffusionPipeline, run: Path) -> StableDiffusionPipeline:
    return stock("sd1", run)


def into_inversion(pipeline: StableDiffusionPipeline, run: Path) -> StableDiffusionPipeline:
    pipeline.load_textual_inversion(run, weight_name="learned_embeds.safetensors")
    return pipeline


STOCK: dict[str, Callable[[StableDiffusionPipeline, Path], StableDiffusionPipeline]] = {
    "lora": into_lora,
    "full": into_full,
    "dreambooth": into_full,
    "textual_inversion": into_inversion,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"bundled": BUNDLED_FOLDER, "sd1": build("sd1", tmp_path_factory.mktemp("sd1"))}


@pytest.fixture(scope="module")
def pictures(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few, with names and captions that can be searched for."""
    folder = tmp_path_factory.mktemp("qzfolderqz")
    for number in range(14):
        shutil.copy(image_folder / f"{number:04d}.png", folder / f"qzfile{number}qz.png")
        (folder / f"qzfile{number}qz.txt").write_text(f"qzwords{number % 3}qz six")
    return folder


def options(name: str, pictures: Path, output: Path, model: Path, **changes: Any) -> TrainConfig:
    settings = {"pretrained_model_name_or_path": str(model), "aux_size": 2, "test_size": 3, "train_batch_size": 2}
    config: TrainConfig = short_config(
        pictures, output, **{**settings, "adaptation": name, "max_train_steps": 2, "checkpointing_steps": 1,
                             "learning_rate": 1e-2 if name == "textual_inversion" else 1e-3, **MORE[name], **changes}
    )  # fmt: skip
    assert not config.problems()
    return config


def attached(name: str, folder: Path, **changes: Any) -> tuple[LatentDiffusion, PublishedAdaptation]:
    model = load_model(str(folder), CPU)
    config = options(name, Path("."), Path("run"), folder, **changes)
    adaptation: PublishedAdaptation = registry.build(ADAPTATIONS, name, "adaptation", config)
    adaptation.attach(model)
    return model, adaptation


def answer(model: LatentDiffusion, caption: str) -> Tensor:
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict(noise, torch.tensor([100, 600]), model.encode_captions([caption] * 2, 32))


def words(name: str) -> tuple[str, str]:
    """A caption for the adapted model, and what means the same to the base model."""
    if name == "textual_inversion":
        return "a <smplora> six", "a handwritten handwritten six"
    return CAPTION, CAPTION


@pytest.fixture(scope="module")
def runs(
    pictures: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """One finished SMP run of each method on each model."""
    made: dict[tuple[str, str], Path] = {}

    def make(name: str, model: str) -> Path:
        if (name, model) not in made:
            config = options(name, pictures, tmp_path_factory.mktemp("runs") / "run", folders[model])
            made[name, model] = train(config, progress=False)
        return made[name, model]

    return make


def test_every_method_is_here() -> None:
    assert MORE.keys() == STOCK.keys() == ADAPTATIONS.keys()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ADAPTATIONS)
def test_starts_as_the_base_model_and_keeps_its_state(name: str, model: str, folders: dict[str, Path]) -> None:
    caption, plain = words(name)
    base = answer(load_model(str(folders[model]), CPU), plain)
    adapted, adaptation = attached(name, folders[model])
    assert torch.equal(answer(adapted, caption), base)
    for component, parameters in adaptation.attach(load_model(str(folders[model]), CPU)).items():
        assert parameters, component
        assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    changed = {key: tensor + 0.01 for key, tensor in adaptation.state_dict(adapted).items()}
    adaptation.load_state_dict(adapted, changed)
    again = adaptation.state_dict(adapted)
    assert all(torch.equal(again[key], tensor) for key, tensor in changed.items())
    with pytest.raises(KeyError):
        adaptation.load_state_dict(adapted, dict(list(changed.items())[1:]))
    with Adapted(adapted, adaptation).without():
        assert torch.equal(answer(adapted, caption), base)
    again = adaptation.state_dict(adapted)
    assert all(torch.equal(again[key], tensor) for key, tensor in changed.items())


@pytest.mark.parametrize("objective", ["lora", "mp_lora"])  # SMP: the other tests' runs
@pytest.mark.parametrize("name", ADAPTATIONS)
def test_trains_under_every_objective(
    name: str, objective: str, pictures: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    config = options(name, pictures, tmp_path / "run", folders["bundled"], objective=objective)
    run = train(config, progress=False)
    adaptation = find_subject(str(run)).adaptation
    first, last = (adaptation.read(f) for f in (run / "checkpoints" / "checkpoint-1", run))
    assert any(not torch.equal(first[key], tensor) for key, tensor in last.items())


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_resumed_run_is_the_same_bit_for_bit(
    name: str, runs: Callable[[str, str], Path], pictures: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    """With a moving average too, which is what is published."""
    changes: dict[str, Any] = {"use_ema": True, "ema_decay": 0.5, **TEXT.get(name, {})}
    config = options(name, pictures, tmp_path / "run", folders["bundled"], **changes)
    run = train(config, progress=False)
    subject = find_subject(str(run))
    whole = subject.adapter_sha256
    assert whole != find_subject(str(runs(name, "bundled"))).adapter_sha256
    config = options(
        name, pictures, tmp_path / "run", folders["bundled"], **changes, resume_from_checkpoint="checkpoint-1"
    )
    train(config, progress=False)
    assert subject.adapter_sha256 == whole


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ADAPTATIONS)
def test_stock_diffusers_reads_what_is_published(
    name: str, model: str, runs: Callable[[str, str], Path], folders: dict[str, Path]
) -> None:
    run = runs(name, model)
    caption, plain = words(name)
    adapted = load_subject(str(run), None, "cpu").adapted
    base, ours = answer(load_model(str(folders[model]), CPU), plain), answer(adapted.model, caption)
    with adapted.without():
        assert torch.equal(answer(adapted.model, caption), base)
    pipeline = STOCK[name](stock("sd1", folders[model]), run)
    z = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        told, _ = pipeline.encode_prompt([caption] * 2, CPU, 1, False)
        theirs = pipeline.unet(z, torch.tensor([100, 600]), told).sample
    assert (ours - base).norm() > 1e-4 * base.norm()
    assert (theirs - ours).norm() / (ours - base).norm() < 1e-5 * max(1, float(base.norm() / (ours - base).norm()))


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_nothing_of_the_images_is_published(
    name: str, runs: Callable[[str, str], Path], tmp_path: Path, folders: dict[str, Path]
) -> None:
    for folder in (runs(name, "sd1"), runs(name, "sd1") / "checkpoints" / "checkpoint-1"):
        out = tmp_path / f"out-{folder.name}"
        assert main(["export", "--adapter", str(folder), "--output_dir", str(out)]) == 0
        files = [path for path in out.rglob("*") if path.is_file()]
        assert not [p for p in files if p.suffix not in (".safetensors", ".json", ".txt", ".md")]
        for path in files:
            content = path.read_bytes()
            assert not re.findall(rb"qz\w*qz", content), path
            assert str(folders["sd1"].parent).encode() not in content, path
    assert (out / "README.md").read_text().count("from_pretrained") == 1


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_audit_and_evaluation_through_the_command(
    name: str, runs: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs(name, "bundled"))
    few = ["--num_timesteps", "2", "--noise_pairs", "1", "--attacks", "[loss,calibrated_loss]", "--output_dir"]
    assert main(["audit", "--adapter", run, *few, str(tmp_path / "audit")]) in (0, 3)
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert content["subject"]["adaptation"] == name
    assert content["subject"]["adapter_sha256"] == find_subject(run).adapter_sha256
    pictures = ["--num_images", "20", "--num_inference_steps", "1", "--output_dir", str(tmp_path / "quality")]
    status = main(["evaluate", "--adapter", run, *pictures])
    assert status == 0, capsys.readouterr().err
