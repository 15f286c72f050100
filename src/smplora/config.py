"""Options: frozen dataclasses that are the one source of flags, YAML keys, help texts and documentation.

Flags carry the names that diffusers' training scripts gave them. ``problems`` of a config lists everything wrong with
its values, so that the user hears of all of it at once. This module imports nothing heavy: ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

from smplora.adapt import ADAPTATIONS
from smplora.attacks import ATTACKS
from smplora.objectives import OBJECTIVES
from smplora.registry import unknown

BUNDLED_MODEL = "tiny"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    pretrained_model_name_or_path: str = BUNDLED_MODEL
    """Base model: a folder in diffusers format, a model id that is already in the local hub cache, or 'tiny', the small model that comes with smplora."""
    resolution: Optional[int] = None
    """Edge length in pixels; images are resized (shorter side) and cropped at the centre. Default: the model's own."""
    device: str = "auto"
    """Where to compute: 'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1', 'mps'."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    train_data_dir: Optional[str] = None
    """Folder of images with captions, in metadata.jsonl ({"file_name": .., "text": ..}) or in a .txt file beside each image."""
    caption_column: str = "text"
    """Key of the caption in metadata.jsonl."""
    default_caption: Optional[str] = None
    """Caption for images that have none; without it such images are an error."""


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    split_protocol: Literal["fixed", "coin"] = "fixed"
    """'fixed': cells of given sizes, as in the paper. 'coin': a fair coin per image decides membership, another one aux or test; one-run epsilon bounds need this."""
    aux_size: Optional[int] = None
    """Images in each of the two aux cells (members, non-members). Default: a fifth of the pool, at most 100. Fixed protocol only."""
    test_size: Optional[int] = None
    """Images in each of the two test cells. Default: as aux_size. Fixed protocol only."""
    reference_size: Optional[int] = None
    """Held-out images that no cell touches, for quality. Default: all that are left ('fixed') or a fifth of the pool ('coin')."""
    split_seed: int = 0
    """Seed of the split alone, apart from --seed."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig(DataOptions, SplitOptions):
    """Divide a folder of images into sealed cells: aux and test members (the training set), aux and test non-members, held-out reference."""

    output_dir: str = "runs/split"
    """Where split.json is written. It holds file names: keep it private."""
    json: bool = False
    """Print the result as JSON on standard output."""

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return _data_problems(self) + _split_problems(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ModelOptions, DataOptions, SplitOptions):
    """Adapt the base model to the members of a split. Run the same command again to resume."""

    output_dir: str = "runs/train"
    """Run folder."""
    split_manifest: Optional[str] = None
    """A split.json written by 'smplora split'; the split options are then not used."""
    adaptation: str = "lora"
    """What is trained: 'lora' (low-rank adapters)."""
    objective: str = "lora"
    """What is minimised: 'lora' (adaptation loss), 'mp_lora' (plus lambda times the MI gain), 'smp_lora' (divided by 1 - lambda times the MI gain + delta)."""
    mi_lambda: float = 0.05
    """Lambda of MP-LoRA and SMP-LoRA, the weight of the membership-inference gain (paper: 0.05)."""
    smp_delta: float = 1e-5
    """Delta in SMP-LoRA's denominator (paper: 1e-5)."""
    smp_ratio: Literal["per_sample", "batch_mean"] = "per_sample"
    """For batches above one: mean of the samples' ratios (what the paper's batch size 1 does) or ratio of the batch's means."""
    proxy_learning_rate: float = 1e-5
    """Adam learning rate of the proxy attack model (paper: 1e-5)."""
    proxy_steps: int = 1
    """Ascent steps of the proxy per step of the adapter."""
    proxy_input: Literal["error_map", "loss"] = "error_map"
    """What the proxy sees: the element-wise error map (as the paper's code) or the scalar loss (as its text)."""
    proxy_sees_timestep: bool = False
    """Tell the proxy the timestep."""
    rank: int = 4
    """Rank r of the adapter (paper: 64)."""
    lora_alpha: Optional[float] = None
    """Scaling numerator alpha; the adapter is added times alpha / rank. Default: the rank (paper: 32)."""
    lora_targets: Literal["attention", "all"] = "attention"
    """Adapted layers: attention projections, or those plus feed-forward and block projections."""
    train_batch_size: int = 1
    """Images per step (paper: 1)."""
    gradient_accumulation_steps: int = 1
    """Batches per step; the gradient is that of one batch of all of them."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Precision of the frozen base model; the adapter and the losses stay fp32."""
    num_train_epochs: int = 100
    """Passes over the training set (paper: 400)."""
    max_train_steps: Optional[int] = None
    """Steps in all; overrides num_train_epochs."""
    learning_rate: float = 1e-4
    """AdamW learning rate of the adapter (paper: 1e-4)."""
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """How the learning rate goes on (paper: constant)."""
    lr_warmup_steps: int = 0
    """Steps in which the learning rate rises from 0; for all schedules but 'constant'."""
    snr_gamma: Optional[float] = None
    """Weight the adaptation loss by min-SNR-gamma; 5 is the recommended value. Default: no weighting (paper)."""
    adam_weight_decay: float = 1e-2
    """Decoupled weight decay of the adapter."""
    max_grad_norm: float = 1.0
    """The adapter's gradient is clipped to this L2 norm."""
    seed: int = 0
    """Seed of everything but the split."""
    checkpointing_steps: int = 500
    """Steps between checkpoints. Each one can be audited as if training had stopped there."""
    checkpoints_total_limit: Optional[int] = None
    """Keep only this many of the newest checkpoints. Default: all."""
    resume_from_checkpoint: str = "latest"
    """'latest', or the name of a checkpoint in the run folder, such as checkpoint-500: later ones are discarded."""
    logging_steps: int = 25
    """Steps between lines of metrics.jsonl."""
    report_to: Optional[Literal["tensorboard"]] = None
    """Also log to TensorBoard (pip install smplora[tensorboard]), in the run folder's logs/."""
    json: bool = False
    """Print the result as JSON on standard output."""

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        at_least_one = (
            "rank",
            "proxy_steps",
            "train_batch_size",
            "gradient_accumulation_steps",
            "num_train_epochs",
            "max_train_steps",
            "logging_steps",
        )
        return [
            *_data_problems(self),
            *([] if self.split_manifest else _split_problems(self)),
            *_missing(unknown(OBJECTIVES, self.objective, "objective")),
            *_missing(unknown(ADAPTATIONS, self.adaptation, "adaptation")),
            *_at_least(self, ("resolution",), 8),
            *_at_least(self, (*at_least_one, "checkpointing_steps", "checkpoints_total_limit"), 1),
            *_positive(
                self, ("learning_rate", "proxy_learning_rate", "max_grad_norm", "smp_delta", "lora_alpha", "snr_gamma")
            ),
            *_at_least(self, ("mi_lambda", "adam_weight_decay", "lr_warmup_steps", "seed"), 0),
        ]


@dataclass(frozen=True, kw_only=True)
class SubjectOptions:
    adapter: Optional[str] = None
    """A run folder of 'smplora train', or one of its checkpoints (RUN/checkpoints/checkpoint-500)."""
    train_data_dir: Optional[str] = None
    """The images, if they moved since training."""
    split_manifest: Optional[str] = None
    """A split.json with the same members as the run's, such as one with other non-members. Default: the run's."""
    seed: int = 0
    """Seed of noise and classifiers; generated image i starts from the noise of seed + i, for every adapter."""
    device: str = "auto"
    """Where to compute: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'."""
    json: bool = False
    """Print the result as JSON on standard output."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig(SubjectOptions):
    """Attack an adapter and say, with intervals, what it gives away. Everything is fitted on the aux cells and read once on the test cells."""

    output_dir: Optional[str] = None
    """Where audit.json and scores.npz go. Default: audit/ beside the adapter."""
    attacks: list[str] = field(default_factory=lambda: list(ATTACKS))
    """Attacks to run. Default: all."""
    num_timesteps: int = 8
    """Timesteps at which the loss attacks look, evenly from 5 % to 50 % of the schedule."""
    noise_pairs: int = 2
    """Antithetic noise pairs per timestep."""
    error_map_draws: int = 10
    """Noise and timestep draws per image that the paper's attack trains on, one per epoch in turn."""
    batch_size: int = 64
    """Images per pass. The result does not depend on it."""

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return [
            *_subject_problems(self),
            *(p for name in self.attacks for p in _missing(unknown(ATTACKS, name, "attacks"))),
            *([] if self.attacks else [f"--attacks got none; allowed: {', '.join(ATTACKS)}"]),
            *_at_least(self, ("num_timesteps", "noise_pairs", "error_map_draws", "batch_size"), 1),
        ]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SubjectOptions):
    """Generate images with an adapter and measure their quality: KID and FID, against held-out and against training images."""

    output_dir: Optional[str] = None
    """Where quality.json and the pictures go. Default: quality/ beside the adapter."""
    num_images: int = 200
    """Images to generate, with the captions of held-out images."""
    num_inference_steps: int = 25
    """DDIM steps per image."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""
    batch_size: int = 50
    """Images generated at once. The result does not depend on it."""

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return [
            *_subject_problems(self),
            *_at_least(self, ("num_images",), 20),
            *_at_least(self, ("num_inference_steps", "batch_size", "guidance_scale"), 1),
            *_at_most(self, ("num_inference_steps",), 1000),
        ]


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Put audited adapters side by side on one self-contained page."""

    runs: list[str] = field(default_factory=list)
    """Audited run folders or checkpoints."""
    output: str = "report.html"
    """The page."""
    json: bool = False
    """Print the path and the verdicts as JSON on standard output."""

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return (
            []
            if self.runs
            else ["--runs is missing: give audited run folders, as in --runs '[runs/lora, runs/smp_lora]'"]
        )


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig(ModelOptions, DataOptions, SplitOptions):
    """Adapt with LoRA, MP-LoRA and SMP-LoRA, stop LoRA early at two points, attack all five, and put everything on one page. Without --train_data_dir the private images are the handwritten digits 5 to 9, which the bundled model has never seen."""

    output_dir: str = "runs/quickstart"
    """Everything goes here. Run the same command again to resume."""
    aux_size: Optional[int] = None
    """Images in each of the two aux cells (members, non-members). Default: 50 of the digits; of your own images a fifth of the pool, at most 100."""
    max_train_steps: int = 1500
    """Steps of each method."""
    early_stops: list[int] = field(default_factory=lambda: [200, 600])
    """LoRA is also audited as if it had been stopped at these steps: the honest baseline. Multiples of 100."""
    train_batch_size: int = 10
    """Images per step."""
    learning_rate: float = 3e-3
    """Learning rate of the adapters."""
    rank: int = 32
    """Rank of the adapters."""
    lora_targets: Literal["attention", "all"] = "all"
    """Adapted layers: attention projections, or those plus feed-forward and block projections."""
    mp_lambda: float = 0.05
    """Lambda of MP-LoRA."""
    smp_lambda: float = 1.0
    """Lambda of SMP-LoRA. The paper's 0.05 changes nothing on the bundled model; see docs/log.md."""
    proxy_learning_rate: float = 1e-3
    """Learning rate of the proxy attack model; the paper's 1e-5 is for 400 epochs of SD 1.5."""
    num_images: int = 300
    """Images generated per method."""
    seed: int = 0
    """Seed of everything but the split."""
    workers: Optional[int] = None
    """Processes side by side. Default: one per processor core, at most 3; 1 on a GPU."""
    json: bool = False
    """Print the summary as JSON on standard output."""

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        stops = [
            f"--early_stops got {s}; allowed: multiples of 100 below --max_train_steps ({self.max_train_steps})"
            for s in self.early_stops
            if s % 100 or not 0 < s < self.max_train_steps
        ]
        return [
            *(_data_problems(self) if self.train_data_dir else []),
            *_split_problems(self),
            *stops,
            *_at_least(self, ("max_train_steps", "train_batch_size", "rank", "workers"), 1),
            *_at_least(self, ("num_images",), 20),
            *_at_least(self, ("mp_lambda", "smp_lambda", "seed"), 0),
            *_positive(self, ("learning_rate", "proxy_learning_rate")),
        ]


def _missing(problem: str | None) -> list[str]:
    return [problem] if problem else []


def _needed(value: Any, name: str, what: str) -> list[str]:
    return [] if value else [f"--{name} is missing: give {what}"]


def _at_least(config: Any, names: Iterable[str], low: float) -> list[str]:
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"--{name} got {value}; allowed: {low} or more"
        for name, value in values
        if value is not None and not value >= low
    ]


def _at_most(config: Any, names: Iterable[str], high: float) -> list[str]:
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} got {value}; allowed: {high} or less" for name, value in values if not value <= high]


def _positive(config: Any, names: Iterable[str]) -> list[str]:
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} got {value}; allowed: above 0" for name, value in values if value is not None and not value > 0]


def _existing_folder(folder: str | None, name: str) -> list[str]:
    if folder is None or Path(folder).is_dir():
        return []
    return [f"--{name} got '{folder}', which is not a folder"]


def _subject_problems(config: SubjectOptions) -> list[str]:
    return [
        *_needed(config.adapter, "adapter", "a run folder of 'smplora train' or one of its checkpoints"),
        *_existing_folder(config.train_data_dir, "train_data_dir"),
        *_at_least(config, ("seed",), 0),
    ]


def _data_problems(config: DataOptions) -> list[str]:
    return [
        *_needed(config.train_data_dir, "train_data_dir", "a folder of images with captions"),
        *_existing_folder(config.train_data_dir, "train_data_dir"),
    ]


def _split_problems(config: SplitOptions) -> list[str]:
    sizes = ("aux_size", "test_size")
    given = [
        f"--{n} got {getattr(config, n)}; --split_protocol coin has no fixed sizes"
        for n in sizes
        if getattr(config, n) is not None
    ]
    return [
        *(given if config.split_protocol == "coin" else _at_least(config, sizes, 2)),
        *_at_least(config, ("reference_size", "split_seed"), 0),
    ]
