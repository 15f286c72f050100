"""Optimizers: state that comes back bit for bit, groups with own rates, schedules, averages, loss scaling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from smplora.cli.main import main
from smplora.config.optimization import OptimizationOptions
from smplora.training import optimizers
from smplora.training.ema import averaged, ema_tensors, load_ema_tensors
from smplora.training.optimizers import (
    learning_rate_factor,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rates,
)
from smplora.training.precision import PATIENCE, LossScaler

CPU = torch.device("cpu")


def through_a_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return safetensors.torch.load(safetensors.torch.save(tensors))


class Problem:
    """Quadratic in tensors of different size: bitsandbytes keeps small ones in 32 bits, large ones in 8."""

    def __init__(self, name: str, second_rate: float | None = None) -> None:
        rng = torch.Generator().manual_seed(0)
        self.weights = [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((64, 80), (5, 3), (65, 70))]
        self.targets = [torch.randn(w.shape, generator=rng) for w in self.weights]
        rate = 1.0 if name == "prodigy" else 1e-2
        self.options = OptimizationOptions(optimizer=name, learning_rate=rate)  # type: ignore[arg-type]
        rates = (rate, rate if second_rate is None else second_rate)
        self.optimizer = make_optimizer(self.options, [(self.weights[::2], rates[0]), ([self.weights[1]], rates[1])])

    def steps(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            noise = torch.Generator().manual_seed(step)
            for w, target in zip(self.weights, self.targets, strict=True):
                w.grad = w.detach() - target + torch.randn(w.shape, generator=noise)
            set_learning_rates(self.optimizer, 1 / (1 + step))
            self.optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "prodigy"])
@pytest.mark.parametrize("before", [0, 4])
def test_a_restored_optimizer_goes_on_bit_for_bit(name: str, before: int) -> None:
    whole, first, second = Problem(name), Problem(name), Problem(name)
    whole.steps(0, 2 * before + 2)
    first.steps(0, before)
    for w, saved in zip(second.weights, first.weights, strict=True):
        w.data.copy_(saved.data)
    load_optimizer_tensors(second.optimizer, through_a_file(optimizer_tensors(first.optimizer)))
    second.steps(before, 2 * before + 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, second.weights, strict=True))
    states = optimizer_tensors(whole.optimizer), optimizer_tensors(second.optimizer)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_without_its_state_an_optimizer_goes_on_differently() -> None:
    """What the test above would miss if all optimizers were plain descent."""
    for name in ("adamw", "adamw8bit", "prodigy"):
        whole, forgetful = Problem(name), Problem(name)
        whole.steps(0, 8)
        forgetful.steps(0, 4)
        fresh = Problem(name)
        for w, saved in zip(fresh.weights, forgetful.weights, strict=True):
            w.data.copy_(saved.data)
        fresh.steps(4, 8)
        assert not torch.equal(whole.weights[0], fresh.weights[0])


def test_eight_bits_are_eight_bits() -> None:
    problem = Problem("adamw8bit")
    problem.steps(0, 1)
    state = optimizer_tensors(problem.optimizer)
    assert state["0.state1"].dtype == torch.uint8
    assert state["1.state1"].dtype == torch.uint8
    assert state["2.state1"].dtype == torch.float32, "the small one, whose group comes second"


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_groups_keep_their_rates(name: str) -> None:
    """A group at rate 0 stays, and the schedule multiplies each group's own rate; also after a restart."""
    problem = Problem(name, second_rate=0.0)
    before = [w.detach().clone() for w in problem.weights]
    problem.steps(0, 3)
    assert not torch.equal(problem.weights[0], before[0])
    assert torch.equal(problem.weights[1], before[1])
    other = Problem(name, second_rate=5e-4)
    load_optimizer_tensors(other.optimizer, optimizer_tensors(Problem(name, second_rate=5e-4).optimizer))
    assert set_learning_rates(other.optimizer, 0.5) == 5e-3
    assert [g["lr"] for g in other.optimizer.param_groups] == [5e-3, 2.5e-4]


def test_prodigy_finds_a_rate_and_the_log_shows_it() -> None:
    problem = Problem("prodigy")
    for _ in range(60):
        for w, target in zip(problem.weights, problem.targets, strict=True):
            w.grad = w.detach() - target
        problem.optimizer.step()
    estimate = problem.optimizer.param_groups[0]["d"]
    assert estimate > 1e-4, "a hundred times where it starts"
    assert set_learning_rates(problem.optimizer, 0.5) == 0.5 * estimate


def linear(step: int) -> float:
    return min(step / 2, (10 - step) / 8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", lambda step: 1.0),
        ("constant_with_warmup", lambda step: min(step / 2, 1.0)),
        ("linear", linear),
        ("cosine", lambda step: step / 2 if step < 2 else 0.5 + 0.5 * math.cos(math.pi * (step - 2) / 8)),
        (
            "cosine_with_restarts",
            lambda step: step / 2 if step < 2 else 0.5 + 0.5 * math.cos(math.pi * ((step - 2) % 4) / 4),
        ),
        ("polynomial", lambda step: step / 2 if step < 2 else ((10 - step) / 8) ** 2 * (1 - 1e-4) + 1e-4),
    ],
)
def test_schedules(name: Any, expected: Any) -> None:
    options = OptimizationOptions(
        lr_scheduler=name, lr_warmup_steps=2, lr_num_cycles=2, lr_power=2.0, learning_rate=1e-3
    )
    factor = learning_rate_factor(options, steps=10)
    assert [factor(s) for s in range(10)] == pytest.approx([expected(s) for s in range(10)])


@pytest.mark.parametrize(("name", "extra"), [("adamw8bit", "bitsandbytes"), ("prodigy", "prodigy")])
def test_a_missing_library_is_one_line(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda module: None)
    (tmp_path / "images").mkdir()
    given = ["--optimizer", name, "--learning_rate", "1", "--output_dir", str(tmp_path / "run")]
    assert main(["train", "--train_data_dir", str(tmp_path / "images"), *given]) == 2
    assert f"pip install smplora[{extra}]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_prodigy_with_a_rate_for_adam_is_refused(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--train_data_dir", str(tmp_path), "--optimizer", "prodigy", "--ema_decay", "1"]) == 2
    said = capsys.readouterr().err
    assert "--learning_rate got 0.0001; --optimizer prodigy finds the rate itself" in said
    assert "--ema_decay got 1.0; allowed: 0 or more, below 1" in said
    given = ["--optimizer", "prodigy", "--learning_rate", "1", "--train_text_encoder", "true"]
    assert main(["train", "--train_data_dir", str(tmp_path), *given]) == 2
    assert "give --text_encoder_lr 1, as --learning_rate" in capsys.readouterr().err


def test_the_average_is_the_closed_form_and_is_put_back() -> None:
    """Step n mixes in 1 - d(n) of the weights, d(1) = 0, d(n) = min(decay, n / (n + 9)); weight i is therefore left
    with (1 - d(i)) times the product of the later d."""
    history = torch.randn((30, 6), generator=torch.Generator().manual_seed(0)).double()
    weight = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    ema = EMAModel([weight], decay=0.6)
    for values in history[:11]:
        weight.data.copy_(values)
        ema.step([weight])
    resumed = EMAModel([weight], decay=0.6)
    load_ema_tensors(resumed, through_a_file(ema_tensors(ema)))
    for values in history[11:]:
        weight.data.copy_(values)
        resumed.step([weight])
    d = [0.0, *(min(0.6, n / (n + 9)) for n in range(2, 31))]
    shares = torch.tensor([(1 - d[i]) * math.prod(d[i + 1 :]) for i in range(30)]).double()
    assert shares.sum() == pytest.approx(1)
    with averaged(resumed, [weight]):
        assert torch.allclose(weight, shares @ history, atol=1e-7)
    assert torch.equal(weight, history[-1])


def scaled_step(scaler: LossScaler, weight: nn.Parameter, optimizer: torch.optim.Optimizer, slope: float) -> None:
    scaler.scale((weight * slope).sum()).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_([weight], 1.0)
    scaler.step(optimizer)
    scaler.update_after(norm)
    optimizer.zero_grad()


def test_scaling_skips_halves_and_resumes() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0, fused=True)
    scaler = LossScaler(CPU, enabled=True)
    scaled_step(scaler, weight, optimizer, 1.0)
    moved = weight.detach().clone()
    assert moved.abs().min() > 0
    for _ in range(2):
        scaled_step(scaler, weight, optimizer, 1e36)  # finite, but not times 2^16
    assert torch.equal(weight, moved)
    assert (scaler.get_scale(), int(scaler.skipped)) == (2.0**14, 2)

    other = LossScaler(CPU, enabled=True)
    other.load_tensors(through_a_file(scaler.tensors()))
    assert torch.equal(other.scale(torch.ones(1)), torch.tensor([2.0**14]))
    assert other.tensors() == scaler.tensors()
    assert not other.always_skips(100)
    assert other.always_skips(2), "a run of two steps that were both skipped"
    scaled_step(other, weight, optimizer, 1.0)
    assert int(other.skipped) == 0


def test_endless_skipping_is_hopeless() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight], fused=True)
    scaler = LossScaler(CPU, enabled=True)
    for _ in range(PATIENCE):
        assert not scaler.always_skips(1000)
        scaled_step(scaler, weight, optimizer, math.inf)
    assert scaler.always_skips(1000)
    assert not LossScaler(CPU, enabled=False).always_skips(0)
