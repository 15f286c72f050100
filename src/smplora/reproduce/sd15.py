"""The paper as published: Stable Diffusion 1.5 at 512 pixels. The settings are those of ``configs/paper`` (tested)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smplora.config import ReproduceConfig
from smplora.reproduce.paper import published
from smplora.reproduce.runs import LORA, RANK, Run
from smplora.subsets import SUBSETS

BASE_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
DATA_DIR = "data"  # where 'smplora dataset' puts them
BLIP = "Salesforce/blip-image-captioning-base"
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
# the paper's A100: 400 epochs of 433 images in 16 hours with LoRA, in 20 with SMP-LoRA
STEP_S = {True: 16 * 3600 / (400 * 433), False: 20 * 3600 / (400 * 433)}
FORWARD = 0.80 / 1.71  # a forward pass in LoRA steps, by operations: docs/log.md
PASSES_PER_IMAGE = 70  # of the denoiser, in an audit
IMAGES, INFERENCE_STEPS, GUIDANCE = 1000, 25, 7.5


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
        self.evaluating: Mapping[str, Any] = {
            "num_images": IMAGES, "num_inference_steps": INFERENCE_STEPS, "guidance_scale": GUIDANCE, "batch_size": 8,
            "features": config.features or ["dinov2"], "allow_download": config.allow_download or None,
        }  # fmt: skip

    def training(self, run: Run, seed: int) -> dict[str, Any]:
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

    def theory(self, run: Run) -> dict[str, Any]:
        """As in App. C; second derivatives overflow fp16, so these runs are in bf16."""
        return {"gradient_steps": 1, "hessian_steps": 100, "hessian_method": "power", "mixed_precision": "bf16"}

    def place(self, dataset: str, root: Path) -> dict[str, Any]:
        """In ``--data_dir``."""
        return {"train_data_dir": str(self.data_dir / dataset.lower())}

    def prepare(self, datasets: Iterable[str], root: Path) -> None:
        """The images are the user's; the base model is fetched if that is allowed.

        Raises:
            UserError: there is no such model.
        """
        from smplora.config import TrainConfig
        from smplora.download import fetch_model

        fetch_model(TrainConfig(pretrained_model_name_or_path=self.base, allow_download=self.allow_download))

    def missing(self, datasets: Iterable[str]) -> list[str]:
        """Data sets that are not in ``--data_dir``, each with the command that makes it."""
        folders = {name: self.data_dir / name for name in dict.fromkeys(dataset.lower() for dataset in datasets)}
        return [
            f"'{folder}' is missing; make it: smplora dataset {name} --source {SUBSETS[name].original} --output_dir "
            f"{folder}, and where images have no captions: smplora caption {folder}"
            for name, folder in folders.items()
            if not folder.is_dir()
        ]

    def duration(self, options: Mapping[str, Any], audits: int) -> float:
        """About how many seconds a run with these options and its audits take on an A100."""
        images = options["aux_size"] + options["test_size"]
        step = STEP_S[options["objective"] == LORA]
        training = options["num_train_epochs"] * images * step
        if options.get("hessian_steps"):  # each takes as long as some 200 steps: config/theory.py
            training += training / options["hessian_steps"] * 200
        cells = images + options["aux_size"] + options["test_nonmember_size"]
        passes = cells * PASSES_PER_IMAGE + 2 * IMAGES * INFERENCE_STEPS
        return float(training + audits * passes * FORWARD * STEP_S[True])

    def stands_for(self, dataset: str) -> str:
        """What stands for a data set of the paper."""
        return "itself"
