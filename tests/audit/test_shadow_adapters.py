"""Shadow adapters through the command line: planned, trained, killed, resumed, asked; and refused with a reason."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import smplora.audit.shadow_adapters
import warm
from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.audit.shadow_plan import ATTACKED, ShadowPlan, divide, plan_shadows
from smplora.cli.main import main
from smplora.config.audit import AuditConfig
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError
from smplora.core.files import LOCK
from smplora.core.lock import lock, waiting_lock
from smplora.core.parallel import Task
from smplora.core.reading import read_json
from smplora.core.wording import duration
from smplora.data.pool import open_source, read_samples
from smplora.data.split import MANIFEST, make_split, write_split
from smplora.experiments.tasks import train
from smplora.runs.folder import FREE_OPTIONS, RunFolder, open_folder, read_config
from smplora.runs.subject import Loaded, Subject

FAST = ("--num_timesteps", "2", "--noise_pairs", "1", "--attacks", "[calibrated_loss, lira, lira_offline, rmia]")
SIZES = {"aux_member": 6, "test_member": 4, "aux_nonmember": 6, "test_nonmember": 4, "reference": 9}
DIGESTS = [f"{k:02d}" for k in range(20)]


def in_this_process(tasks: Sequence[Task], title: str, **_: Any) -> dict[str, str | None]:
    """``run_tasks`` without processes."""
    for task in tasks:
        if not task.done:
            train(task.options, progress=False)  # type: ignore[arg-type]
    return dict.fromkeys(task.name for task in tasks)


@contextmanager
def said(capsys: pytest.CaptureFixture[str], *arguments: object, status: int) -> Any:
    assert main(["audit", *map(str, arguments)]) == status
    out, err = capsys.readouterr()
    assert out == ""
    yield " ".join(err.split()) if status == 0 else err


def test_a_killed_audit_goes_on_where_it_was(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With workers of its own; SMP-LoRA's shadows play against a proxy, on cells of the target's sizes."""
    output = tmp_path / "audit"
    command = ["--adapter", str(trained_run), "--output_dir", str(output), "--shadows", "4", "--workers", "1", *FAST]
    read_end, write_end = os.pipe()
    with open(write_end, "w") as stderr:
        process = warm.start("audit", *command, stderr=stderr)
    with open(read_end) as lines:
        assert any("4 x 6 steps on 20 images" in line for line in lines), "the cost comes first"
        shadows = [RunFolder(output / "shadows" / f"shadow-{k}") for k in range(4)]
        while not shadows[1].steps():
            time.sleep(0.02)
            assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL
    while True:  # its worker ends a little later
        try:
            with shadows[1].locked():
                break
        except ConfigError:
            time.sleep(0.1)
    assert not (output / "audit.json").exists()
    first = (shadows[0].path / "DONE.json").stat().st_mtime_ns

    assert main(["audit", *command]) == 0
    err = capsys.readouterr().err
    assert "4 shadow adapters (" in err
    assert "are there already" in err
    assert (shadows[0].path / "DONE.json").stat().st_mtime_ns == first
    content = read_json(output / "audit.json")
    assert content["shadows"] == {
        **{"number": 4, "signal": "calibrated_loss", "objective": "smp_lora", "mi_lambda": 0.05},
        **{"adaptation": "lora", "steps": 6, "images": 20, "alike": True},
    }
    assert content["gates"]["notes"][0].startswith("4 shadow adapters were trained as SMP-LoRA was")
    assert [a["name"] for a in content["attacks"]] == ["calibrated_loss", "lira", "lira_offline", "rmia"]
    assert "carlini2022membership" in content["attacks"][1]["bibtex"]
    assert "shadow" in content["attacks"][3]["fitted_on"]
    assert content["strongest"]["test"]["attacks"] == 4, "they count in the correction"
    assert output.stat().st_mode & 0o777 == 0o700

    sealed = read_json(trained_run / MANIFEST)["cells"]
    pool = {row["digest"] for cell in ATTACKED for row in sealed[cell]}
    trained_on: list[set[str]] = []
    target = asdict(read_config(trained_run, TrainConfig))
    for number, shadow in enumerate(shadows):
        cells = read_json(shadow.path / MANIFEST)["cells"]
        assert {c: len(cells[c]) for c in ATTACKED} == {c: len(sealed[c]) for c in ATTACKED}
        trained_on.append({row["digest"] for cell in ATTACKED[:2] for row in cells[cell]})
        assert {row["digest"] for cell in ATTACKED for row in cells[cell]} == pool
        own = asdict(read_config(shadow.path, TrainConfig))
        allowed = FREE_OPTIONS | {"seed", "split_manifest"}
        assert {n for n in own if own[n] != target[n]} <= allowed, number
        assert {row["mi_gain"] is None for row in shadow.metrics()} == {False}
    for one, other in (trained_on[:2], trained_on[2:]):
        assert one | other == pool
        assert not one & other
    assert trained_on[0] not in trained_on[2:]
    assert len({read_config(shadow.path, TrainConfig).seed for shadow in shadows}) == 4


def subject_of(config: TrainConfig, folder: Path) -> Loaded:
    """An adapter that nobody trained, for plans."""
    source = open_source(config)
    split = make_split(read_samples(source), config)
    open_folder(folder, config)
    write_split(split, folder)
    return Loaded(Subject(folder, folder, config, 6, 6), None, split, source, 32, "")  # type: ignore[arg-type]


def test_shadow_cells_do_not_depend_on_who_is_a_member(image_folder: Path, tmp_path: Path) -> None:
    """The same images, divided otherwise: the very same shadows."""
    seals, members = [], []
    for seed in (1, 2):
        config = short_config(image_folder, tmp_path / f"run{seed}", aux_size=15, split_seed=seed, reference_size=0)
        loaded = subject_of(config, tmp_path / f"run{seed}")
        audit = AuditConfig(adapter=str(tmp_path / f"run{seed}"), shadows=4)
        planned = plan_shadows(audit, loaded, tmp_path / f"audit{seed}")
        seals.append([shadow.split.seal for shadow in planned.shadows])
        members.append({s.digest for s in loaded.split.train})
    assert seals[0] == seals[1]
    assert members[0] != members[1]


def test_halves_are_complements_and_more_shadows_keep_the_earlier_ones() -> None:
    first, second = divide(DIGESTS, SIZES, 0, 0)
    assert {cell: len(images) for cell, images in first.items()} == {**SIZES, "reference": 0}
    inside = {*first["aux_member"], *first["test_member"]}
    assert inside == {*second["aux_nonmember"], *second["test_nonmember"]}
    assert inside | {*first["aux_nonmember"], *first["test_nonmember"]} == set(DIGESTS)
    assert divide(DIGESTS[::-1], SIZES, 0, 0) == [first, second]
    others = [divide(DIGESTS, SIZES, seed, pair)[0] for seed, pair in ((0, 1), (1, 0))]
    assert first not in others
    uneven = divide(DIGESTS[:19], {**SIZES, "test_nonmember": 3}, 0, 0)
    assert sorted(len(c["aux_member"] + c["test_member"]) for c in uneven) == [9, 10]


@pytest.mark.parametrize(
    ("changes", "stopped", "expected"),
    [
        ({}, False, (6, 3, "")),
        ({"test_nonmember_size": 20}, False, (8, 3, "")),  # halves of 25 images for 20: as many looks at each
        ({}, True, (3, 3, "")),
        ({"lr_scheduler": "cosine"}, True, (6, 3, "checkpoints/checkpoint-3")),  # the rate hangs on the end
    ],
)
def test_shadows_train_as_long_as_the_adapter(
    changes: dict[str, Any], stopped: bool, expected: tuple[int, int, str], image_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    loaded = subject_of(short_config(image_folder, run, **changes), run)
    if stopped:
        subject = replace(loaded.subject, folder=run / "checkpoints" / "checkpoint-3", step=3)  # type: ignore[type-var]
        loaded = replace(loaded, subject=subject)
    planned = plan_shadows(AuditConfig(adapter=str(run), shadows=4), loaded, tmp_path / "audit")
    steps, every, adapter = expected
    for shadow in planned.shadows:
        assert (shadow.options.max_train_steps, shadow.options.checkpointing_steps) == (steps, every)
        assert shadow.adapter == Path(shadow.options.output_dir) / adapter


def test_an_adapter_made_elsewhere_needs_to_be_told_how_it_was_trained(
    trained_run: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smplora.audit.shadow_adapters, "run_tasks", in_this_process)
    cells = read_json(trained_run / MANIFEST)["cells"]
    for kind in ("member", "nonmember"):
        (tmp_path / f"{kind}s").mkdir()
        for row in cells[f"aux_{kind}"][:6] + cells[f"test_{kind}"][:2]:
            (tmp_path / f"{kind}s" / row["file"]).write_bytes((image_folder / row["file"]).read_bytes())
    adapter = tmp_path / "found.safetensors"
    adapter.write_bytes((trained_run / ADAPTER_FILE).read_bytes())
    pools = [f"--{kind}s={tmp_path / f'{kind}s'}" for kind in ("member", "nonmember")]
    base = ["--pretrained_model_name_or_path", "tiny", "--default_caption", "a digit", "--output_dir", tmp_path / "out"]
    command = ["--adapter", adapter, *pools, *base, "--shadows", "4", *FAST]
    with said(capsys, *command, status=2) as err:
        assert "--shadow_config" in err
        assert err.count("\n") == 1

    told = tmp_path / "train.yaml"
    for content, problem in (
        ({"ranc": 4}, "rank"),
        ({"rank": "many"}, "--shadow_config"),
        ({"objective": "smp"}, "smp_lora"),
        (["rank"], "option: value"),
    ):
        told.write_text(yaml.safe_dump(content))
        with said(capsys, *command, "--shadow_config", told, status=2) as err:
            assert problem in err
    told.write_text(
        yaml.safe_dump({"num_train_epochs": 1, "train_batch_size": 4, "learning_rate": 1e-3, "split_seed": 5})
    )
    with said(capsys, *command, "--shadow_config", told, status=0) as err:
        assert "4 x 2 steps on 8 images; time unknown" in err
    content = read_json(tmp_path / "out" / "audit.json")
    assert content["shadows"]["objective"] == "lora"
    assert content["shadows"]["images"] == 8
    copied = tmp_path / "out" / "shadows" / "images"
    rows = [json.loads(line) for line in (copied / "metadata.jsonl").read_text().splitlines()]
    assert {row["text"] for row in rows} == {"a digit"}
    assert len(rows) == 16
    assert copied.stat().st_mode & 0o777 == 0o700
    (tmp_path / "members" / cells["aux_member"][0]["file"]).unlink()
    (tmp_path / "nonmembers" / cells["aux_nonmember"][0]["file"]).unlink()
    with said(capsys, *command, "--shadow_config", told, status=2) as err:
        assert "--shadow_dir" in err
        assert "give another folder" in err
    shared = tmp_path / "shared"
    for left in (cells["aux_member"][1]["file"], None):  # a folder that is named has room for both
        assert main(["audit", *map(str, [*command, "--shadow_config", told, "--shadow_dir", shared, "--plan"])]) == 0
        capsys.readouterr()
        if left:
            (tmp_path / "members" / left).unlink()
    assert len(list(shared.glob("images-*"))) == len(list(shared.glob("lora-*"))) == 2


@pytest.mark.parametrize(
    ("options", "said_of_it"),
    [
        (["--shadows", "3"], "even numbers from 4"),
        (["--shadows", "2"], "even numbers from 4"),
        (["--attacks", "[lira]"], "--shadows 8"),
        (["--shadow_dir", "there"], "give --shadows"),
        (["--shadows", "4", "--attacks", "[loss]"], "lira_offline"),
        (["--shadows", "4", "--shadow_signal", "los"], "did you mean 'loss'"),
        (["--shadows", "4", "--shadow_signal", "error_map"], "calibrated_loss"),
        (["--shadows", "4", "--shadow_config", "x.yaml"], "'x.yaml', which is not a file"),
        (["--shadows", "4", "--workers", "0"], "1 or more"),
        (["--attacks", "[lira, rmia+low_pass]", "--shadows", "4"], "low-pass"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], said_of_it: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with said(capsys, "--adapter", trained_run, *options, status=2) as err:
        assert said_of_it in err
        assert err.count("\n") == 1


def test_other_shadows_in_the_folder_are_refused(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded_once = ["--adapter", trained_run, "--output_dir", tmp_path / "audit", "--shadow_dir", tmp_path / "there"]
    manifest = tmp_path / "there" / "splits" / "shadow-0"
    manifest.mkdir(parents=True)
    (manifest / MANIFEST).write_bytes((trained_run / MANIFEST).read_bytes())
    with said(capsys, *loaded_once, "--shadows", "4", *FAST, status=2) as err:
        assert f"--shadow_dir '{tmp_path / 'there'}' holds shadows of other images" in err


def planned(folder: Path, images: Path, where: Path, told: Path | None = None, **changes: Any) -> ShadowPlan:
    """The shadows of a run of its own that nobody trained, in a folder that is shared."""
    loaded = subject_of(short_config(images, folder, **changes), folder)
    options = AuditConfig(
        adapter=str(folder), shadows=4, shadow_dir=str(where), shadow_config=str(told) if told else None
    )
    return plan_shadows(options, loaded, folder / "audit")


def test_adapters_that_are_trained_alike_share_their_shadows(image_folder: Path, tmp_path: Path) -> None:
    """Whatever their seed; another objective or other images have shadows of their own in the same folder."""
    where, told = tmp_path / "shared", tmp_path / "lora.yaml"
    told.write_text(yaml.safe_dump({"max_train_steps": 6, "train_batch_size": 4, "learning_rate": 1e-3}))
    kinds = {
        name: planned(tmp_path / name, image_folder, where, **changes)
        for name, changes in {
            "one": {},
            "again": {"seed": 3},
            "lambda": {"mi_lambda": 0.5},
            "lora": {"objective": "lora"},
            "fewer": {"aux_size": 8},
            "told": {"told": told},
            "lora_told": {"told": told, "objective": "lora"},
        }.items()
    }
    assert kinds["one"].shadows == kinds["again"].shadows
    assert kinds["told"].shadows == kinds["lora_told"].shadows, "an attacker who does not know the objective"
    folders = {name: plan.folder for name, plan in kinds.items()}
    assert len(set(folders.values())) == 5
    assert {folder.parent for folder in folders.values()} == {where}
    assert folders["lora"].name.startswith("lora-")
    one, other = kinds["one"], kinds["told"]
    assert (one.alike, other.alike) == (True, False)
    assert other.shadows[0].options.objective == "lora"
    assert other.shadows[0].options.train_data_dir == str(image_folder)
    assert "as SMP-LoRA was" in one.notes()[0]
    assert "by --shadow_config (objective lora), not as SMP-LoRA was" in other.notes()[0]


def test_who_needs_shadows_that_another_audit_trains_waits(image_folder: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path / "run", image_folder, tmp_path / "shared")
    held, said = threading.Event(), []

    def holder() -> None:
        with lock(plan.folder / LOCK):
            held.set()
            while not said:
                time.sleep(0.01)

    thread = threading.Thread(target=holder)
    thread.start()
    held.wait()
    with waiting_lock(plan.folder / LOCK, lambda: said.append("waiting")):
        thread.join(1)
        assert not thread.is_alive()
    assert said == ["waiting"]
    with waiting_lock(plan.folder / LOCK, lambda: said.append("again")):
        pass
    assert said == ["waiting"]


def test_durations() -> None:
    assert [duration(s) for s in (40, 700, 12600)] == ["40 s", "12 min", "3.5 h"]
