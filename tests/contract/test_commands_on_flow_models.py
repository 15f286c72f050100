"""Training, resuming, auditing, evaluating and exporting on flow-matching models, as people call them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flow_checkpoints import CHECKPOINTS
from smplora.adapters.files.write import ADAPTER_FILE, KOHYA_FILE
from smplora.cli.main import main
from smplora.models.families import sd3, z_image
from smplora.models.load import load_model
from smplora.runs.folder import DONE

CPU = torch.device("cpu")
FEW = ["--aux_size", "10", "--resolution", "32", "--rank", "2", "--train_batch_size", "4", "--device", "cpu"]
STEPS = ["--max_train_steps", "4", "--checkpointing_steps", "2", "--monitor_steps", "0", "--validation_steps", "0"]


@pytest.fixture(scope="module", autouse=True)
def short_captions() -> Iterator[None]:
    """Fewer tokens than the pipelines', which only take time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sd3, "LONGEST", 48)
        patch.setattr(z_image.ZImageText, "longest", 48)
        yield


@pytest.fixture(scope="module", params=["sd3", "z_image"])
def run(request: pytest.FixtureRequest, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    base = ["--pretrained_model_name_or_path", str(CHECKPOINTS[request.param](root / "model"))]
    words = ["--train_data_dir", str(image_folder), "--output_dir", str(root / "run"), "--objective", "smp_lora"]
    assert main(["train", *base, *words, *FEW, *STEPS, "--learning_rate", "0.01"]) == 0
    return root / "run"


def test_a_killed_run_ends_the_same(run: Path, tmp_path: Path) -> None:
    before = (run / ADAPTER_FILE).read_bytes()
    kept = shutil.copytree(run, tmp_path / "kept")
    for gone in (DONE, ADAPTER_FILE):
        (run / gone).unlink()
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    config = ["train", "--config", str(run / "config.yaml")]
    assert main(config) == 0
    assert (run / ADAPTER_FILE).read_bytes() == before
    shutil.rmtree(run)
    shutil.copytree(kept, run)


@pytest.mark.parametrize("run", ["sd3"], indirect=True)
def test_an_audit_sees_losses_paths_gradients_and_the_proxy(run: Path) -> None:
    """Of one family; how all of them are asked is tested in tests/models/families."""
    attacks = ["loss", "sima", "secmi", "gsa2", "proxy"]
    words = ["--attacks", f"[{', '.join(attacks)}]", "--noise_pairs", "1", "--num_timesteps", "1"]
    assert main(["audit", "--adapter", str(run), *words, "--memorisation", "false"]) == 0
    found = json.loads((run / "audit" / "audit.json").read_text())
    assert [attack["name"] for attack in found["attacks"]] == attacks


def test_images_are_compared_and_what_is_public_exported(run: Path, tmp_path: Path) -> None:
    """diffusers' layout alone: ComfyUI reads it too, under these names."""
    assert main(["evaluate", "--adapter", str(run), "--num_images", "20", "--num_inference_steps", "2"]) == 0
    assert main(["export", "--adapter", str(run), "--output_dir", str(tmp_path / "public")]) == 0
    public = {path.name for path in (tmp_path / "public").iterdir()} - {
        "certificate.html"
    }  # of those that were audited
    assert public == {"README.md", ADAPTER_FILE}
    assert not (run / KOHYA_FILE).exists()


@pytest.mark.parametrize("run", ["z_image"], indirect=True)
def test_an_adapter_without_a_run_is_audited(run: Path, tmp_path: Path, image_folder: Path) -> None:
    """It is the same adapter: so are its losses, and what they find. What files of each family are read as is tested in
    tests/models/families."""
    shutil.copy(run / ADAPTER_FILE, tmp_path / "a.safetensors")
    words = ["--train_data_dir", str(image_folder), "--split_manifest", str(run / "split.json"), "--resolution", "32"]
    base = ["--pretrained_model_name_or_path", str(run.parent / "model"), "--output_dir", str(tmp_path / "audit")]
    attacks = ["--attacks", "[loss, calibrated_loss]", "--noise_pairs", "1", "--num_timesteps", "1"]
    few = [*attacks, "--memorisation", "false"]
    assert main(["audit", "--adapter", str(tmp_path / "a.safetensors"), *words, *base, *few]) == 0
    assert main(["audit", "--adapter", str(run), *few]) == 0
    theirs, ours = (
        [attack["test"]["auc"]["value"] for attack in json.loads((folder / "audit.json").read_text())["attacks"]]
        for folder in (tmp_path / "audit", run / "audit")
    )
    assert theirs == ours


@pytest.mark.parametrize("run", ["z_image"], indirect=True)
def test_sixteen_bits_find_the_same(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And an evaluation says that it was made so. Losses of every family in bf16: tests/models/families."""
    words = ["--adapter", str(run), "--attacks", "[loss]", "--noise_pairs", "1", "--num_timesteps", "2"]
    scores = []
    for precision in ("no", "bf16"):
        where = ["--output_dir", str(tmp_path / precision), "--mixed_precision", precision]
        assert main(["audit", *words, *where, "--memorisation", "false"]) == 0
        scores.append(np.load(tmp_path / precision / "scores.npz")["loss/test"])
    assert np.corrcoef(scores)[0, 1] > 0.995
    assert (scores[1] != scores[0]).any()
    few = ["--num_images", "20", "--num_inference_steps", "2", "--mixed_precision", "bf16"]
    assert main(["evaluate", "--adapter", str(run), "--output_dir", str(tmp_path / "quality"), *few]) == 0
    assert json.loads((tmp_path / "quality" / "quality.json").read_text())["mixed_precision"] == "bf16"


def test_sixteen_bits_would_round_away_whole_differences(
    run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which some adapters of other trainers have."""
    weight = next(
        n for n, m in load_model(str(run.parent / "model"), CPU).denoiser.named_modules() if n.endswith("to_q")
    )
    size = load_model(str(run.parent / "model"), CPU).denoiser.get_submodule(weight).weight.shape
    save_file({f"transformer.{weight}.diff": torch.full(size, 1e-3)}, tmp_path / "a.safetensors")
    words = ["--train_data_dir", str(image_folder), "--split_manifest", str(run / "split.json"), "--resolution", "32"]
    base = ["--pretrained_model_name_or_path", str(run.parent / "model"), "--output_dir", str(tmp_path / "audit")]
    few = ["--attacks", "[loss]", "--noise_pairs", "1", "--num_timesteps", "1", "--memorisation", "false"]
    command = ["audit", "--adapter", str(tmp_path / "a.safetensors"), *words, *base, *few]
    assert main([*command, "--mixed_precision", "bf16"]) == 2
    assert "--mixed_precision bf16 is for LoRA on flow-matching models" in capsys.readouterr().err


@pytest.fixture(scope="module")
def whole_run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose transformer was trained, not an adapter."""
    root = tmp_path_factory.mktemp("whole")
    base = ["--pretrained_model_name_or_path", str(CHECKPOINTS["z_image"](root / "model")), "--adaptation", "full"]
    words = ["--train_data_dir", str(image_folder), "--output_dir", str(root / "run"), "--max_train_steps", "1"]
    few = [*FEW[:4], *FEW[6:], "--monitor_steps", "0", "--validation_steps", "0"]
    assert main(["train", *base, *words, *few]) == 0
    return root / "run"


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is said before the base model, which may take minutes, is read."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("the base model was loaded")

    monkeypatch.setattr("smplora.runs.base_model.load_model", load)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("command", ["audit", "evaluate", "properties"])
def test_sixteen_bits_are_of_lora_on_flow_matching(
    command: str, trained_run: Path, whole_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for adapter in (trained_run, whole_run):
        assert main([command, "--adapter", str(adapter), "--mixed_precision", "bf16"]) == 2
        assert "--mixed_precision bf16 is for LoRA on flow-matching models" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_is_loaded")
def test_sixteen_bits_are_of_lora_on_flow_matching_made_elsewhere(
    trained_run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(trained_run / ADAPTER_FILE, tmp_path / "a.safetensors")
    words = ["--train_data_dir", str(image_folder), "--split_manifest", str(trained_run / "split.json")]
    base = ["--pretrained_model_name_or_path", "tiny", "--mixed_precision", "bf16", "--resolution", "32"]
    where = ["--adapter", str(tmp_path / "a.safetensors"), "--output_dir", str(tmp_path / "audit")]
    assert main(["audit", *where, *words, *base]) == 2
    assert "--mixed_precision bf16 is for LoRA on flow-matching models" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_device_that_does_not_compute_in_sixteen_bits(
    run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The meta device computes nothing."""
    where = ["--device", "meta", "--mixed_precision", "bf16"]
    told = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--aux_size", "10"]
    own = ["--adapter", str(run)]
    for command, words in {"audit": own, "evaluate": own, "properties": own, "train": told}.items():
        assert main([command, *words, *where]) == 2
        assert "--mixed_precision bf16: meta cannot compute with it" in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "leaks"), [("100", True), ("1", False)])
def test_a_planted_leak_is_found_and_what_learned_nothing_is_not(
    image_folder: Path, tmp_path: Path, steps: str, leaks: bool
) -> None:
    """By the lower end of an interval: of 20 images learned by heart, and of one step at a small rate. A model with
    random weights cannot learn anything by heart in so few steps."""
    base = ["--pretrained_model_name_or_path", "tiny-flow", "--train_data_dir", str(image_folder)]
    learned = ["--max_train_steps", steps, "--learning_rate", "0.01" if leaks else "1e-6"]
    where = ["--output_dir", str(tmp_path / "run"), "--checkpointing_steps", "100"]
    quiet = ["--monitor_steps", "0", "--validation_steps", "0", "--run_page", "false"]
    assert main(["train", *base, *FEW, *learned, *where, *quiet, "--rank", "8", "--lora_targets", "all"]) == 0
    attacks = ["--attacks", "[calibrated_loss]", "--noise_pairs", "2", "--num_timesteps", "4"]
    main(["audit", "--adapter", str(tmp_path / "run"), *attacks, "--memorisation", "false"])
    found = json.loads((tmp_path / "run" / "audit" / "audit.json").read_text())
    assert (found["attacks"][0]["test"]["auc"]["low"] > 0.5) == leaks
    assert (found["attacks"][0]["aux_members"]["auc"]["low"] > 0.5) == leaks
