"""Image encoders: the bundled one, and tiny untrained models of transformers' kinds from local folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from encoder_folders import saved
from said import complaint
from smplora.attacks.load import load_attacks
from smplora.attacks.methods.reconstruction import GaussianRatio
from smplora.attacks.views import BlackBox
from smplora.cli.main import main
from smplora.config.audit import AuditConfig
from smplora.core.errors import ConfigError
from smplora.models.encoders.digits import load_digit_features
from smplora.models.encoders.transformers import load_encoder
from toys import toy_batch, toy_model, toy_pictures

IMAGES = torch.rand((3, 3, 20, 20), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["deit", "dino", "clip", "blip"])
def test_transformers_encoders_from_a_folder(kind: str, tmp_path: Path) -> None:
    """Features are those of the model on pixels prepared by its own processor from 8-bit pictures."""
    direct = saved(kind, tmp_path)
    encoder = load_encoder(str(tmp_path), "cpu")
    pictures = [np.uint8((i * 255).round().permute(1, 2, 0).numpy()) for i in IMAGES]
    prepared = transformers.AutoImageProcessor.from_pretrained(tmp_path)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        expected = direct(prepared["pixel_values"])
    torch.testing.assert_close(encoder.patches(IMAGES), expected.last_hidden_state)
    torch.testing.assert_close(encoder.embedding(IMAGES), expected.pooler_output)
    whole, parts = encoder.patches(IMAGES), torch.cat([encoder.patches(i[None]) for i in IMAGES])
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)


def test_attacks_use_the_encoder_that_is_given(tmp_path: Path) -> None:
    saved("deit", tmp_path)
    batch = toy_batch(3, seed=0)
    model = toy_model(batch.mean)
    for name in ("reconstruction", "semantic_distance"):
        found = [
            load_attacks([name], AuditConfig(attack_encoder=encoder))[name].signals(
                BlackBox(model, batch, 0, toy_pictures(batch))
            )
            for encoder in (str(tmp_path), "tiny")
        ]
        assert np.isfinite(found[0]).all()
        assert not np.allclose(*found)


def test_bundled_encoder() -> None:
    """Its embedding is the mean of its patches, and it refuses photographs."""
    encoder = load_encoder("tiny", "cpu")
    assert encoder.patches(IMAGES).shape == (3, 16, 64)
    torch.testing.assert_close(encoder.patches(IMAGES).mean(1), encoder.embedding(IMAGES), atol=1e-5, rtol=1e-4)
    assert torch.equal(encoder.embedding(IMAGES), load_digit_features()(IMAGES))
    with pytest.raises(ConfigError, match="knows small digits only"):
        encoder.patches(torch.rand(1, 3, 128, 128))


def test_an_encoder_that_is_not_there(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", "--adapter", str(trained_run), "--attacks", "[reconstruction]", "--output_dir", str(tmp_path)]
    assert main([*command, "--attack_encoder", "nobody/nothing"]) == 2
    message = complaint(capsys.readouterr().err)
    assert message.startswith("smplora: --attack_encoder got 'nobody/nothing'")
    assert message.count("\n") == 1


def test_pickled_encoders_are_refused(tmp_path: Path) -> None:
    direct = saved("deit", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(direct.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="--attack_encoder"):
        load_encoder(str(tmp_path), "cpu")


def test_likelihood_ratio_in_closed_form() -> None:
    """Two Gaussians of one dimension: the ratio is quadratic, by hand."""
    rng = np.random.default_rng(0)
    member = np.arange(200) < 100
    signals = np.where(member, rng.normal(1, 2, 200), rng.normal(0, 1, 200))[:, None]
    found = GaussianRatio().fit(signals, member).score(signals)
    logs = []
    for rows in (signals[member, 0], signals[~member, 0]):
        variance = rows.var(ddof=1) + 1e-5
        logs.append(-((signals[:, 0] - rows.mean()) ** 2) / (2 * variance) - np.log(variance) / 2)
    np.testing.assert_allclose(found, logs[0] - logs[1], rtol=1e-9)


@pytest.mark.parametrize(
    ("attacks", "reason"),
    [
        ("[rediffuse_images+low_pass]", "compares no predictions"),
        ("[los+low_pass]", "did you mean 'loss'?"),
        ("[]", "got none"),
    ],
)
def test_names_of_attacks(attacks: str, reason: str, trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--adapter", str(trained_run), "--attacks", attacks]) == 2
    message = complaint(capsys.readouterr().err)
    assert reason in message
    assert message.count("\n") == 1
