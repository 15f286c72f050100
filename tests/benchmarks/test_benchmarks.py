"""Every script in benchmarks/ runs at its smallest size, and writes what its results file holds."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmark_scripts import (
    AUDIT,
    EVALUATE,
    NAMES,
    SCRIPTS,
    TRAIN,
    few_images,
    lacking,
    load,
    start,
    written,
)
from smplora.attacks.methods.calibrated_loss import CalibratedLossAttack
from smplora.config.catalogue.attacks import ATTACKS
from smplora.config.train import TrainConfig
from smplora.core.reading import read_json
from smplora.data import digits
from smplora.data.digits import PRIVATE_DIGITS, caption, digit_images
from smplora.data.folder import write_folder
from smplora.experiments.tasks import train
from smplora.models.encoders.digits import DigitFeatures
from smplora.models.encoders.transformers import ClipEncoder
from smplora.models.load import load_model
from smplora.results.attack import GROUPS

__all__ = ["few_images"]  # a fixture of the whole file


def test_every_script_is_started() -> None:
    """By a test of its name."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in NAMES if f"def test_{name}(" not in tests] == []
    assert len(NAMES) > 8


def test_adaptations(tmp_path: Path) -> None:
    method = "dp_lora-epsilon_8"
    changed = {**TRAIN, "target_epsilon": None, "noise_multiplier": 1.0}  # that the noise need not be searched for
    words = ["--root", tmp_path / "runs", "--methods", method, "--train", changed, "--audit", AUDIT]
    found = start("adaptations", tmp_path, *words, "--evaluate", EVALUATE)
    before = written("adaptations")
    assert not lacking(found, {**before, "rows": {method: before["rows"]["full-lora"]}})
    assert not lacking(found["rows"][method]["privacy"], written("dp_lora")["rows"]["dp_lora-epsilon_8"]["privacy"])
    assert found["command"].startswith("python benchmarks/adaptations.py --root DIR --train '{")


def test_attacks(tmp_path: Path) -> None:
    words = ["--folder", tmp_path, "--tier", "quick", "--train", TRAIN, "--audit", AUDIT]
    found = start("attacks", tmp_path, *words)
    assert not lacking(found["quick"]["auc"]["loss"], written("attacks")["standard"]["auc"]["loss"])
    for group in GROUPS:
        value, low, high = found["quick"]["auc"]["calibrated_loss"][group]
        assert 0 <= low <= value <= high <= 1
    first = (tmp_path / "quick" / "audit.json").stat().st_mtime_ns
    assert start("attacks", tmp_path, *words) == found
    assert (tmp_path / "quick" / "audit.json").stat().st_mtime_ns == first, "what is done is not done again"


def test_gsa(tmp_path: Path) -> None:
    found = start("gsa", tmp_path, "--rounds", 1, "--images", 1)
    assert not lacking(found, written("gsa"))
    assert found["command"] == "python benchmarks/gsa.py --rounds 1 --images 1"
    assert all(row["batch_ms"] > 0 for name, row in found.items() if name.endswith("weights"))


def test_hashing(tmp_path: Path) -> None:
    found = start("hashing", tmp_path, "--adapter_mb", 1, "--base_mb", 1, "--rounds", 1)
    assert not lacking(found, written("hashing"))
    assert all(share > 0 for name in ("save", "load", "base_load") for share in found[name]["share"].values())


def test_verdicts(tmp_path: Path) -> None:
    found, before = start("verdicts", tmp_path, "--audits", 1, "--samples", 2, "--attacks", 1), written("verdicts")
    assert not lacking({name: rows[0] for name, rows in found.items() if name != "command"}, {
        name: rows[0] for name, rows in before.items() if name != "command"
    })  # fmt: skip
    assert max(row["significant"] for row in before["null"] if row["audits"] >= 300) <= 0.04 + 3 * 0.0113
    assert min(row["0.95"] for row in before["auc_interval"]) >= 0.93
    assert min(row["covered"] for row in before["rate_interval"]) >= 0.93


def test_one_run(tmp_path: Path) -> None:
    """Published values are met; the bound that takes noise for independent is wrong where it is shared."""
    found = start("one_run", tmp_path, "--simulations", 1, "--candidates", 50)
    before = written("one_run")
    assert not lacking(found, before)
    assert found["published"] == before["published"]
    for row in before["published"]:
        assert abs(row["our_epsilon"] - row["their_epsilon"]) < 5e-4
    above = {
        (kind, case, bound): numbers["above"]
        for kind in ("randomised_response", "gaussian", "shared")
        for case, of_case in before[kind].items()
        for bound, numbers in of_case.items()
    }
    chance = 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    assert max(share for (kind, _, bound), share in above.items() if kind != "shared" or bound != "xiang_mu") < chance
    assert max(share for (kind, _, bound), share in above.items() if kind == "shared" and bound == "xiang_mu") > 0.4


def test_rmia(tmp_path: Path) -> None:
    """As published it finds nearly what the simplest score finds; with another gamma it may find nothing."""
    found, before = start("rmia", tmp_path, "--draws", 1, "--cell", 10), written("rmia")
    assert not lacking(found["rows"][0], before["rows"][0])
    aucs = {(row["columns"], row["difficulty"], row["score"]): row["auc"] for row in before["rows"]}
    for columns, difficulty, score in aucs:
        simple = aucs[columns, difficulty, "gain"]
        least = {"rmia, gamma 1": simple - 0.05, "lira_offline": simple - 0.005}
        assert aucs[columns, difficulty, score] > least.get(score, 0)
    assert min(area for (*_, score), area in aucs.items() if score == "rmia, gamma 2") < 0.55


def test_audit_cost(tmp_path: Path) -> None:
    small = ["--cell", 3, "--rounds", 1, "--pixels", 64, "--widths", 64, 64, 64, "--audit", AUDIT]
    assert not lacking(start("audit_cost", tmp_path, *small), before := written("audit_cost"))
    assert before["ratio"]["high"] <= 1.1


def test_tiers(tmp_path: Path) -> None:
    asked = {**AUDIT, "error_map_draws": 1}
    images, run = digits.write_private_digits(tmp_path), tmp_path / "run"
    train(TrainConfig(train_data_dir=str(images), output_dir=str(run), objective="lora", **TRAIN), progress=False)  # type: ignore[arg-type]
    found = start("tiers", tmp_path, "--tiers", "quick", "--audit", asked, "--runs", run)
    before = written("tiers")
    (one,), first = found["adapters"].values(), next(iter(before["adapters"].values()))
    assert not lacking({**one["quick"], "test": {}}, {**first["quick"], "test": {}})
    for tiers in before["adapters"].values():
        assert len({tier["level"] for tier in tiers.values()}) == 1, "the light does not depend on the tier"


def test_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STEPS", "EPOCHS"):
        monkeypatch.setattr(f"forms.{name}", 1)
    images, run, known = digits.write_private_digits(tmp_path), tmp_path / "run", dict(ATTACKS)
    train(TrainConfig(train_data_dir=str(images), output_dir=str(run), objective="lora", **TRAIN), progress=False)  # type: ignore[arg-type]
    asked = {"num_timesteps": 1, "noise_pairs": 1}
    forms = ["distribution", "clid"]
    try:
        found = start("forms", tmp_path, "--audit", asked, "--forms", *forms, "--runs", run)
    finally:
        for name in ATTACKS.keys() - known.keys():
            del ATTACKS[name]
    (one,), first = found["adapters"].values(), next(iter(written("forms")["adapters"].values()))
    assert not lacking(one, {form: first[form] for form in forms})
    for pair in one.values():
        assert len(pair) == 2
        assert all(0 <= low <= value <= high <= 1 for form in pair.values() for value, low, high in form.values())


def test_mutations(tmp_path: Path) -> None:
    found = start("mutations", tmp_path, "--readers", 20, "--commands", 0)
    assert not lacking(
        {**found, "readers": {}, "commands": {}}, {**written("mutations"), "readers": {}, "commands": {}}
    )
    assert (found["readers"]["mutations"], found["readers"]["wrong"]) == (20, 0)


def test_kills(tmp_path: Path) -> None:
    found = start("kills", tmp_path, "--kills", 1, "--only", "split")
    before = written("kills")
    assert not lacking({**found, "by_command": {}}, {**before, "by_command": {}})
    assert not lacking(found["by_command"]["split"], before["by_command"]["split"])
    for record in (found, before):
        assert record["all"]["survived"] == record["all"]["restarts_compared"] > 0
    assert before["all"]["kills"] > 100


def test_kills_sees_a_difference(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"step": 1, "elapsed_s": 2}\n')
    script = load("kills")
    before = script.contents(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"step": 1, "elapsed_s": 3}\n')
    assert script.contents(tmp_path) == before
    (tmp_path / "a.jsonl").write_text('{"step": 2, "elapsed_s": 2}\n')
    assert script.contents(tmp_path) != before


def test_shadows(tmp_path: Path) -> None:
    words = ["--folder", tmp_path / "runs", "--steps", 1, "--shadows", 4, "--objectives", "lora"]
    changed = {name: value for name, value in TRAIN.items() if not name.endswith("_steps")}
    asked = {**AUDIT, "attacks": ["calibrated_loss", "lira", "rmia"]}
    found = start("shadows", tmp_path, *words, "--train", changed, "--audit", asked, "--evaluate", EVALUATE)
    assert not lacking(found["lora"], written("shadows")["lora"])
    assert found["lora"]["shadows"]["number"] == 4
    assert found["command"].startswith("python benchmarks/shadows.py --steps 1 --shadows 4 --train ")


def test_canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, labels = digit_images(PRIVATE_DIGITS)
    some = [(f"{k}.png", picture, [caption(labels[k])]) for k, picture in enumerate(pictures[:150])]
    monkeypatch.setattr(digits, "write_private_digits", lambda folder: write_folder(folder, some))
    words = ["--steps", 2, "--canaries", 100, "--objectives", "lora", "--kinds", "held_out"]
    found, before = start("canaries", tmp_path, *words, "--train", TRAIN, "--audit", AUDIT), written("canaries")
    assert not lacking(found["lora"]["held_out"], before["lora"]["held_out"])
    assert before["dp_lora"]["held_out"]["epsilon"] < before["dp_lora"]["held_out"]["promised_epsilon"]


def test_properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = partial(CalibratedLossAttack, num_timesteps=1)
    monkeypatch.setattr("smplora.audit.property_inference.infer.CalibratedLossAttack", few)
    changed = {name: value for name, value in TRAIN.items() if not name.endswith(("_size", "_steps"))}
    words = ["--folder", tmp_path / "runs", "--steps", 1, "--only", "share", "--shares", 0.5, "--share_of", 8]
    found = start("properties", tmp_path, *words, "--train", changed, "--properties", {"references": 3})
    before = written("properties")
    assert not lacking(found, {**before, "size": {}, "share": {"0.5": before["share"]["0.5"]}})
    assert found["share"]["0.5"]["truth"] == 0.5
    assert {*before["size"]} == {"25", "50", "100", "200"}
    assert all(row["spectrum_regression"]["error"] < row["error_without"] for row in before["size"].values())


def test_step_memory(tmp_path: Path) -> None:
    found = start("step_memory", tmp_path, "--model", "tiny", wrote="step_memory_tiny")
    assert not lacking(found, written("step_memory"))
    assert 0.4 < found["bf16_share"] < 1


def test_flow_memory(tmp_path: Path) -> None:
    """Of layers as wide as the true ones, but fewer."""
    name, script = "FLUX.2 klein 4B", load("flow_memory")
    kind = script.KINDS[name]
    few = kind._replace(config={**kind.config, "num_layers": 1, "num_single_layers": 5}, encoders=lambda: [])
    found = start("flow_memory", tmp_path, "--models", name, "--resolutions", 256, KINDS={name: few})["models"][name]
    before = written("flow_memory")["models"][name]
    assert 3.8 < before["transformer_billions"] < 4
    assert found["step_gb"]["256 pixels, checkpointing"] < found["step_gb"]["256 pixels"] / 3
    assert found.keys() == before.keys()


def test_the_true_size_of_sd15() -> None:
    """Without memory: on tensors that have shapes and no values."""
    load("step_memory")
    model = sys.modules["common"].sd15(torch.device("meta"))
    assert sum(p.numel() for p in model.denoiser.parameters()) == 859_520_964
    assert (model.resolution, model.downsampling) == (512, 8)


def test_theory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smplora.training.theory import record

    few = {name: partial(estimate, iterations=2) for name, estimate in record.ESTIMATES.items()}
    monkeypatch.setattr(record, "ESTIMATES", few)  # nobody looks at the norm's value
    game = "smp_lora-1-s0"
    words = [tmp_path / "runs", "--games", game, "--train", {**TRAIN, "hessian_steps": 1}]
    found = start("theory", tmp_path, *words)
    before = written("theory")
    assert not lacking(found, {**before, "runs": {game: before["runs"][game]}})
    assert found["runs"][game]["steps"] == 2
    assert start("theory", tmp_path / "again", *words, "--collect") == found


def test_traces(tmp_path: Path) -> None:
    """What is planted is found, what is published holds nothing, and neither did the rows that are kept."""
    kind, run = "textual_inversion", load("traces").run
    found = start("traces", tmp_path, "--only", kind, run=lambda *w: "" if w[0] == "evaluate" else run(*w))
    before = written("traces")
    assert not lacking(found["by_adapter"][kind], before["by_adapter"][kind])
    for record in (found, before):
        assert record["found"] == 0
        assert all(record["control"].values())
        assert len(record["control"]) == 21


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The front's folder, with its results."""
    folder = tmp_path_factory.mktemp("front")
    changed = {name: value for name, value in TRAIN.items() if name not in ("aux_size", "test_size", "reference_size")}
    words = [
        *("--root", folder, "--pictures", folder, "--aux_size", 5, "--pairs", "0:10", "--stops", 2),
        *("--train", {**changed, "max_train_steps": 3, "logging_steps": 1}, "--audit", AUDIT),
        *("--evaluate", {**EVALUATE, "num_images": 69}),
    ]
    start("front", folder, *words)
    return folder


def test_front(front: Path) -> None:
    found, before = read_json(front / "front.json"), written("front")
    assert not lacking({**found, "against_early_stopping": {}}, {**before, "against_early_stopping": {}})
    assert [(row["setting"], row["step"]) for row in found["rows"]] == [("lora", 2), ("lora", 3)]
    assert all(row["fid"] > 0 for row in found["rows"])
    for measure in ("fid", "held_out_loss"):
        assert (front / f"front_{measure}.svg").read_text().count("<svg ") == 1


def test_the_front_compares_with_lora_where_it_is_as_good(front: Path) -> None:
    script = load("front")
    curve = [(8.0, 0.5), (4.0, 0.7), (5.0, 0.9)]  # quality, the lower the better, and AUC
    assert script.reached(curve, 5.0) == (pytest.approx(0.65), "reached")
    assert script.reached(curve, 9.0) == (0.5, "earlier")
    assert script.reached(curve, 3.0) == (0.7, "never")
    rows = read_json(front / "front.json")["rows"]
    found = script.compare([*rows, {**rows[0], "setting": "another"}], "another")
    assert not lacking(found, next(iter(written("front")["against_early_stopping"].values())))
    assert found["test at equal fid"]["differences"] == [0.0], "it is LoRA's first stop"
    assert found["test at equal fid"]["stopped"] == ["earlier"]


def test_budget(front: Path, tmp_path: Path) -> None:
    """The commands themselves only say who they are; the audits are the front's."""
    for command, word in (("quickstart", "--help"), ("tests", "--version")):
        words = [command, f"--words={word}", "--folder", front / "split-10" / "seed-0"]
        with pytest.raises(SystemExit) as ended:
            start("budget", tmp_path, *words)
        found = read_json(tmp_path / f"{command}.json")
        assert found["status"] == 0
        assert found["wall_s"] > 0
        assert found["command"] == f"python benchmarks/budget.py {command} --words={word}"
        before = written(command)
        if command == "tests":
            assert not lacking(found, before)
            assert ended.value.code == 0
        else:
            assert not lacking({**found, "verdicts": {}}, {**before, "verdicts": {}})
            assert list(found["verdicts"]) == ["LoRA"]
            assert "must leak" in str(ended.value.code)


def test_the_scripts_that_make_a_model_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few digits and two steps: what comes out is a base model. Emojis in tones are for pretraining, twins go."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    drawn = load("openmoji", SCRIPTS)
    svgs = {name: name for name in ("1F600", "1F44B", "1F44B-1F3FB", "E0C9", "2764-FE0F")}
    known = {drawn.points(text): name for text, name in {"😀": "grinning face", "👋": "hand", "❤": "red heart"}.items()}
    monkeypatch.setattr(drawn, "drawings", lambda: svgs)
    monkeypatch.setattr(drawn, "names", lambda: known)
    private, pretraining = drawn.chosen()
    assert private == [("1F600", "grinning face"), ("2764-FE0F", "red heart")]
    assert pretraining == [("1F44B-1F3FB", "hand, light skin"), ("E0C9", "a symbol")]
    two, again = ([(picture, "") for picture in digit_images([digit])[0][:2]] for digit in (3, 3))
    assert drawn.without_twins([*two, *again]) == two
    assert drawn.without_twins(two, again) == []

    for name, digits_of in (("pretraining", [0]), ("private", [1])):
        pictures, _ = digit_images(digits_of)
        write_folder(tmp_path / name, ((f"{k}.png", one, ["grinning face"]) for k, one in enumerate(pictures[:3])))
    build = load("build_picture_model", SCRIPTS)
    monkeypatch.setattr(build, "names", lambda: known)
    build.main([str(tmp_path), "--vae_steps", "1", "--unet_steps", "1", "--results", str(tmp_path)])
    assert read_json(tmp_path / "build_picture_model.json")["pictures"] == 3
    assert load_model(str(tmp_path / "model"), torch.device("cpu")).resolution == 32
    assert (tmp_path / "samples.png").exists()

    load("build_picture_clip", SCRIPTS).main([str(tmp_path), "--steps", "2", "--results", str(tmp_path)])
    assert read_json(tmp_path / "build_picture_clip.json")["pictures"] == 6
    judge = ClipEncoder(str(tmp_path / "clip"), "cpu", "features")
    picture = torch.rand(1, 3, 32, 32)
    seen = judge.whole.get_image_features(pixel_values=(picture * 255).round() / 255 * 2 - 1).pooler_output
    assert torch.allclose(judge.embedding(picture), torch.nn.functional.normalize(seen), atol=1e-5)


def test_the_script_that_makes_a_flow_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few digits and one step: what comes out is a base model whose captions differ."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    build, (pictures, labels) = load("build_flow_model", SCRIPTS), digit_images([0, 1])
    monkeypatch.setattr(build, "VERSIONS", 1)
    monkeypatch.setattr(build, "BATCH", 2)
    monkeypatch.setattr(build.examples, "digit_images", lambda _: (pictures[:4], labels[:4]))
    where = ["--folder", str(tmp_path / "model"), "--pictures", str(tmp_path / "model.png")]
    build.main([*where, "--steps", "1", "--results", str(tmp_path)])
    assert read_json(tmp_path / "build_flow_model.json")["bytes"] < 6_000_000
    model = load_model(str(tmp_path / "model"), torch.device("cpu"))
    told = model.encode_captions(["a handwritten digit zero", "a handwritten digit one"], 32)["prompt_embeds"]
    assert model.prediction_type == "velocity"
    assert not torch.equal(told[0], told[1])
    assert (tmp_path / "model.png").exists()


def test_the_scripts_that_made_the_bundled_model_and_chose_its_settings(tmp_path: Path) -> None:
    """As far as seconds allow: the feature extractor, and a look at the options."""
    few = ["--only_extractor", "--extractor_steps", "2", "--assets", str(tmp_path)]
    load("build_tiny_model", SCRIPTS).main(few)
    DigitFeatures().load_state_dict(load_file(tmp_path / "extractor.safetensors"))
    with pytest.raises(SystemExit) as ended:
        load("tune_quickstart", SCRIPTS).main(["--help"])
    assert ended.value.code == 0
