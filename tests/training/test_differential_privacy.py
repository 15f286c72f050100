"""DP-LoRA: gradients against one backward pass per image, noise and samples against their laws, epsilon against the
Gaussian mechanism's, and whole runs."""

from __future__ import annotations

import math
from contextlib import nullcontext
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import binom, norm
from torch import Tensor

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.train import TrainConfig
from smplora.core.reading import read_json
from smplora.data.pool import open_source, read_samples
from smplora.data.split import make_split
from smplora.experiments.tasks import train
from smplora.models.batch import Draw
from smplora.models.diffusion import adaptation_loss
from smplora.runs.base_model import load_base
from smplora.runs.folder import NOISE_SEED, PRIVACY, RunFolder
from smplora.training.batches import training_draw
from smplora.training.differential_privacy import (
    Guarantee,
    PrivateGradients,
    _least_noise,
    clip_factors,
    poisson_sample,
)
from smplora.training.distributed import make_accelerator
from smplora.training.resolve import resolved
from smplora.training.setup import Setup, prepare

PRIVATE: dict[str, Any] = {"objective": "dp_lora", "noise_multiplier": 1.0, "max_grad_norm": 0.05, "aux_size": 10}


def prepared(images: Path, folder: Path, **changes: Any) -> tuple[TrainConfig, Setup]:
    """What the loop works on, with an adapter that does something."""
    config = short_config(images, folder, **{**PRIVATE, "lora_targets": "all", "noise_multiplicity": 2, **changes})
    folder.mkdir()
    (folder / NOISE_SEED).write_text("5ec4e7" + "0" * 58)
    cpu = torch.device("cpu")
    split = make_split(read_samples(open_source(config)), config)
    model = load_base(config, cpu)
    config = resolved(config, model, split)
    setup = prepare(config, model, split, make_accelerator(cpu))
    torch.manual_seed(0)
    for parameter in setup.parameters:
        parameter.data += 0.05 * torch.randn_like(parameter)
    return config, setup


def made(setup: Setup, sigma: float, step: int = 0) -> list[Tensor]:
    """The gradients of a step with noise multiplier ``sigma``, in the order of ``private.weights``."""
    assert setup.private
    now, promise = setup.private, setup.private.promise
    promise = Guarantee(sigma, promise.sample_rate, promise.delta)
    plain = (now.options, now.noise_multiplicity, now.seed)
    again = PrivateGradients(*plain, now.model, now.train, now.layers, promise, now.secret)
    again.make(step, nullcontext)
    return [weight.grad.clone() for weight in again.weights if weight.grad is not None]


@pytest.mark.parametrize("text_encoder", [False, True])
def test_gradients_are_those_of_each_image_clipped(text_encoder: bool, image_folder: Path, tmp_path: Path) -> None:
    config, setup = prepared(image_folder, tmp_path / "run", train_text_encoder=text_encoder)
    private = setup.private
    assert private
    assert {id(w) for w in private.weights} == {id(p) for p in setup.parameters}
    totals = [torch.zeros_like(w) for w in private.weights]
    norms, losses = [], []
    step = next(s for s in range(99) if sum(map(len, private._batches(s))) > config.train_batch_size)
    for part, batch in enumerate(private._batches(step)):
        names = [f"adapter {part} {k}" for k in (0, 1)]
        draws = [training_draw(batch, setup.model.num_train_timesteps, config.seed, name, step) for name in names]
        for i in range(len(batch)):
            one: list[Draw] = [draw[[i]] for draw in draws]
            loss = torch.stack([adaptation_loss(setup.model.error_maps(batch[[i]], d)).sum() for d in one]).mean()
            gradient = torch.autograd.grad(loss, private.weights)
            norms.append(torch.cat([g.flatten() for g in gradient]).norm())
            losses.append(float(loss.detach()))
            for total, g in zip(totals, gradient, strict=True):
                total += g * min(1.0, config.max_grad_norm / float(norms[-1]))
    assert min(norms) < config.max_grad_norm < max(norms)
    logged = {name: float(value) for name, value in private.make(step, nullcontext).items()}
    assert logged["loss"] == logged["adaptation_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert logged["clipped"] == pytest.approx(sum(n > config.max_grad_norm for n in norms) / len(norms))
    expected = private.promise.sample_rate * len(private.train)
    largest = max(float(t.abs().max()) for t in totals) / expected
    for total, found in zip(totals, made(setup, 0.0, step), strict=True):
        torch.testing.assert_close(found, total / expected, rtol=1e-4, atol=1e-5 * largest)


def test_noise_and_samples_follow_their_laws(image_folder: Path, tmp_path: Path) -> None:
    config, setup = prepared(image_folder, tmp_path / "run")
    assert setup.private
    noise = torch.cat([(a - b).flatten() for a, b in zip(made(setup, 2.0), made(setup, 0.0), strict=True)])
    wanted = 2.0 * config.max_grad_norm / config.train_batch_size
    assert float(noise.std()) == pytest.approx(wanted, rel=0.02)
    assert abs(float(noise.mean())) < 4 * wanted / len(noise) ** 0.5
    cell, rate = setup.private.train, setup.private.promise.sample_rate
    assert rate == config.train_batch_size / len(cell)
    seen = torch.zeros(2000, len(cell))
    for step in range(len(seen)):
        for _, rows in poisson_sample(cell, rate, "secret", step):
            seen[step, rows] = 1
    low, high = binom.ppf([1e-4, 1 - 1e-4], len(seen), rate)
    assert all(low <= count <= high for count in seen.sum(0).tolist())
    sizes = seen.sum(1)
    assert float(sizes.var()) == pytest.approx(len(cell) * rate * (1 - rate), rel=0.15)
    assert poisson_sample(cell, rate, "another secret", 0) != poisson_sample(cell, rate, "secret", 0)


def test_clip_factors() -> None:
    assert clip_factors(torch.tensor([0.0, 0.5, 1.0, 4.0]), 1.0).tolist() == [1.0, 1.0, 1.0, 0.25]


def test_epsilon_of_the_gaussian_mechanism() -> None:
    """One step with everybody in it; the exact epsilon solves Balle and Wang 2018, Eq. 6."""
    sigma, delta = 1.5, 1e-5

    def gap(epsilon: float) -> float:
        a, b = 1 / (2 * sigma), epsilon * sigma
        return float(norm.cdf(a - b) - exp(epsilon) * norm.cdf(-a - b) - delta)

    exact = brentq(gap, 0.01, 20)
    found = Guarantee(sigma, 1.0, delta).epsilon(1)
    assert exact <= found <= exact + 0.05


def test_a_run_keeps_its_promise_and_resumes(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = {**PRIVATE, "noise_multiplier": None, "target_epsilon": 20.0, "target_delta": 1e-3}
    whole = train(short_config(image_folder, tmp_path / "whole", **wish))
    assert "differential privacy: epsilon" in capsys.readouterr().err
    told = read_json(whole / PRIVACY)
    assert 19 < told["epsilon"] <= 20
    assert read_json(whole / "checkpoints" / "checkpoint-3" / PRIVACY)["epsilon"] < told["epsilon"]
    assert f"({told['epsilon']:.3g}, 0.001)-differentially private" in (whole / "README.md").read_text()
    assert all("clipped" in row for row in RunFolder(whole).metrics())
    assert (whole / NOISE_SEED).stat().st_mode & 0o777 == 0o600

    before = (whole / ADAPTER_FILE).read_bytes()
    train(short_config(image_folder, whole, resume_from_checkpoint="checkpoint-3", **wish), progress=False)
    assert (whole / ADAPTER_FILE).read_bytes() == before
    other = train(short_config(image_folder, tmp_path / "other", **wish), progress=False)
    assert (other / ADAPTER_FILE).read_bytes() != before, "the noise can be guessed from the options"


def test_options_that_do_not_fit(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    for given, words in (
        (["--objective", "dp_lora"], "either --target_epsilon"),
        (["--objective", "dp_lora", "--target_epsilon", "8", "--use_dora", "true"], "needs --use_dora false"),
        (["--objective", "dp_lora", "--target_epsilon", "8", "--adaptation", "full"], "are made of linear layers"),
        (["--objective", "lora", "--target_epsilon", "8"], "is of --objective dp_lora"),
        (["--objective", "dp_lora", "--target_epsilon", "8", "--train_batch_size", "500"], "at most all of them"),
        (["--objective", "dp_lora", "--target_epsilon", "1e-9"], "which no noise keeps"),
    ):
        assert main([*command, *given]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_too_little_noise_for_the_prv_accountant() -> None:
    """Its grid would take tens of GiB. RDP bounds the same epsilon from above, and is never the smaller of the two."""
    little = Guarantee(0.01, 0.2, 1e-5)
    assert little.accountant(100) == "RDP"
    assert 1e5 < little.epsilon(100) < math.inf
    usual = Guarantee(1.0, 0.05, 1e-5)
    assert usual.accountant(200) == "PRV"
    rdp = RDPAccountant()
    rdp.history = [(1.0, 0.05, 200)]
    assert usual.epsilon(200) < rdp.get_epsilon(1e-5)


def test_the_least_noise_for_a_promise_that_only_rdp_can_keep() -> None:
    sigma = _least_noise(1e5, 1e-5, 0.1, 20)
    assert 1e5 - 1 < Guarantee(sigma, 0.1, 1e-5).epsilon(20) <= 1e5


def test_a_promise_that_is_none_is_called_so(image_folder: Path, tmp_path: Path, capsys: Any) -> None:
    wish = {**PRIVATE, "noise_multiplier": 0.01, "max_train_steps": 1}
    train(short_config(image_folder, tmp_path / "run", **wish))
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("differential privacy: ")]
    assert "(RDP)" in said
    assert "protects nobody" in said
    assert read_json(tmp_path / "run" / PRIVACY)["accountant"] == "RDP (Opacus)"
