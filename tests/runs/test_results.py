"""When an earlier audit or evaluation still holds: never for other options, always for the same ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smplora.attacks.load import load_attacks
from smplora.audit import audit
from smplora.audit.audit import audit_settings, same_audit
from smplora.config.audit import AuditConfig
from smplora.config.catalogue.attacks import ATTACKS, SHADOW, STANDARD, WITH_ENCODER
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.models.encoders.features import weights_of
from smplora.quality.evaluate import evaluation_settings, same_evaluation
from smplora.results.estimate import Estimate
from smplora.results.memorisation import ComparedImages, SearchSettings
from smplora.results.quality import ClipScore


def evaluated(*weights: str, clip: str | None = None, **options: Any) -> Any:
    """What is told of an evaluation whose features had these weights."""
    config = EvaluateConfig(adapter="run", **options)
    names = [wanted.partition("=")[0] for wanted in config.features]
    networks = {name: SimpleNamespace(weights=one) for name, one in zip(names, weights, strict=True)}
    score = clip and ClipScore(Estimate(20.0), weights=clip)
    return SimpleNamespace(**evaluation_settings(config), by_network=networks, clip_score=score)


def test_an_evaluation_is_of_its_weights(tmp_path: Path) -> None:
    """Hub ids by name, files by content; the first network as well as the others."""
    file = tmp_path / "inception.safetensors"
    file.write_bytes(b"one")
    features = ["dinov2", f"inception-768={file}"]
    content = evaluated("facebook/dinov2-large", weights_of(str(file)), features=features)

    def same(*wanted: str, **options: Any) -> bool:
        return same_evaluation(content, EvaluateConfig(adapter="run", features=list(wanted), **options))

    assert same(*features)
    assert same("dinov2=facebook/dinov2-large", features[1])
    assert not same("dinov2=facebook/dinov2-base", features[1])
    assert not same("dinov2")
    assert not same(*features, num_images=30)
    file.write_bytes(b"other")
    assert not same(*features)
    file.write_bytes(b"one")
    os.utime(file, ns=(0, 0))
    assert same(*features)


def test_a_clip_score_that_is_asked_for_is_of_its_model() -> None:
    def same(there: str | None, wanted: str | None) -> bool:
        config = EvaluateConfig(adapter="run", clip_score_model=wanted)
        return same_evaluation(evaluated("bundled", clip=there), config)

    assert same(None, None)
    assert same("openai/one", "openai/one")
    assert not same("openai/other", "openai/one")
    assert not same(None, "openai/one")
    assert same("openai/one", None)  # more than was asked for


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Whether an audit.json holds for an audit of a run of the bundled model."""
    subject = SimpleNamespace(config=TrainConfig())
    monkeypatch.setattr(audit, "find_subject", lambda adapter: subject)

    def judge(content: Any, **options: Any) -> bool:
        return same_audit(content, AuditConfig(adapter="run", **options))

    return judge


def audited(**options: Any) -> Any:
    """What is told of an audit with these options, of ten images, five of them training images."""
    config = AuditConfig(adapter="run", **options)
    guidance = 1.0 if config.memorisation_guidance is None else config.memorisation_guidance
    searched = SimpleNamespace(
        settings=SearchSettings(config.memorisation_images, config.memorisation_steps, guidance, config.attack_encoder),
        images=ComparedImages(min(config.memorisation_captions, 5) * config.memorisation_images, 5, 5),
    )
    return SimpleNamespace(settings=audit_settings(config), memorisation=searched if config.looks_for_copies else None)


@pytest.mark.parametrize(
    ("made", "asked", "holds"),
    [
        ({}, {}, True),
        ({}, {"noise_pairs": 1}, False),
        ({}, {"attack_encoder": "some/blip"}, False),  # no attack asks it, but the gate that looks at images does
        ({"tier": "strong"}, {"tier": "strong"}, True),
        ({"tier": "strong"}, {"tier": "strong", "attack_encoder": "some/blip"}, False),
        ({"attacks": ["reconstruction"]}, {"attacks": ["reconstruction"], "attack_encoder": "some/blip"}, False),
        ({"shadows": 4}, {"shadows": 4, "attack_encoder": "some/blip"}, False),
        (
            {"shadows": 4, "shadow_signal": "reconstruction"},
            {"shadows": 4, "shadow_signal": "reconstruction", "attack_encoder": "some/blip"},
            False,
        ),
        ({}, {"memorisation": True}, False),
        ({"memorisation": True}, {}, False),
        ({"memorisation": True}, {"memorisation": True}, True),
        ({"memorisation": True}, {"memorisation": True, "memorisation_guidance": 1.0}, True),
        ({"memorisation": True}, {"memorisation": True, "memorisation_guidance": 2.0}, False),
        ({"memorisation": True}, {"memorisation": True, "memorisation_images": 2}, False),
        ({"memorisation": True}, {"memorisation": True, "memorisation_steps": 2}, False),
        ({"memorisation": True}, {"memorisation": True, "memorisation_captions": 2}, False),
        ({"memorisation": True}, {"memorisation": True, "memorisation_captions": 5}, True),
        ({"memorisation": True}, {"memorisation": True, "attack_encoder": "some/blip"}, False),
    ],
    ids=str,
)
def test_an_audit_is_of_its_options(
    made: dict[str, Any], asked: dict[str, Any], holds: bool, judged: Callable[..., bool]
) -> None:
    assert judged(audited(**made), **asked) is holds


def test_audits_of_earlier_versions_hold(judged: Callable[..., bool]) -> None:
    """They told the encoder only where copies were looked for."""
    for options in (
        {},
        {"attacks": ["reconstruction"]},
        {"tier": "strong"},
        {"tier": "strong", "attack_encoder": "a/b"},
    ):
        content = audited(**options)
        del content.settings["attack_encoder"]
        assert judged(content, **options)
        if options:
            assert not judged(content, **{**options, "attack_encoder": "some/blip"})


def test_attacks_that_an_adapter_shows_nothing_to(judged: Callable[..., bool]) -> None:
    """Plain LoRA has no proxy to attack: an audit of a tier is complete without, one that names it is not."""
    content = audited(tier="standard")
    content.settings["attacks"] = [name for name in STANDARD if not name.startswith("proxy")]
    assert judged(content, tier="standard")
    named = audited(attacks=["loss", "proxy"])
    named.settings["attacks"] = ["loss"]
    assert not judged(named, attacks=["loss", "proxy"])
    content.settings["attacks"].remove("loss")  # everybody can run it
    assert not judged(content, tier="standard")


def test_which_attacks_ask_an_encoder() -> None:
    names = [name for name in ATTACKS if name not in SHADOW]
    loaded = load_attacks(names, AuditConfig(adapter="run"))
    assert [name for name in names if hasattr(loaded[name], "encoder")] == list(WITH_ENCODER)
