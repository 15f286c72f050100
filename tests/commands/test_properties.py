"""``smplora properties`` on a tiny run: planned, trained, asked, taken up again, shown; and refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import smplora.audit.shadow_adapters
from conftest import short_config
from said import complaint
from smplora import api
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.attacks.methods.calibrated_loss import CalibratedLossAttack
from smplora.audit.property_inference import infer
from smplora.audit.property_inference.references import HELD
from smplora.cli.main import main
from smplora.config.properties import PropertiesConfig
from smplora.core.parallel import Task
from smplora.core.reading import read_json
from smplora.data.split import MANIFEST
from smplora.experiments.tasks import train
from smplora.runs.subject import Loaded

FEW = ["--references", "3", "--sizes", "[6, 20]", "--device", "cpu"]
SHARE = ["--attribute", "label", "--attribute_value", "odd", "--shares", "[0.2, 0.8]"]


@pytest.fixture(autouse=True, scope="module")
def in_this_process() -> Iterator[None]:
    """``run_tasks`` without processes, and losses at one timestep."""

    def run(tasks: Sequence[Task], title: str, **_: Any) -> dict[str, str | None]:
        for task in tasks:
            if not task.done:
                task.work.run(task.options)
        return dict.fromkeys(task.name for task in tasks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smplora.audit.shadow_adapters, "run_tasks", run)
        patch.setattr(infer, "CalibratedLossAttack", partial(CalibratedLossAttack, num_timesteps=1))
        yield


@pytest.fixture(scope="module")
def labelled(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits with a column that the captions do not tell; every tenth image has no value."""
    folder = tmp_path_factory.mktemp("labelled") / "images"
    shutil.copytree(image_folder, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    values = [None if k % 10 == 9 else "rare" if k % 20 == 0 else ("even", "odd")[k % 2] for k in range(len(rows))]
    told = [{**row, "label": value} for row, value in zip(rows, values, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, told)))
    return folder


@pytest.fixture(scope="module")
def run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(one_step(labelled, tmp_path_factory.mktemp("plain") / "lora"), progress=False)


def one_step(images: Path, folder: Path, **changes: Any) -> Any:
    options = {"objective": "lora", "max_train_steps": 1, "checkpointing_steps": 1, "train_batch_size": 2}
    return short_config(images, folder, **{**options, **changes})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the first test, which the second one shows."""
    return tmp_path_factory.mktemp("properties") / "told"


def test_sixteen_bits(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All adapters are compared on a base model in bf16, and the result says so."""
    monkeypatch.setattr("smplora.config.properties.FEWEST", 3)
    flow = train(one_step(image_folder, tmp_path / "flow", pretrained_model_name_or_path="tiny-flow"), progress=False)
    seen, measure = [], infer.measure

    def watched(loaded: Loaded, *others: Any) -> Any:
        seen.append(loaded.model.dtype)
        return measure(loaded, *others)

    monkeypatch.setattr(infer, "measure", watched)
    assert main(["properties", str(flow), *FEW, "--mixed_precision", "bf16"]) == 0
    assert seen == [torch.bfloat16] * 4
    assert read_json(flow / "properties" / "properties.json")["settings"]["mixed_precision"] == "bf16"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["properties", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    err = complaint(err)
    assert err.count("\n") == 1
    return err


def test_both_questions_end_to_end(
    run: Path, told: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smplora.config.properties.FEWEST", 3)  # each takes a second
    output = told
    command = ["properties", str(run), "--output_dir", str(output), *FEW, *SHARE]
    assert main([*command, "--plan"]) == 0
    plan = capsys.readouterr().out
    assert "the attacker holds 40 images" in plan
    assert "6 x 1 steps on 6 to 20 images; " in plan
    assert not output.exists()

    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    content = read_json(output / "properties.json")
    assert json.loads(out) == content
    jsonschema.Draft202012Validator(api.schema("properties")).validate(content)
    assert content["format"] == "smplora.properties/1"
    assert content["held"] == 40
    assert content["size"]["truth"] == 20
    assert content["size"]["references"] == [6, 20, 6]
    assert [a["name"] for a in content["size"]["answers"]] == ["spectrum_regression", "dsire"]
    assert [a["name"] for a in content["share"]["answers"]] == ["loss_regression", "spectrum_regression", "dsire"]
    about, sealed = content["attribute"], read_json(run / MANIFEST)["cells"]
    numbers = [int(row["file"][:4]) for cell in ("aux_member", "test_member") for row in sealed[cell]]
    known = [n for n in numbers if n % 10 != 9]
    assert about["with_value"] == sum(n % 2 for n in known)
    assert about["unknown"] == 20 - len(known)
    assert content["share"]["truth"] == about["with_value"] / len(known)
    assert any(f"{about['unknown']} of 20 training images" in note for note in content["notes"])
    for question in (content["size"], content["share"]):
        assert question["sentence"] in err
        for answer in question["answers"]:
            assert answer["sentence"].replace("\N{NO-BREAK SPACE}", "\\xa0") in err
            assert min(question["references"]) <= answer["value"] <= max(question["references"])
            assert answer["level"] == 3 / 4

    held = {row["digest"] for cell in HELD for row in sealed[cell]}
    folders = sorted(path for path in (output / "references").iterdir() if path.name != "splits")
    assert len(folders) == 6
    shares = []
    for folder in folders:
        cells = read_json(folder / MANIFEST)["cells"]
        members = [row for cell in ("aux_member", "test_member") for row in cells[cell]]
        assert {row["digest"] for row in members} <= held
        if folder.name.startswith("size"):
            assert len(members) == int(folder.name.split("-")[1])
        else:
            shares.append(sum(int(row["file"][:4]) % 2 for row in members) / len(members))
    assert sorted(shares) == pytest.approx(sorted(content["share"]["references"]))
    assert output.stat().st_mode & 0o777 == 0o700

    before = {folder: (folder / "DONE.json").stat().st_mtime_ns for folder in folders}
    assert main(command) == 0
    assert "all in" in capsys.readouterr().err
    again = read_json(output / "properties.json")
    assert {**again, "elapsed_s": 0} == {**content, "elapsed_s": 0}
    assert {folder: (folder / "DONE.json").stat().st_mtime_ns for folder in folders} == before
    assert "another --seed" in refused(capsys, run, "--output_dir", output, *FEW, *SHARE, "--seed", 1)


def test_a_game_has_a_proxy_and_a_checkpoint_is_compared_at_its_own_step(trained_run: Path, tmp_path: Path) -> None:
    """Reference adapters play on non-members of their own, of the attacker's images, which are then fewer."""
    checkpoint = trained_run / "checkpoints" / "checkpoint-3"
    command = {"adapter": str(checkpoint), "device": "cpu", "references": 6, "output_dir": str(tmp_path / "told")}
    ready = infer.prepare(PropertiesConfig(**command, sizes=[6, 20]))
    assert {r.shadow.options.max_train_steps for r in ready.references} == {3}
    assert {r.shadow.options.objective for r in ready.references} == {"smp_lora"}
    assert ready.references[1].shadow.split.sizes == {
        **{"aux_member": 10, "test_member": 10, "aux_nonmember": 10, "test_nonmember": 0, "reference": 0}
    }
    assert len({r.shadow.options.seed for r in ready.references}) == 6
    ready = infer.prepare(PropertiesConfig(**command))
    assert max(r.label for r in ready.references) == 26, "of 40, with half as many non-members"
    more = infer.prepare(PropertiesConfig(**{**command, "references": 9}))
    assert [r.shadow.split.seal for r in more.references[:6]] == [r.shadow.split.seal for r in ready.references]
    plan = api.properties(checkpoint, references=6, output_dir=tmp_path / "told", plan=True)
    assert "6 reference adapters: 6 x 3 steps on 4 to 26 images" in repr(plan)
    assert not (tmp_path / "told").exists()


def test_the_page_shows_it_and_the_shareable_one_does_not(run: Path, told: Path, tmp_path: Path) -> None:
    home = tmp_path / "run"
    shutil.copytree(run, home)
    shutil.copytree(told, home / "properties", ignore=shutil.ignore_patterns("references"))
    assert main(["audit", str(home), "--attacks", "[loss]", "--num_timesteps", "1", "--noise_pairs", "1"]) == 0
    pages = {}
    for name, more in (("private", []), ("shareable", ["--shareable"])):
        assert main(["report", str(home), "--output", str(tmp_path / f"{name}.html"), *more]) == 0
        pages[name] = (tmp_path / f"{name}.html").read_text()
    for text in (
        "How many images was it trained on?",
        "salama2024dataset",
        "told-size-0",
        "told-share-0",
        "&#39;odd&#39;",
    ):
        assert text in pages["private"]
        assert text not in pages["shareable"]
    path = home / "properties" / "properties.json"
    content = read_json(path)
    path.write_text(json.dumps({**content, "subject": {**content["subject"], "adapter_sha256": "other"}}))
    assert main(["report", str(home), "--output", str(tmp_path / "x.html")]) == 2


def test_bad_input(run: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output_dir", tmp_path / "told"]
    for options, said in (
        (["--references", 5], "--references got 5; allowed: 6 or more"),
        (["--sizes", "[20, 20]"], "two or more different numbers"),
        (["--sizes", "[3, 20]"], "--sizes got 3; allowed: 4 or more"),
        (["--sizes", "[4, 41]"], "--sizes got 41, but the attacker holds 40 images; allowed: 40 at most"),
        (["--shares", "[0.5, 1.5]"], "--shares got 1.5; allowed: 0 to 1"),
        (["--count", "false"], "--count got False"),
        (["--attribute_value", "odd"], "Give --attribute too"),
        (["--attribute", "labl"], "did you mean 'label'"),
        (["--attribute", "label", "--attribute_value", "od"], "did you mean 'odd'"),
        (["--attribute", "label", "--attribute_value", "rare"], "images with it; allowed: 8 or more of each"),
    ):
        assert said in refused(capsys, run, *output, *options)
    file = tmp_path / "found.safetensors"
    shutil.copy(run / ADAPTER_FILE, file)
    error = refused(capsys, file, *output)
    assert "is no run of 'smplora train'" in error
    assert "smplora audit" in error
    few = {"aux_size": 2, "test_size": 54, "reference_size": 0, "test_nonmember_size": 2}
    small = train(one_step(labelled, tmp_path / "few", **few), progress=False)
    capsys.readouterr()
    assert "the attacker holds 4 images, too few" in refused(capsys, small, *output)
    words = {"adaptation": "textual_inversion", "initializer_token": "digit"}
    inversion = train(one_step(labelled, tmp_path / "words", **words), progress=False)
    capsys.readouterr()
    assert "trained no matrix" in refused(capsys, inversion, *output)
    assert not (tmp_path / "told").exists()
