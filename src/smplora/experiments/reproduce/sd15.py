"""The paper as published: Stable Diffusion 1.5 at 512 pixels. The settings are those of ``configs/paper`` (tested)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from smplora.config.audit import AuditConfig
from smplora.config.caption import CaptionConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.reproduce import ReproduceConfig
from smplora.config.train import TrainConfig
from smplora.core.errors import DataError, listing
from smplora.experiments.reproduce import supplies
from smplora.experiments.reproduce.paper import published
from smplora.experiments.reproduce.runs import LORA, RANK, PaperRun
from smplora.experiments.reproduce.scale import libraries_missing
from smplora.experiments.tasks import Options
from smplora.models.hub import fetch_network
from smplora.runs.base_model import fetch_model

BASE_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
DATA_DIR = "data"  # where 'smplora dataset' puts them
BLIP = CaptionConfig.caption_model  # in safetensors
OF_ALL: dict[str, Any] = {
    "resolution": 512, "proxy_learning_rate": 1e-5, "train_text_encoder": True, "clip_skip": 2, "max_token_length": 225,
    "shuffle_caption": True, "mixed_precision": "fp16", "train_batch_size": 1, "num_train_epochs": 400,
}  # fmt: skip
OF_LORA: dict[str, Any] = {"lora_alpha": RANK / 2, "lora_targets": "all", "text_encoder_lr": 1e-5}
OF_WEIGHTS: dict[str, Any] = {"learning_rate": 5e-6, "text_encoder_lr": 5e-6}
OF_DREAMBOOTH: dict[str, Any] = {
    "instance_prompt": "sks {caption}", "with_prior_preservation": True, "class_prompt": "a drawing of a creature",
    "num_class_images": 200,
}  # fmt: skip
IMAGES, INFERENCE_STEPS, GUIDANCE = 1200, 25, 7.5  # FID on 1024 features wants 1079 images: quality/distances.py
# the paper's A100: 400 epochs of 433 images in 16 hours with LoRA, in 20 with SMP-LoRA
STEP_S = {True: 16 * 3600 / (400 * 433), False: 20 * 3600 / (400 * 433)}
FORWARD = 0.80 / 1.71  # a forward pass in LoRA steps, by operations: docs/log/2026-11-22-step-time.md
EVERY_WEIGHT = 3 * FORWARD  # a step of which all weights have gradients, likewise
CURVATURE = 200  # a measurement of the Hessian norm, in steps: config/theory.py
PASSES = {"usual": 70, "semantic_distance": 60, "gsa1": 10 / FORWARD}  # of the denoiser for an image, by attack


class SD15:
    """``--scale sd15``."""

    name = "sd15"
    model = "Stable Diffusion 1.5 at 512 pixels"
    machine = "one A100, from the paper's own hours; audits and images from counted passes"
    best_lambda: float | None = None
    bookkeeping: Mapping[str, Any] = {"checkpointing_steps": 2000, "checkpoints_total_limit": 1}
    auditing: Mapping[str, Any] = {"attack_encoder": BLIP, "batch_size": 8}

    def __init__(self, config: ReproduceConfig) -> None:
        self.data_dir = Path(config.data_dir or DATA_DIR)
        self.base = config.pretrained_model_name_or_path or BASE_MODEL
        self.allow_download = config.allow_download
        self.features = config.features or ["dinov2"]
        self.datasets = config.datasets or {}
        self.evaluating: Mapping[str, Any] = {
            "num_images": IMAGES, "num_inference_steps": INFERENCE_STEPS, "guidance_scale": GUIDANCE, "batch_size": 8,
            "features": self.features, "allow_download": config.allow_download or None,
        }  # fmt: skip

    def training(self, run: PaperRun, seed: int) -> dict[str, Any]:
        """Options of TrainConfig that decide what ``run`` computes."""
        cells = published()["splits"][run.dataset]
        options: dict[str, Any] = {
            "pretrained_model_name_or_path": self.base, "objective": run.objective, "seed": seed, "split_seed": seed,
            "aux_size": cells["aux_member"], "test_size": cells["test_member"],
            "test_nonmember_size": cells["test_nonmember"], **OF_ALL,
        }  # fmt: skip
        if run.objective != LORA:
            options["mi_lambda"] = run.mi_lambda
        if run.adaptation == "lora":
            options |= OF_LORA | {"rank": run.rank, "learning_rate": run.learning_rate}
        else:
            options |= OF_WEIGHTS | {"adaptation": run.adaptation}
            options |= OF_DREAMBOOTH if run.adaptation == "dreambooth" else {}
        if run.stabiliser == "normalisation":
            options["gradient_normalisation"] = True
        return options

    def theory(self, run: PaperRun) -> dict[str, Any]:
        """As in App. C; second derivatives overflow fp16, so these runs are in bf16."""
        return {"gradient_steps": 1, "hessian_steps": 100, "hessian_method": "power", "mixed_precision": "bf16"}

    def place(self, dataset: str, root: Path) -> dict[str, Any]:
        """In ``--data_dir``, unless ``--datasets`` names it."""
        if dataset in self.datasets:
            return {"dataset_name": self.datasets[dataset]}
        return {"train_data_dir": str(self.data_dir / dataset.lower())}

    def prepare(self, datasets: Iterable[str], attacks: Collection[str], root: Path) -> None:
        """The images are the user's; base model, networks and hub ids of ``--datasets`` are fetched if that is allowed.

        Raises:
            UserError: there is no such model or data set, or it has too few images.
        """
        if not self.allow_download:
            return
        fetch_model(TrainConfig(pretrained_model_name_or_path=self.base, allow_download=True))
        for name in self._networks(attacks).values():
            fetch_network(name)
        problems = self._images_missing(datasets, root, fetch=True)
        if problems:
            raise DataError(listing("data sets cannot be used", problems))

    def missing(self, datasets: Iterable[str], attacks: Collection[str]) -> list[str]:
        """Data sets, models and libraries that are not there."""
        models = {"the base model": self.base, **self._networks(attacks)}
        return [
            *self._images_missing(datasets, Path(), fetch=False),
            *([] if self.allow_download else supplies.models_missing(models)),
            *libraries_missing(attacks),
        ]

    def duration(self, train: TrainConfig, task: Options) -> float:
        """About how many seconds a task of the run ``train`` takes on an A100, but for what the paper's hours leave
        out: full fine-tuning and gradients measured are counted by operations, class images as batches of their own."""
        members = (train.aux_size or 0) + (train.test_size or 0)
        forward = FORWARD * STEP_S[True]
        if isinstance(task, EvaluateConfig):
            return 2 * forward * task.num_images * task.num_inference_steps  # with and without the caption
        if isinstance(task, AuditConfig):
            images = members + (train.aux_size or 0) + (train.test_nonmember_size or 0)
            return forward * images * sum(PASSES[attack] for attack in task.attacks or ["usual"])
        steps, plain = train.num_train_epochs * members, train.objective == LORA
        step = STEP_S[plain] * (1 if train.adaptation == "lora" else EVERY_WEIGHT)
        step *= 2 if train.with_prior_preservation else 1
        seconds = steps * step
        if train.gradient_steps and not plain:  # the gain's gradient, a backward pass
            seconds += steps / train.gradient_steps * (STEP_S[True] - forward)
        return seconds + (steps / train.hessian_steps * CURVATURE * step if train.hessian_steps else 0)

    def differences(self, runs: Iterable[PaperRun]) -> list[str]:
        """What the paper leaves open, and how it was read here."""
        runs = list(runs)
        sentences = {
            "The paper names one alpha, 32 at rank 64 (Table 5): it is 32 at every rank.": {run.rank for run in runs}
            - {RANK},
            "All runs clip gradients at norm 1, so MP-LoRA + gradient clipping is Table 1's MP-LoRA itself.": {
                run for run in runs if run.stabiliser == "clipping"
            },
            "DreamBooth's token and class prompt, which the paper does not give, are ours.": {
                run for run in runs if run.adaptation == "dreambooth"
            },
        }
        return [sentence for sentence, concerned in sentences.items() if concerned]

    def stands_for(self, dataset: str) -> str:
        """What stands for a data set of the paper."""
        return "itself"

    def _networks(self, attacks: Collection[str]) -> dict[str, str]:
        return supplies.networks(self.features, BLIP if "semantic_distance" in attacks else None)

    def _images_missing(self, datasets: Iterable[str], root: Path, *, fetch: bool) -> list[str]:
        """What is wrong with data sets; those that may be fetched are looked at when that is done."""
        places = {name: TrainConfig(**self.place(name, root), allow_download=fetch) for name in datasets}
        absent = {
            name: Path(place.train_data_dir)
            for name, place in places.items()
            if place.train_data_dir and not Path(place.train_data_dir).is_dir()
        }
        later = self.allow_download and not fetch
        problems = [
            supplies.images_missing(name, place)
            for name, place in places.items()
            if name not in absent and not (place.dataset_name and later)
        ]
        return [*supplies.recipes(absent), *(problem for problem in problems if problem)]
