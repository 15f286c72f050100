"""The paper on the bundled model: digits for images, few steps, cells as published or in a named proportion to them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.core.files import write_atomically
from smplora.data.digits import caption, write_private_digits
from smplora.experiments.reproduce.runs import LAMBDA, LORA, MP, RANK, RATE, SMP, PaperRun
from smplora.experiments.reproduce.scale import libraries_missing
from smplora.experiments.tasks import Options

EPOCHS, BATCH = 30, 10  # of larger data sets fewer, so that no run takes more than 400 steps
POINTS = 20  # of the Hessian norm, over a run
TABLE = "metadata.jsonl"


@dataclass(frozen=True)
class Digits:
    """What stands for a data set of the paper.

    Args:
        aux, test, test_nonmembers: images per cell; both aux cells are of one size.
        description: what stands for what.
        shares: digits and how many images of each, where not all are taken.
    """

    aux: int
    test: int
    test_nonmembers: int
    description: str
    shares: Mapping[int, int] | None = None
    epochs: int = EPOCHS


DATASETS = {
    "Pokemon": Digits(50, 58, 50, "a quarter of the published cells"),
    "CelebA_Small": Digits(50, 50, 50, "the published cells"),
    "CelebA_Large": Digits(100, 100, 100, "half of the published cells", epochs=20),
    "CelebA_Gender": Digits(
        40, 40, 40, "the published cells; two classes, fives and nines, 7 : 3", {5: 182, 9: 78}
    ),
    "CelebA_Varying": Digits(
        63, 63, 63, "the published cells; four classes, sixes to nines, in proportions 1 : 2 : 3 : 4",
        {6: 40, 7: 80, 8: 120, 9: 160},
    ),
    "CelebA_Large_5X": Digits(200, 200, 200, "a fifth of the published cells: all digits there are", epochs=10),
    "AFHQ_Large_5X": Digits(150, 150, 150, "a fifth of the published cells, split anew", epochs=10),
    "MSCOCO_Large_5X": Digits(200, 200, 200, "a fifth of the published cells, split anew", epochs=10),
}  # fmt: skip
BEST_LAMBDA = 1.0  # SMP-LoRA's, on other seeds: docs/log/2026-11-22-quickstart-settings.md; MP-LoRA has the paper's
QUICK_STEPS = 6
RECIPE: dict[str, Any] = {
    "train_batch_size": BATCH, "proxy_learning_rate": 1e-3,
    "monitor_steps": 0, "validation_steps": 0, "run_page": False,
}  # fmt: skip
OF_LORA: dict[str, Any] = {"lora_targets": "all"}
OF_WEIGHTS: dict[str, Any] = {"learning_rate": 3e-4}  # benchmarks/adaptations.py
OF_DREAMBOOTH: dict[str, Any] = {"class_prompt": "a handwritten digit", "num_class_images": 40, "sample_batch_size": 20}
# seconds on one core of a server of 2024: benchmarks/results/step_time.json, docs/log/2026-11-22-step-time.md
LOADING_S, STEP_S, CURVATURE_S, PICTURE_S = 2.0, 0.045, 2.5, 0.055
AUDIT_S = {"usual": 0.08, "semantic_distance": 0.2, "gsa1": 0.05}  # an image, by attack
STEP_RATIO = {LORA: 1.0, MP: 1.86, SMP: 1.72}
ALPHA = RANK / 2.0  # of the main runs, and so of all ranks
ACTING_NORM = 0.01  # the usual gradient norm here is 0.03: docs/log/2026-11-22-gradients-and-curvature.md


class Tiny:
    """``--scale tiny``."""

    name = "tiny"
    best_lambda: float | None = BEST_LAMBDA
    bookkeeping: Mapping[str, Any] = {}
    auditing: Mapping[str, Any] = {"noise_pairs": 1}
    evaluating: Mapping[str, Any] = {"num_images": 150}
    model = "the bundled model, 32 x 32 pixels"
    machine = "one processor core"

    def training(self, run: PaperRun, seed: int) -> dict[str, Any]:
        """Options of TrainConfig that decide what ``run`` computes."""
        data = DATASETS[run.dataset]
        options: dict[str, Any] = {
            "objective": run.objective, "adaptation": run.adaptation, "seed": seed,
            "aux_size": data.aux, "test_size": data.test, "test_nonmember_size": data.test_nonmembers,
            "split_seed": 100 * list(DATASETS).index(run.dataset) + seed,
            "max_train_steps": -(-data.epochs * (data.aux + data.test) // BATCH),
            **RECIPE,
        }  # fmt: skip
        if run.objective != LORA:
            options["mi_lambda"] = run.mi_lambda
        if run.adaptation == "lora":
            options |= {**OF_LORA, "rank": run.rank // 2, "learning_rate": round(3e-3 * run.learning_rate / RATE, 9)}
            options |= {"lora_alpha": ALPHA} if run.rank != RANK else {}  # without it alpha is the rank
        else:
            options |= OF_WEIGHTS | (OF_DREAMBOOTH if run.adaptation == "dreambooth" else {})
        if run.stabiliser == "clipping":
            options["max_grad_norm"] = ACTING_NORM
        if run.stabiliser == "normalisation":
            options["gradient_normalisation"] = True
        return {**options, "checkpointing_steps": options["max_train_steps"]}

    def theory(self, run: PaperRun) -> dict[str, Any]:
        """Options that measure gradients and curvature; they change nothing else."""
        steps = self.training(run, 0)["max_train_steps"]
        return {"gradient_steps": 1, "hessian_steps": max(1, steps // POINTS), "hessian_method": "lanczos"}

    def place(self, dataset: str, root: Path) -> dict[str, Any]:
        """Where the images are, below ``root``: options of TrainConfig."""
        return {"train_data_dir": str(root / ("digits" if DATASETS[dataset].shares is None else dataset.lower()))}

    def prepare(self, datasets: Iterable[str], attacks: Collection[str], root: Path) -> None:
        """Write the images that are not there."""
        everything = write_private_digits(root / "digits")
        for dataset in datasets:
            shares = DATASETS[dataset].shares
            if shares is not None:
                _part(everything, root / dataset.lower(), shares)

    def missing(self, datasets: Iterable[str], attacks: Collection[str]) -> list[str]:
        """Optional libraries."""
        return libraries_missing(attacks)

    def duration(self, train: TrainConfig, task: Options) -> float:
        """About how many seconds a task of the run ``train`` takes on one processor core."""
        if isinstance(task, EvaluateConfig):
            return LOADING_S + task.num_images * PICTURE_S
        if isinstance(task, AuditConfig):
            sizes = (train.aux_size, train.aux_size, train.test_size, train.test_nonmember_size)
            of_attacks = sum(AUDIT_S.get(attack, 0.0) for attack in task.attacks or ()) or AUDIT_S["usual"]
            return LOADING_S + sum(size or 0 for size in sizes) * of_attacks
        steps = train.max_train_steps or 0
        step = STEP_S * STEP_RATIO[train.objective] * (2 if train.adaptation == "dreambooth" else 1)
        measured = steps // train.hessian_steps * CURVATURE_S if train.hessian_steps else 0
        if train.gradient_steps and train.objective != LORA:
            measured += steps / train.gradient_steps * STEP_S / 2
        return LOADING_S + steps * step + measured

    def differences(self, runs: Iterable[PaperRun]) -> list[str]:
        """Epochs, rates, alpha and clipping, where these runs have them."""
        runs = list(runs)
        epochs = {run.dataset: DATASETS[run.dataset].epochs for run in runs}
        sentences = [f"Epochs (paper: 400): {', '.join(f'{name} {n}' for name, n in epochs.items())}."]
        if {run.rank for run in runs} - {RANK}:
            sentences.append(
                f"Ranks are half of the paper's. The paper names one alpha, 32 at rank 64 (Table 5), which is read as "
                f"that of all ranks: here {ALPHA:g}, that of our main runs."
            )
        if {run.learning_rate for run in runs} - {RATE}:
            sentences.append("Learning rates are 30 times the paper's: 3e-3 stands for 1e-4.")
        if {run.adaptation for run in runs} - {"lora"}:
            rate = OF_WEIGHTS["learning_rate"]
            log = "docs/log/2026-11-22-other-adaptations.md"
            sentences.append(f"Full fine-tuning and DreamBooth learn at {rate:g} (paper: 5e-6; {log}).")
        if "clipping" in {run.stabiliser for run in runs}:
            sentences.append(
                f"Gradient clipping is at norm {ACTING_NORM:g}: the usual norm of 1, which all other runs have, never "
                "acts here, since gradients have norms of about 0.03."
            )
        return sentences

    def stands_for(self, dataset: str) -> str:
        """What stands for a data set of the paper."""
        data = DATASETS[dataset]
        return (
            f"digits, {data.description}: {data.aux} aux members and as many aux non-members, "
            f"{data.test} test members, {data.test_nonmembers} test non-members; {data.epochs} epochs"
        )


class Quick(Tiny):
    """``--scale tiny --quick``: each kind of training once, so small that its numbers mean nothing."""

    evaluating: Mapping[str, Any] = {"num_images": 20, "num_inference_steps": 4}
    auditing: Mapping[str, Any] = {
        "num_timesteps": 2,
        "noise_pairs": 1,
        "error_map_draws": 2,
        "attacks": ["error_map", "calibrated_loss"],
    }

    def training(self, run: PaperRun, seed: int) -> dict[str, Any]:
        """As ``Tiny``, on a few images for a few steps. Lambda, rank, rate and data set do not matter; other
        adaptations are trained with SMP alone, and the clipping is the usual one."""
        alike = replace(run, dataset="Pokemon", mi_lambda=LAMBDA, rank=RANK, learning_rate=RATE)
        if run.adaptation != "lora":
            alike = replace(alike, objective=SMP)
        if run.stabiliser == "clipping":
            alike = replace(alike, stabiliser="")
        small: dict[str, Any] = {
            "aux_size": 8,
            "test_size": 8,
            "test_nonmember_size": 8,
            "reference_size": 24,
            "train_batch_size": 2,
        }
        small |= {"max_train_steps": QUICK_STEPS, "checkpointing_steps": QUICK_STEPS, "logging_steps": 2}
        small |= {"rank": 2, "lora_targets": "attention"} if run.adaptation == "lora" else {}
        small |= {"num_class_images": 2} if run.adaptation == "dreambooth" else {}
        return super().training(alike, seed) | small

    def differences(self, runs: Iterable[PaperRun]) -> list[str]:
        """All that matters is said once."""
        return []

    def theory(self, run: PaperRun) -> dict[str, Any]:
        """As ``Tiny``, at one point."""
        return super().theory(run) | {"hessian_steps": QUICK_STEPS}

    def place(self, dataset: str, root: Path) -> dict[str, Any]:
        """All data sets are one."""
        return super().place("Pokemon", root)

    def stands_for(self, dataset: str) -> str:
        """The same few digits for all."""
        return f"32 digits, the same for every data set; {QUICK_STEPS} steps"


def _part(everything: Path, folder: Path, shares: Mapping[int, int]) -> Path:
    """The first so many images of each digit."""
    if (folder / TABLE).exists():  # written last
        return folder
    rows = [json.loads(line) for line in (everything / TABLE).read_text(encoding="utf-8").splitlines()]
    chosen = [row for digit, n in shares.items() for row in [r for r in rows if r["text"] == caption(digit)][:n]]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for row in chosen:
        (folder / row["file_name"]).write_bytes((everything / row["file_name"]).read_bytes())
    write_atomically(folder / TABLE, "".join(json.dumps(row) + "\n" for row in chosen))
    return folder
