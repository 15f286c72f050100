"""Attacks through the real audit on the bundled model: captions, pixels, gradients, tiers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from small_networks import draw_little, learn_little
from smplora.attacks.base import Access
from smplora.attacks.load import load_attacks
from smplora.attacks.views import out_of_reach
from smplora.audit.signals import Collector, captions_of_others
from smplora.cli.main import main
from smplora.cli.parse import parse
from smplora.config.audit import AuditConfig, unknown_attack
from smplora.config.catalogue.attacks import ATTACKS, COUNTS, ERROR_BASED, LOW_PASS, SHADOW, TIERS
from smplora.data.pool import Sample
from smplora.runs.subject import load_subject

SOME = ["pia", "pfami", "clid_other_caption", "gsa2", "rediffuse_images"]


def test_signals_do_not_depend_on_the_batch_size(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything that the command adds: captions, captions of others, pixels."""
    draw_little(monkeypatch)
    loaded = load_subject(str(trained_run), None, "cpu")
    found = []
    for batch_size in (4, 64):
        config = AuditConfig(attacks=SOME, variations=2, batch_size=batch_size)
        attacks = load_attacks(config.chosen_attacks, config)
        found.append(Collector(loaded, config.seed, config.batch_size).signals(attacks, ("test_member",)))
    assert found[0].keys() == found[1].keys()
    for key, signals in found[0].items():
        np.testing.assert_allclose(signals, found[1][key], rtol=2e-3, atol=1e-3 * np.abs(signals).max())


def test_an_audit_with_names_of_attacks(trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn_little(monkeypatch)
    draw_little(monkeypatch)
    names = ["clid_vector", "gsa1", "pia+low_pass"]
    command = ["audit", "--adapter", str(trained_run), "--output_dir", str(tmp_path / "audit"), "--device", "cpu"]
    assert main([*command, "--attacks", f"[{', '.join(names)}]", "--tier", "strong", "--num_timesteps", "2"]) == 0
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert [a["name"] for a in content["attacks"]] == names == content["settings"]["attacks"]
    assert content["settings"]["tier"] is None  # the attacks were chosen by hand
    assert content["settings"]["noise_pairs"] == COUNTS["strong"]["noise_pairs"]
    assert [a["access"] for a in content["attacks"]] == ["grey box", "white box", "grey box"]
    assert "low frequencies" in content["attacks"][2]["title"]


def test_the_adapters_own_proxy_is_turned_on_it(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the same step, on test alone: it was trained on aux. Where there is none, a tier goes without it and a
    wish is refused in a line."""
    for folder, step in ((trained_run, 6), (trained_run / "checkpoints" / "checkpoint-3", 3)):
        proxy = load_subject(str(folder), None, "cpu").adapted.proxy
        assert proxy is not None
        saved = load_file(trained_run / "checkpoints" / f"checkpoint-{step}" / "proxy.safetensors")
        assert all(torch.equal(tensor, saved[name]) for name, tensor in proxy.state_dict().items())
    assert Access.INSIDER not in out_of_reach(load_subject(str(trained_run), None, "cpu").adapted)
    without, out = tmp_path / "run", tmp_path / "audit"
    shutil.copytree(trained_run, without)
    (without / "checkpoints" / "checkpoint-6" / "proxy.safetensors").unlink()
    reasons = out_of_reach(load_subject(str(without), None, "cpu").adapted)
    assert reasons == {Access.INSIDER: "no proxy that was trained on aux alone is at hand"}
    few = ["--num_timesteps", "1", "--noise_pairs", "1", "--error_map_draws", "1", "--device", "cpu"]
    names = ["loss", "proxy", "proxy_calibrated"]
    chosen = ["--attacks", f"[{', '.join(names)}]"]
    assert main(["audit", "--adapter", str(trained_run), "--output_dir", str(out), *few, *chosen]) in (0, 3)
    content = json.loads((out / "audit.json").read_text())
    assert [a["name"] for a in content["attacks"]] == names
    assert [a["aux_members"] is None for a in content["attacks"]] == [False, True, True]
    assert {content["strongest"][g]["attack"] for g in ("test", "aux_members")} == {"loss"}
    capsys.readouterr()
    assert main(["audit", "--adapter", str(without), "--output_dir", str(out), *few, "--attacks", "[proxy]"]) == 2
    assert "--attacks got proxy alone, which the run has trained on aux; add another" in capsys.readouterr().err
    assert main(["audit", "--adapter", str(without), "--output_dir", str(out), *few, "--attacks", "[loss, proxy]"]) == 2
    assert "--attacks got one that asks the proxy" in capsys.readouterr().err
    assert main(["report", "--runs", f"[{out}]", "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "The adapter&#39;s own proxy" in page
    assert "trained on them" in page


def test_an_unfinished_installation_is_said(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    command = ["audit", "--adapter", str(trained_run), "--output_dir", str(tmp_path / "audit"), "--device", "cpu"]
    assert main([*command, "--attacks", "[gsa1]"]) == 2
    assert "pip install smplora[xgboost]" in capsys.readouterr().err


def test_tiers() -> None:
    """Every tier holds the one before; strong holds every attack; options win over tiers."""
    quick, standard, strong = (set(TIERS[t]) for t in ("quick", "standard", "strong"))
    assert quick < standard < strong
    assert {name.removesuffix(LOW_PASS) for name in strong} == set(ATTACKS) - set(SHADOW)
    assert not [name for tier in TIERS.values() for name in tier if unknown_attack(name)]
    assert parse("audit", ["--adapter", "x"]).chosen_attacks == ["error_map", "loss", "calibrated_loss", "sima"]
    config = parse("audit", ["--adapter", "x", "--tier", "strong", "--noise_pairs", "3"])
    assert config.chosen_attacks == list(TIERS["strong"])
    filled = config.with_counts()
    assert (filled.noise_pairs, filled.error_map_draws) == (3, 20)
    assert filled.with_counts() == filled
    assert all(COUNTS[tier].keys() == COUNTS["quick"].keys() for tier in TIERS)


def test_the_low_pass_filter_is_offered_for_attacks_that_see_errors() -> None:
    plain = load_attacks(list(ATTACKS), AuditConfig())
    assert set(ERROR_BASED) <= plain.keys()
    assert all(plain[name].info.access is Access.GREY_BOX for name in ERROR_BASED)
    filtered = load_attacks([f"{name}{LOW_PASS}" for name in ERROR_BASED], AuditConfig())
    assert all("Lian et al." in attack.info.reference for attack in filtered.values())


def test_captions_of_others() -> None:
    """Each once, nobody's own; the same whoever is a member, that is, in whatever order the cells come."""
    samples = [Sample(f"{i}.png", str(i), f"digest {i}") for i in range(9)]
    others = captions_of_others(samples, 0)
    assert sorted(others.values()) == [s.caption for s in samples]
    assert not [s for s in samples if others[s.digest] == s.caption]
    assert others == captions_of_others(samples[::-1], 0) != captions_of_others(samples, 1)


@pytest.mark.parametrize(
    ("options", "shadows"),
    [
        (["--tier", "strong"], 8),
        (["--tier", "strong", "--shadows", "0"], None),
        (["--tier", "strong", "--shadows", "4"], 4),
        (["--tier", "strong", "--attacks", "[loss]"], None),
        (["--tier", "standard"], None),
    ],
)
def test_the_strong_tier_trains_shadows(options: list[str], shadows: int | None) -> None:
    config = parse("audit", ["--adapter", "x", *options]).with_counts()
    assert config.shadows == shadows
    assert ("lira" in config.chosen_attacks) == bool(shadows)


def test_of_an_adapter_made_elsewhere_somebody_must_say_how_shadows_are_trained() -> None:
    elsewhere: dict[str, Any] = {"adapter": "x", "tier": "strong", "pretrained_model_name_or_path": "tiny"}
    assert AuditConfig(**elsewhere).with_counts().shadows is None
    assert AuditConfig(**elsewhere, shadow_config="train.yaml").with_counts().shadows == 8
