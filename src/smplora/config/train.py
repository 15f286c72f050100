"""Options of training."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Optional

from smplora.config.budget import EPSILON, BudgetOptions, PrivacyBudget, budget_problems, parse_budget
from smplora.config.catalogue.adaptations import ADAPTATIONS, LEARNING_RATES, TRAINS_WEIGHTS
from smplora.config.catalogue.objectives import OBJECTIVES
from smplora.config.checks import at_least, at_most, if_any, needed, positive, with_sizes
from smplora.config.data import (
    CacheOptions,
    DataOptions,
    ModelOptions,
    PreparationOptions,
    SplitOptions,
    cache_problems,
    data_problems,
    model_problems,
    preparation_problems,
    split_problems,
)
from smplora.config.distill import DISTILLED, WITH_TEACHERS, DistillOptions, distill_problems
from smplora.config.dreambooth import CAPTION, DreamBoothOptions, dreambooth_problems
from smplora.config.early_stopping import EarlyStoppingOptions, early_stopping_problems
from smplora.config.game import GameOptions, proxy_problems
from smplora.config.monitor import MonitorOptions, monitor_problems
from smplora.config.optimization import DEFAULT_RATE, OptimizationOptions, optimization_problems
from smplora.config.private import PrivateOptions, private_problems
from smplora.config.synthetic import BALANCED, SYNTHETIC, TOGETHER, SyntheticOptions, synthetic_problems
from smplora.config.theory import TheoryOptions, theory_problems
from smplora.core.registry import unknown

LORA_OPTIONS = ("rank", "lora_alpha", "lora_targets", "lora_dropout", "use_rslora", "use_dora")
TOKEN_OPTIONS = ("placeholder_token", "initializer_token", "num_vectors")
OF_A_TEACHER: dict[str, Any] = {  # what none has, whatever the run
    f.name: f.default
    for kind in (DistillOptions, SyntheticOptions, BudgetOptions, EarlyStoppingOptions)
    for f in fields(kind)
} | {"final": None}
OPTIONS_OF = {"lora": LORA_OPTIONS, "textual_inversion": TOKEN_OPTIONS}  # and of no other adaptation


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    GameOptions,
    BudgetOptions,
    EarlyStoppingOptions,
    SyntheticOptions,
    ModelOptions,
    DataOptions,
    PreparationOptions,
    CacheOptions,
    SplitOptions,
    OptimizationOptions,
    MonitorOptions,
    TheoryOptions,
    DreamBoothOptions,
    PrivateOptions,
    DistillOptions,
):
    """Adapt the base model to the members of a split. Run the same command again to resume."""

    output_dir: str = "runs/train"
    """Run folder."""
    split_manifest: Optional[str] = None
    """A split.json written by 'smplora split'; the split options are then not used."""
    final: Optional[str] = None
    """A finished run: train with its options on all of its images. Its audit goes on the card, as that of a rehearsal."""
    adaptation: str = "lora"
    """What is trained: 'lora' (low-rank adapters), 'full' (every weight), 'dreambooth' (the same, with a rare token) or 'textual_inversion' (new tokens)."""
    objective: str = "lora"
    """What is minimised: 'lora' (plain loss), 'mp_lora' or 'smp_lora' (against a proxy), 'dp_lora' (private gradients), 'distill_lora' or 'synth_lora' (teachers)."""
    rank: int = 4
    """Rank r of the adapter (paper: 64)."""
    lora_alpha: Optional[float] = None
    """Scaling numerator alpha; the adapter is added times alpha / rank. Default: the rank (paper: 32)."""
    lora_targets: Literal["attention", "all"] = "attention"
    """Adapted layers: attention projections (diffusers' default), or those plus feed-forward and block projections (kohya's)."""
    lora_dropout: float = 0.0
    """Dropout of the adapter's input while training."""
    use_rslora: bool = False
    """Rank-stabilised LoRA: scale by alpha / sqrt(rank)."""
    use_dora: bool = False
    """DoRA: also learn the norms of the adapted weights' rows."""
    placeholder_token: str = "<smplora>"
    """With textual inversion: the new word, which is put before every caption unless --instance_prompt says where."""
    initializer_token: Optional[str] = None
    """With textual inversion: the word for what the images show, such as 'dog', that the new one begins as."""
    num_vectors: int = 1
    """With textual inversion: tokens that the new word is made of."""
    train_text_encoder: bool = False
    """Train the text encoder(s) too, as the paper's released code does."""
    text_encoder_lr: float = 1e-5
    """Learning rate of the text encoders (paper's code: 1e-5)."""
    clip_skip: int = 1
    """Layer of the text encoder that is read, counted from the end: 1 is the last, as in kohya's scripts and A1111 (paper's code: 2). Not for SDXL."""
    max_token_length: Literal[75, 150, 225] = 75
    """Tokens of a caption that are read, in passages of 75 (paper's code: 225)."""
    num_train_epochs: int = 100
    """Passes over the training set (paper: 400)."""
    max_train_steps: Optional[int] = None
    """Steps in all; overrides num_train_epochs."""
    seed: int = 0
    """Seed of everything but the split."""
    save_precision: Literal["float", "fp16", "bf16"] = "float"
    """Numbers in the adapter files: 'float' is exact; 'fp16' halves the file and changes the adapter's effect by about 0.4 %."""
    checkpointing_steps: int = 500
    """Steps between checkpoints. Each one can be audited as if training had stopped there."""
    checkpoints_total_limit: Optional[int] = None
    """Keep only this many of the newest checkpoints. Default: all."""
    resume_from_checkpoint: str = "latest"
    """'latest', or the name of a checkpoint in the run folder, such as checkpoint-500: later ones are discarded."""
    logging_steps: int = 25
    """Steps between lines of metrics.jsonl."""
    json: bool = False
    """Print the result as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        at_least_one = (
            "rank",
            "num_train_epochs",
            "max_train_steps",
            "logging_steps",
            "clip_skip",
            "num_vectors",
        )
        return [
            *model_problems(self),
            *([] if self.final and not self.train_data_dir else data_problems(self)),
            *cache_problems(self, self.train_data_dir),
            *preparation_problems(self),
            *monitor_problems(self),
            *([] if self.split_manifest else split_problems(self)),
            *if_any(unknown(OBJECTIVES, self.objective, "objective")),
            *if_any(unknown(ADAPTATIONS, self.adaptation, "adaptation")),
            *at_least(self, ("resolution",), 8),
            *at_least(self, (*at_least_one, "checkpointing_steps", "checkpoints_total_limit"), 1),
            *proxy_problems(self),
            *positive(self, ("text_encoder_lr", "lora_alpha")),
            *at_least(self, ("lora_dropout", "seed"), 0),
            *at_most(self, ("lora_dropout",), 0.95),
            *optimization_problems(self),
            *theory_problems(self),
            *self._one_rate(),
            *self._of_other_methods(),
            *dreambooth_problems(self, self.preserves_prior, self.objective == SYNTHETIC),
            *private_problems(self),
            *distill_problems(self),
            *synthetic_problems(self),
            *budget_problems(self),
            *early_stopping_problems(self),
        ]

    @property
    def measured_budget(self) -> PrivacyBudget | None:
        """``--privacy_budget``, unless it is promised by differential privacy."""
        budget = parse_budget(self.privacy_budget or "")
        return budget if budget and budget.measure != EPSILON else None

    @property
    def chooses_by_reference(self) -> bool:
        """Whether half of the reference images chooses what is published, so that nothing may be measured on it."""
        return self.drop_nearest == BALANCED or self.stop_when is not None

    @property
    def objective_on_images(self) -> str:
        """What is minimised on the private images: the teachers' objective where the adapter sees drawn ones."""
        return self.teacher_objective if self.objective == SYNTHETIC else self.objective

    @property
    def rate(self) -> float:
        """``--learning_rate``, or what is usual for ``--adaptation``."""
        return self.learning_rate or LEARNING_RATES.get(self.adaptation, DEFAULT_RATE)

    def rate_of(self, component: str) -> float:
        """The learning rate of a component's parameters."""
        return self.text_encoder_lr if self.train_text_encoder and component.startswith("text_encoder") else self.rate

    @property
    def wording(self) -> str:
        """What the model is told of an image, with {caption} for its own caption."""
        usual = {"dreambooth": f"sks {CAPTION}", "textual_inversion": f"{self.placeholder_token} {CAPTION}"}
        return self.instance_prompt or usual.get(self.adaptation, CAPTION)

    @property
    def trigger(self) -> str:
        """The word that calls up what was learned, where the published files tell it anyway."""
        return self.placeholder_token if self.adaptation == "textual_inversion" else ""

    @property
    def preserves_prior(self) -> bool:
        """``--with_prior_preservation``, or what is usual for ``--adaptation``."""
        chosen = self.with_prior_preservation
        return self.adaptation == "dreambooth" if chosen is None else chosen

    def _of_other_methods(self) -> list[str]:
        """Options that ``--adaptation`` has no use for, and what it cannot do without."""
        method = f"--adaptation {self.adaptation}"
        problems = []
        for owner, names in OPTIONS_OF.items():
            set_options = [f"--{name}" for name in names if getattr(self, name) != getattr(TrainConfig, name)]
            if set_options and self.adaptation != owner:
                problems.append(f"{', '.join(set_options)}: of --adaptation {owner}; leave out with {method}")
        if self.quantize and (self.adaptation != "lora" or self.use_dora or self.shard_base_model):
            problems.append(
                f"--quantize {self.quantize} is for --adaptation lora without --use_dora and --shard_base_model; leave it out"
            )
        if self.shard_base_model and self.adaptation in TRAINS_WEIGHTS:
            problems.append(f"--shard_base_model splits frozen weights; leave it out with {method}")
        return problems + (self._inversion_problems() if self.adaptation == "textual_inversion" else [])

    def _inversion_problems(self) -> list[str]:
        method, token = "--adaptation textual_inversion", self.placeholder_token
        foreign = [f"--{n}" for n in ("train_text_encoder", "with_prior_preservation") if getattr(self, n)]
        return [
            *needed(self.initializer_token, "initializer_token", "a word for what the images show, such as 'dog'"),
            *([f"{', '.join(foreign)}: nothing that {method} trains; leave out"] if foreign else []),
            *([] if token.split() == [token] else [f"--placeholder_token got '{token}'; allowed: one word"]),
            *(
                [
                    f"--instance_prompt got '{self.wording}', without --placeholder_token {token}: nothing would be learned"
                ]
                if token not in self.wording
                else []
            ),
        ]

    def _one_rate(self) -> list[str]:
        same = self.text_encoder_lr == self.rate
        if self.optimizer != "prodigy" or not self.train_text_encoder or same:
            return []
        return [
            f"--text_encoder_lr got {self.text_encoder_lr:g}; --optimizer prodigy has one rate for everything: give "
            f"--text_encoder_lr {self.rate:g}, as --learning_rate"
        ]


def steps_of_a_teacher(config: TrainConfig) -> int:
    """``--teacher_steps``, or as many passes over its images as the run makes."""
    count = config.num_teachers if config.objective == DISTILLED else config.synthetic_teachers
    share = (count - 1) / count if config.objective == DISTILLED else 1 / count
    return config.teacher_steps or max(1, round((config.max_train_steps or 0) * share))


def steps_of_drawing(config: TrainConfig, images: int) -> int:
    """What drawing so many images costs, in steps of three passes of a batch."""
    at_once = config.synthetic_teachers if config.teachers_draw == TOGETHER else 1
    passes = at_once * images * config.synthetic_inference_steps
    return round(passes / (3 * config.train_batch_size * config.gradient_accumulation_steps))


def steps_before(config: TrainConfig) -> int:
    """What teachers and drawing cost, in steps; 0 for other objectives."""
    drawn = steps_of_drawing(config, config.num_synthetic_images or 0) if config.objective == SYNTHETIC else 0
    return steps_of_teachers(config) + drawn


def steps_of_teachers(config: TrainConfig) -> int:
    """Steps of all teachers together, and of theirs, about; 0 for other objectives."""
    if config.objective not in WITH_TEACHERS:
        return 0
    distilled = config.objective == DISTILLED
    count, each = config.num_teachers if distilled else config.synthetic_teachers, steps_of_a_teacher(config)
    teacher = replace(config, **OF_A_TEACHER, objective="lora" if distilled else config.teacher_objective)
    return count * (each + steps_of_teachers(replace(teacher, max_train_steps=each)))
