"""What a sweep's options mean, what is wrong with them, and what its files say of given measurements."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from smplora.cli.parse import parse
from smplora.config.sweep import SweepConfig
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError
from smplora.experiments.sweep import command, plan, results
from smplora.experiments.sweep.page import cell, render
from smplora.results.estimate import Estimate, Proportion
from smplora.statistics.over_runs import TWO_RUNS


@pytest.fixture
def images(tmp_path: Path) -> str:
    (tmp_path / "images").mkdir()
    return str(tmp_path / "images")


def options(images: str, *given: str) -> SweepConfig:
    config = parse("sweep", ["--train_data_dir", images, "--output_dir", f"{images}/../out", *given])
    assert isinstance(config, SweepConfig)
    return config


def refusal(images: str, *given: str) -> str:
    with pytest.raises(ConfigError) as error:
        options(images, *given)
    return str(error.value)


def test_grid_points_and_seeds(images: str, tmp_path: Path) -> None:
    """Grid and points one after the other, each with every seed; the types are those of the options."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"objective": "smp_lora", "rank": 8}))
    config = options(
        images,
        *("--config", str(tmp_path / "base.yaml"), "--grid", "{mi_lambda: [1, 1e-1], lora_targets: [all]}"),
        *("--points", "[{objective: lora}]", "--seeds", "[3, 4]"),
    )
    seen = [
        (p.train["objective"], p.train["mi_lambda"], p.train["lora_targets"], p.train["seed"])
        for p in config.all_points
    ]
    assert seen == [
        ("smp_lora", 1.0, "all", 3),
        ("smp_lora", 1.0, "all", 4),
        ("smp_lora", 0.1, "all", 3),
        ("smp_lora", 0.1, "all", 4),
        ("lora", 0.05, "attention", 3),
        ("lora", 0.05, "attention", 4),
    ]
    assert all(p.train["rank"] == 8 for p in config.all_points)
    assert config.all_points[0].run == "lora_targets=all_mi_lambda=1.0_seed=3"
    assert list(plan.trainings(config)) == [p.run for p in config.all_points]
    assert config.all_points[0].setting == config.all_points[1].setting


def test_what_an_objective_has_no_use_for_makes_no_run(images: str) -> None:
    """Plain LoRA is the same for all lambdas: one run, one line, and a name without lambda."""
    config = options(
        images,
        *("--grid", "{objective: [lora, smp_lora, mp_lora], mi_lambda: [0.5, 1], smp_delta: [0.1, 0.2]}"),
        *("--points", "[{objective: distill_lora}, {objective: lora}, {objective: dp_lora, target_epsilon: 8}]"),
        *("--seeds", "[0, 1]", "--num_teachers", "3", "--mi_lambda", "0.25"),
    )
    seen = {(p.train["objective"], p.run.removesuffix("_seed=0")) for p in config.all_points if p.train["seed"] == 0}
    assert seen == {
        ("lora", "objective=lora"),
        *(("mp_lora", f"mi_lambda={weight}_objective=mp_lora") for weight in (0.5, 1.0)),
        *(
            ("smp_lora", f"mi_lambda={weight}_objective=smp_lora_smp_delta={delta}")
            for weight in (0.5, 1.0)
            for delta in (0.1, 0.2)
        ),
        ("distill_lora", "objective=distill_lora"),
        ("dp_lora", "objective=dp_lora_target_epsilon=8.0"),
    }
    assert len(config.all_points) == 2 * len(seen)
    plain = config.all_points[0]
    assert (plain.train["objective"], plain.train["mi_lambda"]) == ("lora", 0.25)  # as all share it
    assert {p.train["num_teachers"] for p in config.all_points if p.train["objective"] != "distill_lora"} == {2}
    assert [p.train["num_teachers"] for p in config.all_points if p.train["objective"] == "distill_lora"] == [3, 3]
    assert config.unused == {"lora": ["mi_lambda", "smp_delta"], "mp_lora": ["smp_delta"]}


def test_a_private_teacher_in_a_point(images: str, tmp_path: Path) -> None:
    """Options of DP-LoRA are its teacher's there."""
    captions = tmp_path / "captions.txt"
    captions.write_text("a digit")
    teacher = f"teacher_objective: dp_lora, synthetic_captions: {captions}, num_synthetic_images: 9, target_epsilon: 8"
    config = options(images, "--points", f"[{{objective: synth_lora, {teacher}}}, {{objective: lora}}]")
    synthetic, plain = (point.train for point in config.all_points)
    assert (synthetic["target_epsilon"], plain["target_epsilon"], plain["teacher_objective"]) == (8, None, "lora")


def test_options_of_a_teacher_vary_where_it_has_them(images: str) -> None:
    """Lambda is of a teacher that plays; with a plain one nothing is trained twice."""
    plain = options(images, "--grid", "{objective: [smp_lora, synth_lora], mi_lambda: [0.5, 1]}")
    assert [point.objective for point in plain.all_points] == ["smp_lora", "smp_lora", "synth_lora"]
    played = options(images, "--grid", "{objective: [synth_lora], teacher_objective: [mp_lora], mi_lambda: [0.5, 1]}")
    assert [point.train["mi_lambda"] for point in played.all_points] == [0.5, 1]


def test_shared_options_reach_all_that_use_them(images: str) -> None:
    """Not the defaults of another objective that has them too."""
    points = ("--points", "[{objective: distill_lora}, {objective: synth_lora}, {objective: lora}]")
    config = options(images, *points, "--teacher_steps", "300")
    assert [point.train["teacher_steps"] for point in config.all_points] == [300, 300, None]


def test_options_of_audits_and_evaluations(images: str) -> None:
    """They share a run, and each has a folder of its own."""
    given = ("--grid", "{rank: [2], audit.noise_pairs: [1, 3]}", "--audit", "{num_timesteps: 2}", "--tier", "standard")
    config = options(images, *given, "--evaluate", "{num_images: 30}", "--seed", "7")
    assert list(plan.trainings(config)) == ["rank=2"]
    one, other = plan.subjects(config)
    assert (one.audit.noise_pairs, other.audit.noise_pairs) == (1, 3)
    assert one.audit.output_dir != other.audit.output_dir
    assert (one.audit.num_timesteps, one.audit.tier, one.audit.seed, one.evaluate.num_images) == (2, "standard", 7, 30)


def test_audits_share_one_folder_of_shadow_adapters(images: str) -> None:
    grid = ("--grid", "{objective: [lora, smp_lora]}")
    sweeps = [options(images, *grid, *more) for more in (("--audit", "{shadows: 4}"), ("--tier", "strong"))]
    for config in sweeps:
        folders = {subject.audit.shadow_dir for subject in plan.subjects(config)}
        assert folders == {str(Path(config.output_dir) / "shadows")}
    own = options(images, *grid, "--audit", "{shadows: 4, shadow_dir: there}")
    assert {subject.audit.shadow_dir for subject in plan.subjects(own)} == {"there"}
    assert {subject.audit.shadow_dir for subject in plan.subjects(options(images, *grid))} == {None}


def test_the_cost_of_shadow_adapters_is_said_first(
    images: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "step_seconds", lambda runs: 0.1)
    for audit, said in (("{shadows: 4}", True), ("{noise_pairs: 1}", False)):
        config = options(images, "--seeds", "[0, 1]", "--max_train_steps", "7", "--audit", audit)
        runs, subjects = plan.trainings(config), plan.subjects(config)
        command.say_cost(config, runs, subjects, plan.tasks_of(runs, subjects))
        err = capsys.readouterr().err
        assert "2 runs of 7 steps" in err
        assert ("audits train 4 shadow adapters for each setting on top" in err) is said


def test_quality_on_different_images_is_said(images: str) -> None:
    """Of balanced runs half of the reference images chose what is learned from."""
    mixed = options(images, "--objective", "synth_lora", "--grid", "{drop_nearest: [0, balanced]}")
    alike = options(images, "--objective", "synth_lora", "--drop_nearest", "balanced", "--grid", "{rank: [1, 2]}")
    assert plan.mixed_references(mixed).startswith("1 of 2 runs have --drop_nearest balanced")
    assert "1 of 2 runs have" in render([], mixed)
    assert plan.mixed_references(alike) == ""


def test_checkpoints_are_those_of_plain_lora(images: str) -> None:
    given = ("--grid", "{objective: [lora, smp_lora]}", "--max_train_steps", "400", "--checkpointing_steps", "100")
    assert [s.step for s in plan.subjects(options(images, *given, "--checkpoints", "[300, 100]"))] == [
        100,
        300,
        None,
        None,
    ]
    every = plan.subjects(options(images, *given, "--checkpoints", "true"))
    assert [s.step for s in every] == [100, 200, 300, None, None]
    assert every[0].folder.name == "checkpoint-100"


def test_long_and_odd_values_name_folders(images: str) -> None:
    captions = ["a/b: c", "2024: [x", "a b  c", "x" * 200, "../.."]
    config = options(images, "--grid", json.dumps({"default_caption": captions}))
    names = [p.run for p in config.all_points]
    assert len(set(names)) == 5
    assert [p.train["default_caption"] for p in config.all_points] == captions
    assert all(len(name) < 120 and "/" not in name and " " not in name for name in names)


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        (["--grid", "{}"], ["nothing varies: give --grid, --points or --seeds"]),
        (["--grid", "{rank: 4}"], ["--grid got '{rank: 4}'; allowed: options with lists of values, as in '{rank"]),
        (["--points", "[rank]"], ["--points got '[rank]'; allowed: a list of options with values"]),
        (
            [
                *("--grid", "{mi_lambd: [1], mi_lambda: [], audits.seed: [1], output_dir: [a], rank: [x], seed: [2]}"),
                *("--points", "[{audit.noise_pair: 1}]", "--audit", "{noise_pairs: x}", "--seeds", "[1, 1]"),
                *("--split_seeds", "[]", "--split_manifest", "x"),
            ],
            [
                "--grid has no option 'mi_lambd' (did you mean 'mi_lambda'?)",
                "--grid got no values for 'mi_lambda'",
                "--grid has no option 'audits.seed'",
                "'output_dir' is decided by the sweep itself",
                "--grid: --rank got 'x'; allowed: a whole number",
                "--points has no option 'audit.noise_pair' (did you mean 'audit.noise_pairs'?)",
                "--audit: --audit.noise_pairs got 'x'; allowed: a whole number",
                "--seeds got [1, 1]; allowed: different whole numbers",
                "--seeds and 'seed' in --grid or --points",
                "--split_seeds got []",
            ],
        ),
        (
            ["--points", "[{rank: 4}, {}, {rank: 0}]", "--evaluate", "{num_images: 3}", "--checkpoints", "true"],
            [
                "two points are the same settings: 'rank 4' and 'as given'",
                "rank 0: --rank got 0; allowed: 1 or more",
                "--num_images got 3; allowed: 20 or more",
                "--checkpoints needs --max_train_steps",
            ],
        ),
        (["--grid", "{learning_rate: [1, 1.0]}"], ["two points are the same settings"]),
        (["--objective", "mp_lora", "--seeds", "[1]", "--checkpoints", "true"], ["no point has objective lora"]),
        (
            ["--seeds", "[1]", "--checkpoints", "[150]", "--max_train_steps", "2000"],
            ["--checkpoints got 150; allowed: multiples of --checkpointing_steps (500) below 2000"],
        ),
        (
            ["--grid", "{mi_lambda: [1, 2]}", "--points", "[{proxy_steps: 2, teacher_steps: 5}]"],
            [
                "--grid got 'mi_lambda', which is of --objective mp_lora and smp_lora, and no point has it",
                "--points got 'proxy_steps', which is of --objective mp_lora and smp_lora",
                "'teacher_steps', which is of --objective distill_lora and synth_lora, and no point has it",
            ],
        ),
        (
            ["--grid", "{rank: [2, 4]}", "--num_teachers", "3"],
            ["--num_teachers is of --objective distill_lora; leave it out with lora"],
        ),
        (["--grid", "{null: [4, 8]}"], ["--grid has null where the name of an option belongs"]),
        (["--points", "[{4: 8}]"], ["--points has 4 where the name of an option belongs"]),
        (["--split_seeds", "[1]", "--split_manifest", "x"], ["--split_seeds and --split_manifest exclude each other"]),
        (["--seeds", "[1]", "--objctive", "x", "--network_dim", "8"], ["mean 'objective'?)", "(here it is --rank)"]),
    ],
)  # fmt: skip
def test_messages(images: str, given: list[str], messages: list[str]) -> None:
    said = refusal(images, *given)
    for message in messages:
        assert message in said


def test_what_all_points_have_in_common_is_said_once(images: str) -> None:
    assert refusal(images, "--grid", "{mi_lambda: [1, 2, 3]}", "--rank", "0").count("--rank got 0") == 1


def test_another_sweep_is_refused_and_a_larger_one_is_not(images: str, tmp_path: Path) -> None:
    root = tmp_path / "out"
    before = options(images, "--grid", "{learning_rate: [1]}")
    root.mkdir()
    (root / "config.yaml").write_text(yaml.safe_dump(vars(before) | {"all_points": None}))
    command.check_sweep(root, options(images, "--grid", "{learning_rate: [1, 2]}", "--seeds", "[0, 1]"))
    with pytest.raises(ConfigError, match=r"holds another sweep .*rank was 4, now 8"):
        command.check_sweep(root, options(images, "--grid", "{learning_rate: [1]}", "--rank", "8"))
    (root / "config.yaml").write_text(yaml.safe_dump(vars(TrainConfig())))
    with pytest.raises(ConfigError, match="holds something else"):
        command.check_sweep(root, before)


def test_numbers_of_the_files(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given measurements: the means over seeds, the front, and a run that failed."""
    config = options(images, "--grid", "{rank: [2, 4, 8]}", "--seeds", "[0, 1]")
    subjects = plan.subjects(config)
    aucs = dict(zip([s.run for s in subjects], [0.6, 0.7, 0.9, 0.9, 0.55, 0.5], strict=True))
    kids = dict(zip([s.run for s in subjects], [0.1, 0.3, 0.5, 0.5, 0.4, 0.4], strict=True))

    def audit(told: Any) -> Any:
        strongest = SimpleNamespace(attack="loss", auc=Proportion(aucs[Path(told.adapter).name], 0.4, 1.0, "DeLong"))
        verdict = SimpleNamespace(level="amber")
        return SimpleNamespace(strongest={"test": strongest, "aux_members": strongest}, verdict=verdict)

    def quality(told: Any) -> Any:
        kid = Estimate(kids[Path(told.adapter).name], 0.0, 1.0)
        held_out = SimpleNamespace(kid=kid, fid=Estimate(None, reason="too few"))
        return SimpleNamespace(against=SimpleNamespace(held_out=held_out), held_out_loss=kid)

    monkeypatch.setattr(results, "previous_audit", audit)
    monkeypatch.setattr(results, "previous_quality", quality)
    outcome: dict[str, str | None] = {subjects[5].run: "<out of memory>"}
    made = results.settings(results.rows(subjects, outcome), config)
    assert [one.label for one in made] == ["rank 2", "rank 4", "rank 8"]
    two = made[0].measured["auc"]
    assert (two.value, two.low, two.high, two.method) == (pytest.approx(0.65), 0.6, 0.7, TWO_RUNS)
    assert cell(two).note == TWO_RUNS
    assert made[2].measured["auc"].method == "DeLong"  # one run is left
    assert [one.front for one in made] == [True, False, True]
    told = results.content(made, config, {})
    json.dumps(told, allow_nan=False)
    assert told["settings"][0]["auc"]["value"] == pytest.approx(0.65)
    assert told["settings"][0]["fid"] is None
    assert (told["settings"][2]["n"], told["settings"][2]["runs"][1]["problem"]) == (1, "<out of memory>")
    lines = list(csv.DictReader(io.StringIO(results.table(made))))
    seen = [(line["rank"], line["seed"], line["auc"]) for line in lines[:3]]
    assert seen == [("2", "0", "0.6"), ("2", "1", "0.7"), ("4", "0", "0.9")]
    assert (lines[5]["auc"], lines[5]["problem"]) == ("", "<out of memory>")
    for subject in subjects[:5]:
        subject.folder.mkdir(parents=True)
    page = render(made, config)
    assert "&lt;out of memory&gt;" in page
    assert "<out of memory>" not in page
    assert 'id="front-3"' in page
    assert 'href="#front-3"' in page
    assert "runs/rank%3D8_seed%3D0/" in page
    assert "runs/rank%3D8_seed%3D1/" not in page  # there is no such folder
