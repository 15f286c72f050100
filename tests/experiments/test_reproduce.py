"""The paper's tables and figures again, as a person would ask for them."""

from __future__ import annotations

import html
import json
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from small_networks import draw_little, learn_little
from smplora.cli.main import main
from smplora.cli.parse import parse
from smplora.config.catalogue.paper_targets import TARGETS, expand
from smplora.config.evaluate import EvaluateConfig
from smplora.config.reproduce import ReproduceConfig
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError
from smplora.core.registry import load
from smplora.data.digits import PRIVATE_DIGITS, digit_images
from smplora.data.pool import open_source, read_samples
from smplora.experiments.reproduce.claims import compare_methods, rows_of, steps
from smplora.experiments.reproduce.command import scale_of
from smplora.experiments.reproduce.commands import command_line
from smplora.experiments.reproduce.paper import published
from smplora.experiments.reproduce.plan import Plan
from smplora.experiments.reproduce.results import means_over_seeds
from smplora.experiments.reproduce.runs import PaperRun, of_method
from smplora.experiments.reproduce.systems import ours
from smplora.experiments.reproduce.tiny import DATASETS, Tiny
from smplora.training.theory import record

CONFIGS = Path(__file__).parents[2] / "configs" / "paper"


def plan_of(*arguments: str) -> Plan:
    config: ReproduceConfig = parse("reproduce", list(arguments))
    scale = scale_of(config)
    targets = [load(TARGETS, name, "targets") for name in config.chosen_targets]
    return Plan((need for target in targets for need in target.needs(scale.best_lambda)), scale, config)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything once, quickly: nobody looks at how much attacks learn, or how well curvature is estimated."""
    output = tmp_path_factory.mktemp("reproduce") / "paper"
    command = ["reproduce", "all", "--quick", "--workers", "2", "--output_dir", str(output), "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        learn_little(patch)
        draw_little(patch)
        few = {name: partial(estimate, iterations=2) for name, estimate in record.ESTIMATES.items()}
        patch.setattr(record, "ESTIMATES", few)
        assert main(command) == 0
    return output


def test_every_table_and_figure_has_its_file_and_its_part_of_the_page(quick: Path) -> None:
    page = (quick / "index.html").read_text()
    for name in TARGETS:
        content = json.loads((quick / f"{name}.json").read_text())
        assert content["target"] == name
        assert all(seed["problem"] is None for row in content["rows"] for seed in row["seeds"])
        assert f'<section id="{name}">' in page
    assert "Missing:" not in page
    assert "Its numbers mean nothing" in page
    assert (quick / "index.html").stat().st_mode & 0o077 == 0
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_equal_runs_are_trained_once(quick: Path) -> None:
    runs = {path.name for path in (quick / "runs").iterdir()}
    keys = [json.loads((quick / f"{name}.json").read_text())["rows"] for name in TARGETS]
    used = {Path(seed["run"]).name for rows in keys for row in rows for seed in row["seeds"]}
    assert used == runs
    assert (
        len(runs) == 6
    )  # LoRA, MP, SMP, full, DreamBooth, normalised: lambda, rank, rate, data set do not matter here


def test_the_numbers_are_those_of_the_runs(quick: Path) -> None:
    row = json.loads((quick / "table_1.json").read_text())["rows"][0]
    folder = quick / row["seeds"][0]["run"]
    audit = json.loads((folder / "audit" / "audit.json").read_text())
    quality = json.loads((folder / "quality" / "quality.json").read_text())
    attack = next(a for a in audit["attacks"] if a["name"] == audit["strongest"]["test"]["attack"])
    one = row["seeds"][0]
    assert one["honest"]["asr"]["value"] == 100 * attack["test"]["asr"]["value"]
    assert one["honest"]["kid"]["value"] == quality["against"]["held_out"]["kid"]["value"]
    assert one["paper_protocol"]["kid"]["value"] == quality["against"]["train"]["kid"]["value"]
    assert one["paper_protocol"]["asr"]["value"] == 100 * audit["attacks"][0]["paper_protocol"]["asr"]
    assert one["adapter_sha256"] == audit["subject"]["adapter_sha256"]
    assert row["paper"]["asr"] == 82.27
    page = (quick / "index.html").read_text()
    assert len(one["commands"]) == 3
    assert all(command in html.unescape(page) for command in one["commands"])
    assert str(quick) not in page


def test_again_costs_nothing_and_a_failure_is_shown(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in quick.glob("runs/*/audit/audit.json")}
    victim = quick / json.loads((quick / "table_10.json").read_text())["rows"][1]["seeds"][0]["run"]
    (victim / "DONE.json").rename(victim / "DONE.bak")
    split = (victim / "split.json").read_text()
    (victim / "split.json").write_text("{}")
    common = ["--quick", "--workers", "1", "--output_dir", str(quick), "--device", "cpu"]
    try:
        assert main(["reproduce", "table_10", *common]) == 2
        said = capsys.readouterr().err
        assert "3 of 9 tasks failed; the page has the others" in said
        assert "is not a split manifest" in said
        page = (quick / "index.html").read_text()
        assert "Missing: 1 run<" in page
        assert "<li>Pokemon, MP-LoRA + gradient normalization, λ 0.05, seed 0: " in page
        assert "is not a split manifest" in page
    finally:
        (victim / "split.json").write_text(split)
        (victim / "DONE.bak").rename(victim / "DONE.json")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    capsys.readouterr()
    assert main(["reproduce", "table_10", "--dry_run", *common]) == 0
    assert "about 0 s" in capsys.readouterr().out


def test_another_scale_needs_another_folder(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table_7", "--output_dir", str(quick)]) == 2
    assert "holds the paper with scale tiny and quick True" in capsys.readouterr().err


def test_a_foreign_folder_is_left_alone(noise_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table_7", "--output_dir", str(noise_folder)]) == 2
    assert "holds something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--targets is missing: name tables and figures; allowed: all, figure_1, figure_1a"),
        (["tabel_1"], "--targets got 'tabel_1' (did you mean 'table_1'?)"),
        (["table_4"], "--targets got 'table_4'"),
        (["all", "--scale", "sdxl"], "--scale got 'sdxl'; allowed: tiny, sd15"),
        (["all", "--data_dir", "."], "--data_dir: of --scale sd15"),
        (["all", "--seeds", "[1, 1]"], "--seeds got [1, 1]; allowed: different whole numbers"),
        (["all", "--scale", "sd15", "--quick"], "--quick is of --scale tiny"),
    ],
)
def test_messages(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse("reproduce", arguments)


def test_names_mean_targets_in_the_papers_order() -> None:
    assert expand(["all"]) == list(TARGETS)
    assert expand(["table_2", "figure_1", "table_2"]) == [
        "figure_1a", "figure_1b", "figure_1c", "figure_1d", "table_2",
    ]  # fmt: skip


def test_the_plan_at_sd15_is_the_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "all", "--scale", "sd15", "--dry_run", "--output_dir", str(tmp_path / "x")]) == 0
    said = capsys.readouterr()
    assert "smplora dataset celeba_large_5x --source FOLDER_OF_CELEBA --output_dir data/celeba_large_5x" in said.err
    assert "hours" in said.out
    assert not (tmp_path / "x").exists()
    plan = plan_of("all", "--scale", "sd15")
    assert plan.seeds == [0, 1, 2]
    for planned in plan.planned.values():
        assert planned.train.problems() == [p for p in planned.train.problems() if "which is not a folder" in p]
    measured = [p for p in plan.planned.values() if p.theory]
    assert {(p.run.objective, p.train.hessian_steps, p.train.mixed_precision) for p in measured} == {
        (objective, 100, "bf16") for objective in ("lora", "mp_lora", "smp_lora")
    }


def test_sd15_without_its_images_says_how_to_get_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "celeba_small").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "celeba_small" / "one.png")
    command = ["reproduce", "table_6", "--scale", "sd15", "--data_dir", str(tmp_path / "data")]
    assert main([*command, "--output_dir", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert (
        f"smplora dataset celeba_large --source FOLDER_OF_CELEBA --output_dir {tmp_path / 'data' / 'celeba_large'}"
        in said
    )
    assert "celeba_small' holds 1 images, the paper's cells take 200" in said
    assert "the base model, 'stable-diffusion-v1-5/stable-diffusion-v1-5', is neither here nor" in said
    assert said.count("For non-commercial research only") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_settings_at_sd15_are_those_of_the_shipped_configurations(path: Path) -> None:
    shipped = TrainConfig(**yaml.safe_load(path.read_text()))
    method = {"full": "Full fine-tuning", "dreambooth": "DreamBooth"}.get(path.stem, "LoRA")
    datasets = {name.lower(): name for name in published()["splits"]}
    run = PaperRun(dataset=datasets.get(path.stem, "Pokemon"), **of_method(method))
    scale = scale_of(ReproduceConfig(targets=["all"], scale="sd15"))
    ours = TrainConfig(**scale.training(run, 0))
    differing = {name for name in vars(shipped) if getattr(shipped, name) != getattr(ours, name)}
    # the cells of non-members are as large as those of members where a configuration does not say
    assert differing <= {"test_nonmember_size"}
    assert ours.test_nonmember_size == (shipped.test_nonmember_size or shipped.test_size)


def test_tiny_cells_fit_the_digits() -> None:
    everything = len(digit_images(PRIVATE_DIGITS)[1])
    for name in published()["splits"]:
        cells = Tiny().training(PaperRun(dataset=name), 0)
        used = 2 * cells["aux_size"] + cells["test_size"] + cells["test_nonmember_size"]
        shares = DATASETS[name].shares
        assert used + 70 <= (sum(shares.values()) if shares else everything), name  # held out: FID on 64 features


def test_the_gender_and_varying_analogues_have_the_papers_shape(tmp_path: Path) -> None:
    scale = Tiny()
    scale.prepare(["CelebA_Gender", "CelebA_Varying"], [], tmp_path)

    def shares(name: str) -> list[int]:
        samples = read_samples(open_source(TrainConfig(**scale.place(name, tmp_path))))
        return sorted(np.unique([s.caption for s in samples], return_counts=True)[1].tolist())

    few, many = shares("CelebA_Gender")
    assert few / (few + many) == pytest.approx(0.3)
    varying = shares("CelebA_Varying")
    assert [count / varying[0] for count in varying] == [1, 2, 3, 4]


def test_mean_and_standard_error() -> None:
    rows = [{"honest": {"asr": {"value": value}, "fid": {"value": None}}} for value in (50.0, 60.0, 70.0)]
    found = means_over_seeds(rows)["honest"]
    assert found == {"asr": {"mean": 60.0, "standard_error": pytest.approx(10 / 3**0.5), "n": 3}}
    assert means_over_seeds(rows[:1])["honest"]["asr"]["standard_error"] is None


def test_a_run_with_measurements_does_for_one_without(tmp_path: Path) -> None:
    def lora(*names: str) -> Any:
        plan = plan_of(*names, "--output_dir", str(tmp_path))
        return plan.planned_run(PaperRun(objective="lora"), 0)

    alone = lora("table_1")
    measured = lora("table_1", "figure_2")
    assert not alone.theory
    assert measured.theory
    assert alone.key == measured.key
    measured.folder.mkdir(parents=True)
    (measured.folder / "DONE.json").write_text("{}")
    assert lora("table_1").folder == measured.folder


def test_the_captions_of_coco_are_blips_as_in_the_paper(tmp_path: Path) -> None:
    scale = scale_of(ReproduceConfig(targets=["all"], scale="sd15", data_dir=str(tmp_path)))
    coco, pokemon, *_ = scale.missing(["MSCOCO_Large_5X", "Pokemon"], [])
    folder = tmp_path / "mscoco_large_5x"
    assert f"--output_dir {folder} --captions none, then smplora caption {folder}" in coco
    assert "smplora caption" not in pokemon


def test_everything_is_looked_for_before_days_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("smplora.experiments.reproduce.scale.find_spec", lambda name: None)
    folder = tmp_path / "data" / "pokemon"
    folder.mkdir(parents=True)
    for number in range(833):
        (folder / f"{number}.png").touch()
    command = ["reproduce", "table_11", "--output_dir", str(tmp_path / "out")]
    assert main(command) == 2
    assert "pip install smplora[xgboost]" in capsys.readouterr().err
    assert main([*command, "--scale", "sd15", "--data_dir", str(tmp_path / "data")]) == 2
    said = capsys.readouterr().err
    assert "833 images without captions" in said
    assert f"smplora caption {tmp_path / 'data' / 'pokemon'}" in said
    assert "pip install smplora[xgboost]" in said
    assert (
        "the image encoder of II-S, an attack of Table 11, 'Salesforce/blip-image-captioning-large', is neither" in said
    )
    assert (
        "the network of --features dinov2, 'facebook/dinov2-large', is neither here nor in the local hub cache" in said
    )
    assert not (tmp_path / "out").exists()


def test_networks_are_fetched_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(name: str, local_files_only: bool = False, **how: Any) -> str:
        if local_files_only and name not in fetched:
            raise FileNotFoundError(name)
        if not local_files_only:
            fetched.append(name)
            (tmp_path / "model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setattr("diffusers.DiffusionPipeline.download", lambda name, **how: fetched.append(name))
    scale = scale_of(ReproduceConfig(targets=["all"], scale="sd15", allow_download=True))
    assert scale.missing([], ["semantic_distance"]) == []
    scale.prepare([], ["semantic_distance"], tmp_path)
    networks = ["facebook/dinov2-large", "Salesforce/blip-image-captioning-large"]
    assert fetched == ["stable-diffusion-v1-5/stable-diffusion-v1-5", *networks]


def test_data_sets_of_the_datasets_library(tmp_path: Path) -> None:
    import datasets

    picture = Image.new("RGB", (1, 1))
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": [picture] * 160, "text": ["a face"] * 160}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "gender"))
    given = f"{{CelebA_Gender: {tmp_path / 'gender'}, CelebA_Small: {tmp_path / 'gender'}}}"
    config: ReproduceConfig = parse("reproduce", ["table_1", "--scale", "sd15", "--datasets", given])
    scale = scale_of(config)
    problem = scale.missing(["CelebA_Gender", "CelebA_Small"], [])[0]
    assert "gender' holds 160 images, the paper's cells take 200" in problem
    assert problem.startswith("CelebA_Small: --dataset_name")
    run = plan_of("table_1", "--scale", "sd15", "--datasets", given).planned_run(PaperRun(dataset="CelebA_Gender"), 0)
    assert (run.train.dataset_name, run.train.train_data_dir) == (str(tmp_path / "gender"), None)
    with pytest.raises(ConfigError, match=re.escape("--datasets got 'CelebA_Gendre' (did you mean 'CelebA_Gender'?)")):
        parse("reproduce", ["table_1", "--scale", "sd15", "--datasets", "{CelebA_Gendre: somewhere}"])


def test_a_cost_is_that_of_what_is_left_to_do() -> None:
    """At sd15 a training takes nearly all of a run's time; DreamBooth's class batches double it."""
    plan = plan_of("table_9", "--scale", "sd15", "--seeds", "[0]")
    lora, full, dreambooth = (
        plan.durations(plan.planned_run(PaperRun(**of_method(method)), 0))
        for method in ("LoRA", "Full fine-tuning", "DreamBooth")
    )
    (_, training), *others = lora.items()
    assert training == pytest.approx(16 * 3600)
    assert sum(seconds for _, seconds in others) < training / 2
    assert next(iter(full.values())) > training
    assert next(iter(dreambooth.values())) == pytest.approx(2 * next(iter(full.values())))


def test_each_row_has_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed in the output folder, they say what the plan says."""
    root = tmp_path / "paper"
    (root / "images" / "digits").mkdir(parents=True)
    monkeypatch.chdir(root)
    plan = plan_of("table_8", "table_9", "table_10", "table_11", "--output_dir", str(root))
    runs = [PaperRun(rank=8), PaperRun(**of_method("DreamBooth")), PaperRun(**of_method("LoRA"))]
    for run in runs:
        for task in plan.planned_run(run, 0).tasks:
            _, verb, *words = shlex.split(command_line(task.options, root))
            given = {name: getattr(task.options, name) for name in vars(task.options)}
            there = {n: v.replace(f"{root}/", "") if isinstance(v, str) else v for n, v in given.items()}
            assert vars(parse(verb, words)) == there


def test_commands_name_no_folder_of_this_machine() -> None:
    options = EvaluateConfig(adapter="/home/me/out/runs/x", features=["inception-768=/home/me/weights.safetensors"])
    line = command_line(options, Path("/home/me/out"))
    assert line == "smplora evaluate runs/x --features '[inception-768=weights.safetensors]'"


def test_alpha_is_one_at_every_rank_as_in_the_paper() -> None:
    for scale in (Tiny(), scale_of(ReproduceConfig(targets=["all"], scale="sd15"))):
        usual = TrainConfig(**scale.training(PaperRun(), 0))
        alphas = {scale.training(PaperRun(rank=rank), 0)["lora_alpha"] for rank in (128, 32, 16, 8)}
        assert alphas == {usual.lora_alpha or usual.rank}
        assert "one alpha" in " ".join(scale.differences([PaperRun(rank=8)]))


def test_claims_are_counted() -> None:
    def row(dataset: str, objective: str, asr: float, kid: float, mi_lambda: float = 0.05) -> dict[str, Any]:
        means = {"asr": {"mean": asr}, "kid": {"mean": kid}}
        run = {"dataset": dataset, "objective": objective, "mi_lambda": mi_lambda}
        return {"labels": {"dataset": dataset}, "run": run, "over_seeds": {"honest": means}}

    rows = [row("A", "lora", 80, 0.1), row("B", "lora", 60, 0.1), row("C", "lora", 60, 0.1)]
    rows += [row("A", "smp_lora", 40, 0.2), row("B", "smp_lora", 35, 0.05)]
    said = compare_methods(
        rows, ("SMP-LoRA", rows_of("smp_lora")), ("LoRA", rows_of("lora")), ("asr", "kid"), "dataset"
    )
    assert said == [
        "SMP-LoRA against LoRA by the honest protocol: ASR is nearer to 50 % in 1 of 2, KID is lower in 1 of 2."
    ]
    rows = [row("A", "smp_lora", 50, kid, weight) for weight, kid in ((1.0, 0.3), (0.01, 0.1), (0.1, 0.4))]
    assert steps(rows, "mi_lambda", ["kid"]) == [
        "By the honest protocol, from each value to the next larger one, KID grows in 1 of 2."
    ]


def test_a_refused_number_keeps_its_reason() -> None:
    value = {"value": None, "reason": "FID needs more images than features: 433 images, 1024 features; use KID"}
    row = {"seeds": [{"paper_protocol": {"fid": value}}], "over_seeds": {"paper_protocol": {}}}
    cell = ours(row, "paper_protocol", "fid")
    assert (cell.text, cell.note) == ("N/A", "FID needs more images than features: 433 images, 1024 features")
