"""An audit's protocol through the real command: gates before the test cells, the plan, the cache, the positive control,
the schema of audit.json."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from pydantic import ValidationError

import smplora.audit.audit
import smplora.audit.signals
from small_networks import draw_little, learn_little
from smplora import api
from smplora.attacks.base import Access, Attack
from smplora.attacks.load import load_attacks
from smplora.attacks.views import VIEWS
from smplora.audit.gates import BASE, base_attacks, base_check
from smplora.audit.signals import ATTACKED, Collector
from smplora.cli.main import main
from smplora.config.audit import AuditConfig
from smplora.config.catalogue.attacks import ATTACKS, ON_BASE
from smplora.core.cache import FOLDER, Cache
from smplora.models.adapted import Adapted
from smplora.models.diffusion import LatentDiffusion
from smplora.results.audit import Audit
from smplora.results.record import from_plain
from smplora.runs.base_model import load_base
from smplora.runs.other_trainers import load_any

FEW = ("--attacks", "[calibrated_loss, pia]", "--num_timesteps", "2", "--noise_pairs", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at how much is found, but with the positive control, whose attack is not concerned."""
    learn_little(monkeypatch)
    draw_little(monkeypatch)


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test; where its entries are."""
    monkeypatch.setenv("SMPLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The denoiser's passes over single images, counted from here on."""
    images: list[int] = []
    predict = LatentDiffusion.predict

    def counted(self: LatentDiffusion, noised: torch.Tensor, *others: Any) -> torch.Tensor:
        images.append(len(noised))
        return predict(self, noised, *others)

    monkeypatch.setattr(LatentDiffusion, "predict", counted)
    return images


def audit(run: Path, output: Path, *options: str) -> dict[str, Any]:
    assert main(["audit", "--adapter", str(run), "--output_dir", str(output), *FEW, *options]) in (0, 3)
    content: dict[str, Any] = json.loads((output / "audit.json").read_text())
    return content


def scores(folder: Path) -> dict[str, Any]:
    with np.load(folder / "scores.npz") as file:
        return {name: file[name] for name in file.files if "/" in name}


def test_the_adapter_meets_the_test_cells_after_the_gates(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    collected = Collector.signals

    def signals(self: Collector, attacks: Any, cells: Any, *, base: bool = False, **others: Any) -> Any:
        steps.append(f"{'base' if base else 'adapter'} on {', '.join(cells)}")
        return collected(self, attacks, cells, base=base, **others)

    monkeypatch.setattr(Collector, "signals", signals)
    for name in ("blind_checks", "base_check", "shuffled_check", "control_check"):
        function = getattr(smplora.audit.audit, name)
        monkeypatch.setattr(
            smplora.audit.audit, name, lambda *a, f=function, n=name, **k: steps.append(n) or f(*a, **k)
        )
    audit(trained_run, tmp_path / "audit", "--positive_control", "--positive_control_steps", "1")
    cells = "aux_member, test_member, aux_nonmember, test_nonmember"
    assert steps == [
        "blind_checks",
        f"base on {cells}",
        "base_check",
        "adapter on aux_member, aux_nonmember",
        "shuffled_check",
        "control_check",
        f"adapter on {cells}",  # the control's own, all of them from the aux cells
        "adapter on test_member, test_nonmember",
    ]


def test_attacks_on_the_base_model_see_the_base_model(trained_run: Path) -> None:
    """Equal to the same attack on a model that never had an adapter; gradients to those under an adapter of zeros."""
    loaded = load_any(AuditConfig(adapter=str(trained_run), device="cpu"), None)
    clean = Adapted(load_base(loaded.subject.config, torch.device("cpu")))
    config = AuditConfig(error_map_draws=1)
    attacks = load_attacks(["error_map", "sima", "clid", "gsa1_base"], config)
    piece = Collector(loaded, config.seed, config.batch_size).cell("test_member")[0][0]
    batch, pictures = piece.batch[0:2], Collector.first_pictures(piece, 2)
    seen = {
        n: a.signals(VIEWS[a.info.access](loaded.adapted, batch, 0, pictures, base=True)) for n, a in attacks.items()
    }
    adapted = attacks["gsa1_base"].signals(VIEWS[Access.WHITE_BOX](loaded.adapted, batch, 0, pictures))
    assert not np.allclose(seen["gsa1_base"], adapted, rtol=1e-6)
    for name, parameter in loaded.model.denoiser.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    for name, attack in attacks.items():
        model = loaded.adapted if attack.info.access is Access.WHITE_BOX else clean
        expected = attack.signals(VIEWS[attack.info.access](model, batch, 0, pictures))
        np.testing.assert_allclose(seen[name], expected, rtol=1e-4, err_msg=name)


def test_every_attack_has_a_say_about_the_base_model_or_a_reason() -> None:
    assert set(ON_BASE) <= set(ATTACKS)
    assert set(ON_BASE.values()) <= set(ATTACKS)
    without = {
        "loss",
        "calibrated_loss",
        "clid_fixed_caption",
        "clid_other_caption",
        "rediffuse",
        "rediffuse_images",
        "noise_probe",
    }
    generating = {"reconstruction", "reconstruction_ratio", "semantic_distance"}
    assert set(ATTACKS) - set(ON_BASE) >= without | generating


def test_a_base_model_that_knows_the_members_is_found_by_any_attack() -> None:
    rng, is_member = np.random.default_rng(0), np.repeat([True, True, False, False], 40)
    attacks = base_attacks(["error_map", "pia"], AuditConfig(), gradients=True)
    assert list(attacks) == [BASE, "error_map", "pia"]
    shapes = {BASE: (8,), "error_map": (3, 4, 16, 16), "pia": (10,)}
    for leaking in (None, *shapes):
        signals = {}
        for number, cell in enumerate(ATTACKED):
            for name, shape in shapes.items():
                values = np.abs(rng.standard_normal((40, *shape))) + 0.1
                signals[name, cell] = (values * (0.3 if name == leaking and number < 2 else 1)).astype(np.float32)
        check = base_check(attacks, signals, is_member, 0)
        assert check.passed is (leaking is None)
        assert check.attacks is not None
        assert [one.attack for one in check.attacks or ()] == list(shapes)
        if leaking:
            assert attacks[leaking].info.title in check.sentence


def test_a_second_audit_measures_what_is_missing(
    trained_run: Path, tmp_path: Path, private_cache: Path, asked: list[int]
) -> None:
    audit(trained_run, tmp_path / "one")
    whole, first = sum(asked), scores(tmp_path / "one")
    asked.clear()
    audit(trained_run, tmp_path / "two")
    assert sum(asked) <= 2 * 10  # the plan's timed passes at most
    for name, values in scores(tmp_path / "two").items():
        np.testing.assert_array_equal(values, first[name])
    asked.clear()
    audit(trained_run, tmp_path / "three", "--attacks", "[calibrated_loss, pia, loss_single]")
    assert 40 * 2 <= sum(asked) <= 40 * 2 + 2 * 10  # one pass each, adapted and base
    asked.clear()
    audit(trained_run / "checkpoints" / "checkpoint-3", tmp_path / "four")  # another adapter, the same base model
    assert whole / 3 < sum(asked) < whole
    assert any((scores(tmp_path / "four")[name] != values).any() for name, values in first.items())


def test_other_code_measures_again(
    trained_run: Path, tmp_path: Path, private_cache: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    audit(trained_run, tmp_path / "one")
    first = sum(asked)
    asked.clear()
    real = smplora.audit.signals.code_digest
    monkeypatch.setattr(smplora.audit.signals, "code_digest", lambda modules: "other " + real(modules))
    audit(trained_run, tmp_path / "two")
    assert abs(sum(asked) - first) <= 2 * 10  # all of it, and the plan's timed passes


def test_damaged_signals_are_measured_again(
    trained_run: Path, tmp_path: Path, private_cache: Path, asked: list[int]
) -> None:
    audit(trained_run, tmp_path / "one")
    for number, entry in enumerate(sorted(private_cache.iterdir())):
        content = bytearray(entry.read_bytes())
        content[-1 - number % 4] ^= 1  # a bit of the last number
        entry.write_bytes(content)
    asked.clear()
    audit(trained_run, tmp_path / "two")
    assert sum(asked) > 40
    for name, values in scores(tmp_path / "two").items():
        np.testing.assert_array_equal(values, scores(tmp_path / "one")[name])


def test_a_killed_audit_goes_on_where_it_was(
    trained_run: Path, tmp_path: Path, private_cache: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, saved = Cache.save, list[str]()

    def dies(self: Cache, tensors: Any, *key: str) -> None:
        kept(self, tensors, *key)
        saved.append(key[0])
        if saved.count("signals") == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Cache, "save", dies)
        assert main(["audit", "--adapter", str(trained_run), "--output_dir", str(tmp_path / "a"), *FEW]) == 130
    assert not (tmp_path / "a" / "audit.json").exists()
    before = sum(asked)
    asked.clear()
    audit(trained_run, tmp_path / "a")
    after = sum(asked)
    asked.clear()
    audit(trained_run, tmp_path / "b", "--cache_latents_to_disk", "false")
    assert 0 < after < sum(asked) <= before + after
    for name, values in scores(tmp_path / "a").items():
        np.testing.assert_array_equal(values, scores(tmp_path / "b")[name])


def test_the_plan_counts_what_the_audit_asks(
    trained_run: Path,
    tmp_path: Path,
    private_cache: Path,
    asked: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = "[error_map, loss, calibrated_loss, sima, rediffuse_images]"
    command = ["audit", "--adapter", str(trained_run), "--output_dir", str(tmp_path / "a"), *FEW, "--attacks", names]
    command += ["--variations", "1", "--error_map_draws", "1"]
    assert main([*command, "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "a").exists()
    assert plan["seconds"] > 0
    asked.clear()
    assert main([*command, "--json"]) in (0, 3)
    assert sum(asked) - 2 * 10 <= plan["passes"] <= sum(asked)
    capsys.readouterr()
    assert main([*command, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "in all 0 denoiser passes" in said
    assert all(name in said for name in names.strip("[]").split(", "))
    assert "40 in the cache" in said


def test_an_overfitted_adapter_must_be_found_out(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--positive_control",
        "--attacks",
        "[calibrated_loss]",
        "--num_timesteps",
        "4",
        "--positive_control_steps",
    )
    content = audit(trained_run, tmp_path / "a", *options, "60")
    (check,) = (c for c in content["gates"]["checks"] if c["name"] == "positive_control")
    assert check["passed"] is True, check
    assert check["auc"]["value"] > 0.9
    assert check["attacks"][0]["attack"] == "calibrated_loss"
    assert not list((tmp_path / "a" / "control").rglob("*.png"))
    monkeypatch.setattr("smplora.training.reuse.train", None)  # it is there
    assert audit(trained_run, tmp_path / "a", *options, "60")["gates"] == content["gates"]
    monkeypatch.undo()
    capsys.readouterr()
    content = audit(trained_run, tmp_path / "b", *options, "1")  # an adapter that learned nothing is not found out
    assert content["verdict"]["level"] == "invalid"
    assert "this audit could not have found a leak" in capsys.readouterr().err


def test_audits_fit_their_schema(trained_run: Path, tmp_path: Path) -> None:
    schema = api.schema("audit")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    content = audit(trained_run, tmp_path / "a", "--attacks", "[loss_single]")
    validator.validate(content)
    table = "member,score\n" + "".join(f"{k % 2},{k * 7 % 10}\n" for k in range(40))
    (tmp_path / "s.csv").write_text(table)
    assert main(["audit", "--signals", str(tmp_path / "s.csv"), "--output_dir", str(tmp_path / "s")]) == 0
    validator.validate(json.loads((tmp_path / "s" / "audit.json").read_text()))
    for path, value in (
        (["verdict", "level"], "blue"),
        (["attacks", 0, "test", "auc", "value"], "0.5"),
        (["attacks", 0, "test", "auc", "low"], -0.1),
        (["gates", "checks", 0, "passed"], "yes"),
        (["strongest", "test", "sign"], 0),
        (["format"], "smplora.audit/1"),
    ):
        changed: Any = deepcopy(content)
        place = changed
        for step in path[:-1]:
            place = place[step]  # type: ignore[index]
        for wrong in (value, None):
            place[path[-1]] = value  # type: ignore[index]
            if wrong is None:
                del place[path[-1]]  # type: ignore[index]
            assert not validator.is_valid(changed), (path, wrong)
            with pytest.raises(ValidationError):
                from_plain(Audit, changed)


def test_what_attacks_measure_must_be_numbers(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Attack):
        info = load_attacks(["pia"], AuditConfig())["pia"].info

        def signals(self, view: Any) -> Any:
            return np.full((len(view.batch), 1), np.nan)

    monkeypatch.setattr(smplora.audit.audit, "load_attacks", lambda names, config: {"pia": Broken()})
    assert main(["audit", "--adapter", str(trained_run), "--output_dir", str(tmp_path / "a"), *FEW]) == 2
    assert "'pia' measured NaN or infinity for 10 of 10 images" in capsys.readouterr().err
