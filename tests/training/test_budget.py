"""A budget of leakage: what is inside, what is refused, how it steers, and that no audit sees what it chose by."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.audit import AuditConfig
from smplora.config.budget import PrivacyBudget, parse_budget
from smplora.config.train import TrainConfig
from smplora.core.console import forget_what_was_said
from smplora.core.errors import ConfigError, TrainingError
from smplora.core.reading import read_json
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.split import CELLS, MANIFEST, Split, read_split
from smplora.experiments.tasks import audit, train
from smplora.objectives.smp_lora import SMPLoRA
from smplora.runs.base_model import load_base
from smplora.runs.folder import BUDGET, DONE, RunFolder, read_config
from smplora.runs.subject import load_subject
from smplora.training import budget as module
from smplora.training.budget import BudgetKeeper, check_resolvable, leakage, smallest_limit
from smplora.training.distributed import make_accelerator
from smplora.training.setup import prepare

AUC = PrivacyBudget("auc", 0.9)
STEPS: dict[str, Any] = {"objective": "lora", "budget_steps": 2, "learning_rate": 1e-2}


def planted(leaks: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks find members higher by so many standard deviations from these steps on; nothing is asked."""
    looks: list[int] = []

    def measure(self: Any) -> Any:
        looks.append(len(looks) + 1)
        scores = np.random.default_rng(len(looks)).standard_normal(len(self.is_member)) * 1e-3
        size = [shift for step, shift in sorted(leaks.items()) if step <= 2 * len(looks)][-1]
        scores = np.linspace(-1, 1, len(scores))[np.random.default_rng(0).permutation(len(scores))] + scores
        return SimpleNamespace(scores=torch.from_numpy(scores + size * self.is_member), held_out_loss=1 / len(looks))

    monkeypatch.setattr(module.RunningAttack, "measure", measure)
    monkeypatch.setattr(module, "check_resolvable", lambda *_: None)
    monkeypatch.setattr("smplora.training.train.check_resolvable", lambda *_: None)


def test_what_is_given_away_counts_in_both_directions() -> None:
    is_member = np.arange(100) < 50
    scores = torch.from_numpy(np.random.default_rng(0).standard_normal(100) + 2 * is_member)
    up, down = leakage(scores, is_member, AUC), leakage(-scores, is_member, AUC)
    assert up == down
    assert up.low < 0.9 < up.high
    rate = leakage(scores, is_member, PrivacyBudget("tpr", 0.2, fpr=0.1))
    assert 0.5 < rate.low < rate.high < 1


def test_what_chance_can_tell() -> None:
    """The limit that can be asked for shrinks as 1 / sqrt(n): the interval of a coin's AUC."""
    fifty, two_hundred = (smallest_limit(n, n, AUC) for n in (50, 200))
    assert fifty - 0.5 == pytest.approx(0.15, abs=0.03)  # 1.96 sqrt(2 n + 1) / (n sqrt(12)), and what chance adds
    assert (fifty - 0.5) / (two_hundred - 0.5) == pytest.approx(2, rel=0.15)
    check_resolvable(PrivacyBudget("auc", 0.7), 50, 50)
    with pytest.raises(ConfigError, match=r"auc=0\.55 cannot be told from chance .* allowed: auc=0\.6\d or more, or "):
        check_resolvable(PrivacyBudget("auc", 0.55), 50, 50)


def test_a_budget_that_is_met_at_once(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted({0: 0.0}, monkeypatch)
    config = short_config(image_folder, tmp_path / "run", **STEPS, privacy_budget="auc=0.99")
    run = RunFolder(train(config, progress=False))
    assert [row["inside"] for row in run.metrics(BUDGET)] == [True] * 3
    assert run.done
    assert run.done.step == 6  # the held-out loss falls


def test_a_budget_that_cannot_be_met(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted({0: 5.0}, monkeypatch)
    config = short_config(image_folder, tmp_path / "run", **STEPS, privacy_budget="auc=0.6", max_train_steps=20)
    with pytest.raises(
        TrainingError, match=r"no adapter was inside --privacy_budget AUC 0\.6: the least .* after step 2"
    ):
        train(config, progress=False)
    folder = RunFolder(tmp_path / "run")
    assert len(folder.metrics(BUDGET)) == 3, "it gave up after three looks outside"
    assert not (tmp_path / "run" / DONE).exists()
    assert not (tmp_path / "run" / ADAPTER_FILE).exists()
    with pytest.raises(TrainingError, match="no adapter was inside"):  # also where it is resumed
        train(config, progress=False)
    assert len(folder.metrics(BUDGET)) == 3


def test_the_best_inside_is_published(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaks from step 6 on; what is published is the adapter after step 4, as a run of 4 steps has it."""
    planted({0: 0.0, 6: 5.0}, monkeypatch)
    config = short_config(image_folder, tmp_path / "run", **STEPS, privacy_budget="auc=0.9", max_train_steps=40)
    run = train(config, progress=False)
    folder = RunFolder(run)
    assert [(row["step"], row["inside"]) for row in folder.metrics(BUDGET)] == [
        (2, True), (4, True), (6, False), (8, False), (10, False),
    ]  # fmt: skip
    assert folder.done
    assert folder.done.step == 4
    subject = load_subject(str(run), None, "cpu").subject
    assert (subject.step, subject.max_train_steps) == (4, 40)  # type: ignore[union-attr]
    four = short_config(image_folder, tmp_path / "four", **STEPS, privacy_budget="auc=0.9", max_train_steps=4)
    planted({0: 0.0}, monkeypatch)
    assert (train(four, progress=False) / ADAPTER_FILE).read_bytes() == (run / ADAPTER_FILE).read_bytes()


@pytest.mark.parametrize("objective", ["smp_lora", "synth_lora"])
def test_a_resumed_run_steers_as_if_nothing_had_happened(image_folder: Path, tmp_path: Path, objective: str) -> None:
    own: dict[str, Any] = {
        "smp_lora": {"mi_lambda": 0.5},
        "synth_lora": {"num_synthetic_images": 16, "synthetic_inference_steps": 1, "teacher_steps": 1},
    }[objective]
    options = {**STEPS, **own, "objective": objective, "privacy_budget": "auc=0.99", "max_train_steps": 6}
    config = short_config(image_folder, tmp_path / "run", **options, aux_size=14)
    run = train(config, progress=False)
    rows, before = RunFolder(run).metrics(BUDGET), (run / ADAPTER_FILE).read_bytes()
    if objective == "synth_lora":
        assert [row["images"] for row in rows] == [2, 4, 8]
    else:
        assert len({row["mi_lambda"] for row in rows}) == 3
        assert rows[0]["mi_lambda"] == 0.5
    again = short_config(image_folder, run, **options, aux_size=14, resume_from_checkpoint="checkpoint-3")
    train(again, progress=False)
    assert RunFolder(run).metrics(BUDGET) == rows
    assert (run / ADAPTER_FILE).read_bytes() == before


def test_lambda_rises_while_too_much_is_given_away_and_falls_again() -> None:
    game = SimpleNamespace(objective=SMPLoRA(mi_lambda=0.1))
    keeper = BudgetKeeper(AUC, None, SimpleNamespace(game=game), None, 1, start_lambda=0.1)  # type: ignore[arg-type]
    for _ in range(4):
        keeper._steer(1.0, False)
    high = keeper.mi_lambda
    assert high > 0.1
    for _ in range(30):
        keeper._steer(1.0, False)
    assert keeper.mi_lambda == pytest.approx(0.1 * 100)
    for _ in range(60):
        keeper._steer(0.6, True)
    assert keeper.mi_lambda < 0.1


def test_no_audit_sees_what_the_training_chose_by(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted({0: 0.0}, monkeypatch)
    forget_what_was_said()
    options = {**STEPS, "privacy_budget": "auc=0.99", "objective": "smp_lora"}
    config = short_config(image_folder, tmp_path / "run", **options)
    found = load_subject(str(train(config, progress=False)), None, "cpu").split
    assert "5 aux members and 5 aux non-members are left out" in capsys.readouterr().err
    assert found.sizes == {"aux_member": 5, "test_member": 10, "aux_nonmember": 5, "test_nonmember": 10} | {
        "reference": found.sizes["reference"]
    }
    audited = {s.digest for cell in CELLS for s in found.cells[cell]}
    assert audited.isdisjoint(s.digest for s in (*found.aside, *found.aside_nonmembers))
    assert {s.digest for s in found.aside} <= {s.digest for s in found.train}


def test_a_distilled_run_keeps_its_folds(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are set aside have teachers that did not see them, as all others."""
    planted({0: 0.0}, monkeypatch)
    options = {**STEPS, "privacy_budget": "auc=0.99", "objective": "distill_lora", "teacher_steps": 1}
    run = train(short_config(image_folder, tmp_path / "run", **options), progress=False)
    config, cpu = read_config(run, TrainConfig), torch.device("cpu")
    split = read_split(run / MANIFEST, read_samples(open_source(config)))
    setup = prepare(config, load_base(config, cpu), split.without_aside(), make_accelerator(cpu))
    assert setup.teachers
    assert setup.teachers.fold_of.keys() == {s.digest for s in split.train}
    for k in range(2):
        cells = read_json(run / "teachers" / f"teacher-{k}" / MANIFEST)["cells"]
        seen = {row["digest"] for cell in ("aux_member", "test_member") for row in cells[cell]}
        assert seen == {digest for digest, fold in setup.teachers.fold_of.items() if fold != k}


def test_a_teachers_proxy_does_not_see_them_either(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted({0: 0.0}, monkeypatch)
    options = {**STEPS, "privacy_budget": "auc=0.99", "objective": "synth_lora", "teacher_objective": "smp_lora"}
    options |= {"num_synthetic_images": 8, "synthetic_inference_steps": 1, "teacher_steps": 1}
    run = train(short_config(image_folder, tmp_path / "run", **options), progress=False)
    split = load_subject(str(run), None, "cpu").split
    cells = read_json(run / "teachers" / "teacher-0" / MANIFEST)["cells"]
    for cell, aside in (("member", split.aside), ("nonmember", split.aside_nonmembers)):
        assert len(aside) == 5
        assert {s.digest for s in aside} <= {row["digest"] for row in cells[f"test_{cell}"]}
        assert len(cells[f"aux_{cell}"]) == 5


def test_a_run_that_blows_up_says_so(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that scores are NaN."""
    nothing = SimpleNamespace(scores=torch.full((10,), torch.nan), held_out_loss=float("nan"))
    monkeypatch.setattr(module.RunningAttack, "measure", lambda _: nothing)
    monkeypatch.setattr("smplora.training.train.check_resolvable", lambda *_: None)
    options = {
        **STEPS,
        "privacy_budget": "auc=0.9",
        "learning_rate": 1e30,
        "logging_steps": 6,
        "checkpointing_steps": 6,
    }
    with pytest.raises(TrainingError, match="the loss is not a number"):
        train(short_config(image_folder, tmp_path / "run", **options), progress=False)


def test_the_report_of_an_audit_says_what_was_left_out(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also right after an audit of the same split without a budget, whose images are others."""
    planted({0: 0.0}, monkeypatch)
    found = []
    for name, budget in (("plain", None), ("budget", "auc=0.99")):
        options = {**STEPS, "budget_steps": 2 if budget else None, "privacy_budget": budget}
        run = train(short_config(image_folder, tmp_path / name, **options), progress=False)
        found.append(
            audit(AuditConfig(adapter=str(run), attacks=["loss"], num_timesteps=1, noise_pairs=1, device="cpu"))
        )
    plain, left = found
    assert plain.split.seal == left.split.seal
    assert (plain.split.cells["aux_member"], left.split.cells["aux_member"]) == (10, 5)
    assert "5 aux members and 5 aux non-members are left out" in " ".join(left.gates.notes)


def test_another_manifest_leaves_out_the_same_images() -> None:
    samples = [Sample(f"{i}", "c", f"d{i}") for i in range(20)]
    cells = {cell: tuple(samples[4 * k : 4 * k + 4]) for k, cell in enumerate(CELLS)}
    trained = Split("fixed", 0, cells)
    turned = Split("fixed", 0, {cell: some[::-1] for cell, some in cells.items()})
    assert {s.digest for s in turned.without_aside(trained).aside} == {"d2", "d3"}
    assert [s.digest for s in turned.without_aside(trained).cells["aux_member"]] == ["d1", "d0"]
    assert turned.without_aside(trained).seal == turned.seal


def test_forms() -> None:
    assert parse_budget("auc=0.6") == PrivacyBudget("auc", 0.6)
    assert parse_budget("TPR@10% = .15") == PrivacyBudget("tpr", 0.15, 0.1)
    assert parse_budget("epsilon=8") == PrivacyBudget("epsilon", 8)
    assert [parse_budget(text) for text in ("auc", "auc=", "auc=0.6.1", "tpr=0.1", "tpr@x%=1", "=1")] == [None] * 6


def test_an_epsilon_is_promised(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    options = {"objective": "dp_lora", "privacy_budget": "epsilon=50", "rank": 2, "max_train_steps": 2}
    run = train(short_config(image_folder, tmp_path / "run", **options), progress=False)
    assert read_config(run, TrainConfig).target_epsilon == 50
    assert (run / "privacy.json").exists()
    assert not (run / BUDGET).exists()
    shutil.rmtree(run / "checkpoints")


def test_options_that_do_not_fit(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    for given, words in (
        (["--privacy_budget", "auc"], "--privacy_budget got 'auc'; allowed: auc=0.65, tpr@10%=0.4 or epsilon=8"),
        (["--privacy_budget", "auc=0.4"], "allowed: an AUC above 0.5, below 1"),
        (["--privacy_budget", "tpr@10%=0.05"], "allowed: a rate above that of false positives"),
        (["--privacy_budget", "epsilon=8"], "only --objective dp_lora (or a teacher of it) promises an epsilon"),
        (["--budget_steps", "5"], "--budget_steps is of --privacy_budget"),
        (["--privacy_budget", "auc=0.6", "--aux_size", "10"], "auc=0.6 cannot be told from chance with the 5 members"),
        (
            ["--privacy_budget", "auc=0.6", "--objective", "dp_lora", "--target_epsilon", "8"],
            "is not covered by the guarantee of dp_lora; give epsilon=8",
        ),
        (
            ["--privacy_budget", "epsilon=8", "--objective", "dp_lora", "--target_epsilon", "4"],
            "--privacy_budget epsilon and --target_epsilon or --noise_multiplier: give one of them",
        ),
        (["--privacy_budget", "auc=0.6", "--objective", "smp_lora", "--mi_lambda", "0"], "cannot start at 0"),
        (["--privacy_budget", "auc=0.6", "--objective", "smp_lora", "--gradient_steps", "1"], "need as it is: give 0"),
    ):
        assert main([*command, *given]) == 2, given
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
