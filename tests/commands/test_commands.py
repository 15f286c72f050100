"""The real commands: what they write, and one line with exit status 2 for everything that is the user's to mend."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import warm
from conftest import short_config
from said import complaint
from small_networks import draw_little, learn_little
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.data import SplitOptions
from smplora.data.pool import open_source, read_samples
from smplora.data.split import Split, make_split, read_split, write_split
from smplora.experiments.tasks import train
from smplora.runs.folder import LOCK, RunFolder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command in this process; it must print one line and give 2."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    err = complaint(err)
    assert out == ""
    assert err.startswith("smplora: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def audited(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("audited") / "run"
    shutil.copytree(trained_run, run)
    few = ["--num_timesteps", "2", "--noise_pairs", "1", "--error_map_draws", "2"]
    with pytest.MonkeyPatch.context() as patch:
        learn_little(patch)
        draw_little(patch)
        assert main(["audit", "--adapter", str(run), *few]) == 0
    return run


def test_audit_writes_what_the_docs_say(audited: Path) -> None:
    content = json.loads((audited / "audit" / "audit.json").read_text())
    assert content.keys() == {
        "format",
        "subject",
        "split",
        "settings",
        "attacks",
        "gates",
        "strongest",
        "epsilon",
        "dataset_inference",
        "power",
        "exposure",
        "verdict",
        "environment",
        "memorisation",
        "methods",
        "shadows",
        "elapsed_s",
    }
    assert [a["name"] for a in content["attacks"]] == ["error_map", "loss", "calibrated_loss", "sima"]
    assert content["split"]["cells"]["aux_member"] == 10
    assert content["attacks"][0]["paper_protocol"]["label"].startswith("optimistic")
    for attack in content["attacks"]:
        for group in ("test", "aux_members"):
            numbers = attack[group]
            assert numbers["auc"]["low"] <= numbers["auc"]["value"] <= numbers["auc"]["high"]
            assert not numbers["tpr_at_fpr"]["0.001"]["resolvable"]
    scores = np.load(audited / "audit" / "scores.npz", allow_pickle=False)
    assert str(scores["adapter_sha256"]) == content["subject"]["adapter_sha256"]
    assert scores["loss/test"].shape == (20,)


def test_audit_of_a_checkpoint_and_evaluation_and_report(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = audited / "checkpoints" / "checkpoint-3"
    assert main(["audit", "--adapter", str(checkpoint), "--attacks", "[loss]", "--num_timesteps", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subject"]["label"] == "SMP-LoRA, stopped at step 3"
    assert (
        main(
            [
                "evaluate",
                "--adapter",
                str(audited),
                "--num_images",
                "20",
                "--num_inference_steps",
                "3",
                "--json",
                "true",
            ]
        )
        == 0
    )
    quality = json.loads(capsys.readouterr().out)
    assert quality["against"].keys() == {"held_out", "train"}
    assert "use KID" in quality["against"]["held_out"]["fid"]["reason"]
    assert quality["against"]["held_out"]["kid"]["value"] is not None
    with Image.open(audited / "quality" / "samples.png") as strip, Image.open(audited / "quality" / "real.png") as real:
        assert strip.size == real.size == (32 * len(quality["captions"]), 32)
        assert not strip.info
    assert main(["report", "--runs", f"[{audited}, {checkpoint}]", "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "SMP-LoRA, stopped at step 3" in page


def test_evaluation_does_not_depend_on_the_batch_size(trained_run: Path, tmp_path: Path) -> None:
    common = ("--num_images", "20", "--num_inference_steps", "3")
    for size in ("20", "7"):
        assert (
            main(
                [
                    "evaluate",
                    "--adapter",
                    str(trained_run),
                    *common,
                    "--batch_size",
                    size,
                    "--output_dir",
                    str(tmp_path / size),
                ]
            )
            == 0
        )
    pictures = [np.asarray(Image.open(tmp_path / size / "samples.png"), dtype=int) for size in ("20", "7")]
    assert abs(pictures[0] - pictures[1]).max() <= 1


def test_split_can_be_written_first_and_handed_over(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--train_data_dir", str(image_folder))
    assert (
        main(["split", *folder, "--aux_size", "8", "--split_seed", "4", "--output_dir", str(tmp_path), "--json"]) == 0
    )
    written = json.loads(capsys.readouterr().out)
    run = train(
        short_config(image_folder, tmp_path / "run", split_manifest=written["manifest"], max_train_steps=1),
        progress=False,
    )
    assert json.loads((run / "split.json").read_text())["seal"] == written["seal"]


def test_audit_with_a_manifest_of_the_same_members(
    trained_run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = read_samples(open_source(short_config(image_folder, tmp_path)))
    split = read_split(trained_run / "split.json", samples)
    cells = {**split.cells, "test_nonmember": split.cells["reference"][:7], "reference": ()}
    manifest = write_split(Split("fixed", 0, cells), tmp_path)
    common = (
        "audit",
        "--adapter",
        str(trained_run),
        "--attacks",
        "[loss]",
        "--num_timesteps",
        "1",
        "--output_dir",
        str(tmp_path / "a"),
    )
    assert main([*common, "--split_manifest", str(manifest), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["split"]["cells"]["test_nonmember"] == 7
    other = write_split(make_split(samples, SplitOptions(aux_size=10, split_seed=9)), tmp_path)
    assert "has another aux_member cell" in refused(capsys, *common, "--split_manifest", str(other))


def test_bad_input_of_data(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path, noise_folder: Path
) -> None:
    output = ("--output_dir", str(tmp_path / "run"))
    (tmp_path / "empty").mkdir()
    assert "which is not a folder" in refused(capsys, "train", "--train_data_dir", str(tmp_path / "no"), *output)
    assert "holds no images" in refused(capsys, "train", "--train_data_dir", str(tmp_path / "empty"), *output)
    (noise_folder / "p03.txt").unlink()
    assert "p03.png: no caption" in refused(capsys, "train", "--train_data_dir", str(noise_folder), *output)
    assert "are 60 images" in refused(
        capsys, "train", "--train_data_dir", str(image_folder), "--aux_size", "40", *output
    )
    assert not (tmp_path / "run").exists()


def test_bad_input_of_options(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    common = ("--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"))
    assert "--rank got 0; allowed: 1 or more" in refused(capsys, "train", *common, "--rank", "0")
    assert "did you mean 'smp_lora'?" in refused(capsys, "train", *common, "--objective", "smplora")
    (tmp_path / "c.yaml").write_text("learning_rat: 0.1\n")
    assert "did you mean 'learning_rate'?" in refused(capsys, "train", *common, "--config", str(tmp_path / "c.yaml"))
    assert "neither 'tiny'" in refused(capsys, "train", *common, "--pretrained_model_name_or_path", str(tmp_path))
    assert "cannot be used here" in refused(capsys, "train", *common, "--device", "cuda:7")
    assert "multiples of 4 with this base model, such as 28" in refused(capsys, "train", *common, "--resolution", "30")
    assert not (tmp_path / "run").exists()


def test_bad_input_of_adapters(capsys: pytest.CaptureFixture[str], trained_run: Path, tmp_path: Path) -> None:
    assert "is not a run folder" in refused(capsys, "audit", "--adapter", str(tmp_path))
    assert "checkpoint-3, checkpoint-6" in refused(
        capsys, "audit", "--adapter", str(trained_run / "checkpoints" / "checkpoint-5")
    )
    assert "did you mean 'loss'?" in refused(capsys, "audit", "--adapter", str(trained_run), "--attacks", "[los]")
    broken = tmp_path / "broken"
    shutil.copytree(trained_run, broken)
    (broken / ADAPTER_FILE).write_bytes((broken / ADAPTER_FILE).read_bytes()[:-100])
    assert "damaged" in refused(capsys, "audit", "--adapter", str(broken))
    (broken / "DONE.json").unlink()
    assert "is not finished" in refused(capsys, "audit", "--adapter", str(broken))
    assert "smplora audit" in refused(
        capsys, "report", "--runs", f"[{trained_run}]", "--output", str(tmp_path / "x.html")
    )


def test_not_a_number(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    arguments = (
        "train",
        "--train_data_dir",
        str(image_folder),
        "--output_dir",
        str(tmp_path / "run"),
        "--aux_size",
        "5",
    )
    error = refused_last_line(
        capsys, *arguments, "--learning_rate", "1e9", "--max_train_steps", "10", "--train_batch_size", "2"
    )
    assert "the loss is not a number by step 10; no checkpoint was written" in error
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def refused_last_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Like ``refused``, for errors that come while a progress bar is shown."""
    assert main(list(arguments)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_output_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("train", "--train_data_dir", str(image_folder), "--output_dir")
    assert "cannot be written" in refused(capsys, *arguments, str(tmp_path / "file" / "run"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    assert "holds something else" in refused(capsys, *arguments, str(tmp_path / "mine"))
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written" in refused(capsys, *arguments, str(tmp_path / "locked"))
    else:
        assert "/proc/" in refused(capsys, *arguments, "/proc/smplora")


def test_training_says_what_it_trains_on_what_was_made_and_what_comes_next(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    few = ("--aux_size", "10", "--max_train_steps", "1", "--output_dir", str(tmp_path / "run"))
    of_a_game = ("--proxy_sharing", "aux", "--mi_lambda", "1")
    assert main(["train", "--train_data_dir", str(image_folder), *few, *of_a_game]) == 0
    lines = capsys.readouterr().err.strip().splitlines()
    kept = "20 of 60 images are trained on; 40 are kept for audits and quality: --aux_size, --test_size change that; "
    kept += "'train --final' takes all"
    assert kept in lines
    assert "not used, since lora has no proxy: --mi_lambda, --proxy_sharing" in lines
    files = "pytorch_lora_weights.safetensors, kohya_lora_weights.safetensors"
    assert lines[-2:] == [
        f"{tmp_path / 'run'}: {files} after step 1; README.md and index.html beside it",
        f"next: smplora audit {tmp_path / 'run'}",
    ]
    assert all((tmp_path / "run" / name).exists() for name in (*files.split(", "), "README.md", "index.html"))


def test_one_process_trains_in_a_folder(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    arguments = ("train", "--train_data_dir", str(image_folder), "--aux_size", "5", "--max_train_steps", "1")
    with RunFolder(tmp_path / "run").locked():
        assert "by another process" in refused(capsys, *arguments, "--output_dir", str(tmp_path / "run"))
    assert main([*arguments, "--output_dir", str(tmp_path / "run")]) == 0


def test_a_kill_while_the_first_file_is_written_does_not_block_the_folder(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".smplora-half").write_text("conf")
    run = train(short_config(image_folder, tmp_path / "run", max_train_steps=1), progress=False)
    assert not list(run.glob(".*"))


def test_outputs_that_are_in_the_way(
    capsys: pytest.CaptureFixture[str], trained_run: Path, audited: Path, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    file = str(tmp_path / "file")
    assert "cannot be written" in refused(capsys, "audit", "--adapter", str(trained_run), "--output_dir", file)
    assert "cannot be written" in refused(capsys, "evaluate", "--adapter", str(trained_run), "--output_dir", file)
    assert file in refused(capsys, "split", "--train_data_dir", str(image_folder), "--output_dir", file)
    assert "irectory" in refused(capsys, "report", "--runs", f"[{audited}]", "--output", str(tmp_path))


def test_a_checkpoint_that_does_not_exist_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    arguments = ("train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"))
    assert "none yet" in refused(capsys, *arguments, "--resume_from_checkpoint", "checkpoint-5")
    assert not (tmp_path / "run").exists()


def test_unequal_cells(image_folder: Path, tmp_path: Path) -> None:
    config = short_config(image_folder, tmp_path / "run", aux_size=None, split_protocol="coin", max_train_steps=1)
    run = train(config, progress=False)
    assert (
        main(["audit", "--adapter", str(run), "--num_timesteps", "2", "--noise_pairs", "1", "--attacks", "[loss]"]) == 0
    )
    content = json.loads((run / "audit" / "audit.json").read_text())
    sizes = content["split"]["cells"]
    assert len({sizes["aux_member"], sizes["aux_nonmember"], sizes["test_member"], sizes["test_nonmember"]}) > 1
    for attack in content["attacks"]:
        assert attack["test"]["n_members"] == sizes["test_member"]
        assert attack["aux_members"]["n_nonmembers"] == sizes["aux_nonmember"]


def test_full_disk(image_folder: Path, tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: the write fails in the middle in the same way."""
    arguments = [
        "train",
        "--train_data_dir",
        str(image_folder),
        "--output_dir",
        str(tmp_path / "run"),
        "--aux_size",
        "5",
        "--max_train_steps",
        "2",
    ]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    result = warm.run(*arguments, program=f"{limit}\n{warm.COMMAND}")
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("smplora: File too large")
    assert "nothing half-written was kept" in last
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert not [p for p in (tmp_path / "run").rglob(".*") if p.name != LOCK]


def test_result_on_standard_output_and_everything_else_on_standard_error(image_folder: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        "--train_data_dir",
        str(image_folder),
        "--output_dir",
        str(tmp_path / "run"),
        "--aux_size",
        "5",
        "--max_train_steps",
        "2",
    ]
    result = warm.run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["step"] == 2
    assert "step" in result.stderr
    card = tmp_path / "run" / "README.md"
    card.write_text(f"{card.read_text()}changed")
    again = warm.run(*arguments)
    assert again.stdout == ""
    assert "is complete" in again.stderr
    assert card.read_text().endswith("changed"), "a complete run is left alone"
