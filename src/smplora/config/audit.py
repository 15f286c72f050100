"""Options of what is done with a finished adapter: audit and report."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Optional

from smplora.config.catalogue.attacks import (
    ATTACKS,
    COUNTS,
    ERROR_BASED,
    LOW_PASS,
    SHADOW,
    SHADOW_OF,
    SHADOW_SIGNALS,
    TIERS,
)
from smplora.config.checks import at_least, existing_folder, if_any, needed, with_sizes
from smplora.config.data import TWO_SOURCES, cache_problems
from smplora.config.memorisation import MemorisationOptions, memorisation_problems
from smplora.config.shadows import FEWEST, USUAL, ShadowOptions
from smplora.config.subject import SubjectOptions, file_problems, is_foreign
from smplora.core.registry import unknown

OF_SIGNALS = ("signals", "coin_flip", "output_dir", "target_delta", "seed", "json")  # what --signals is told


@dataclass(frozen=True, kw_only=True)
class AuditConfig(SubjectOptions, ShadowOptions, MemorisationOptions):
    """Attack an adapter and say, with intervals, what it gives away. Everything is fitted on the aux cells and read once on the test cells."""

    output_dir: Optional[str] = None
    """Where audit.json and scores.npz go. Default: audit/ beside the adapter; of an adapter made elsewhere it must be given, and the page is written too."""
    signals: Optional[str] = None
    """In place of an adapter: a CSV file of ready scores. Columns: member (0 or 1), one or more scores (higher: member), optionally cell (aux or test)."""
    coin_flip: bool = False
    """Each row of --signals became a member by an independent fair coin: epsilon is then also bounded from one run."""
    tier: Literal["quick", "standard", "strong"] = "quick"
    """How hard to try: 'quick' (four attacks, about 90 denoiser passes per image), 'standard' (every inexpensive attack), 'strong' (all, and shadow adapters)."""
    attacks: Optional[list[str]] = None
    """Attacks to run, by name; NAME+low_pass compares low frequencies only. Default: those of --tier."""
    num_timesteps: int = 8
    """Timesteps at which the loss attacks look, evenly from 5 % to 50 % of the schedule."""
    noise_pairs: Optional[int] = None
    """Antithetic noise pairs per timestep. Default: 2; 4 for --tier strong."""
    error_map_draws: Optional[int] = None
    """Noise and timestep draws per image that the paper's attack trains on, one per epoch in turn. Default: 10; 20 for --tier strong."""
    pfami_crops: Optional[int] = None
    """Crops per image that PFAMI compares with. Default: 1; 10 for --tier strong."""
    variations: Optional[int] = None
    """Variations per image that ReDiffuse averages. Default: 10."""
    target_delta: float = 0.0
    """Delta of the (epsilon, delta) whose epsilon is bounded from below."""
    attack_encoder: str = "tiny"
    """Image encoder of gates and of attacks that compare images: 'tiny' (up to 64 pixels), a folder in transformers' format, or an id in the local hub cache."""
    positive_control: bool = False
    """Also train an adapter that learns some aux members by heart. If the attacks do not find it out, the audit is invalid: it could not have found a leak."""
    positive_control_steps: int = 400
    """Training steps of that adapter, of 10 images each."""
    plan: bool = False
    """Say which attacks would run on how many images, what is in the cache and how long it would take, and stop."""
    batch_size: int = 64
    """Images per pass. The result does not depend on it."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return [
            *(_signals_problems(self) if self.signals else subject_problems(self, self.output_dir)),
            *shadow_problems(self),
            *(p for name in self.chosen_attacks for p in if_any(unknown_attack(name))),
            *([] if self.chosen_attacks else [f"--attacks got none; allowed: {', '.join(ATTACKS)}"]),
            *at_least(self, ("num_timesteps", *COUNTS["quick"], "positive_control_steps", "batch_size"), 1),
            *at_least(self, ("target_delta",), 0),
            *([] if self.target_delta < 1 else [f"--target_delta got {self.target_delta}; allowed: below 1"]),
            *memorisation_problems(self),
        ]

    @property
    def chosen_attacks(self) -> list[str]:
        """``--attacks``, or those of ``--tier``, with ``--shadows`` also those that need shadow adapters."""
        usual = [*TIERS[self.tier], *(SHADOW_OF[self.tier] if self.shadows else ())]
        return usual if self.attacks is None else self.attacks

    @property
    def looks_for_copies(self) -> bool:
        """``--memorisation``, or what ``--tier`` makes of it."""
        return self.strong_by_tier if self.memorisation is None else self.memorisation

    def with_counts(self) -> AuditConfig:
        """With what ``--tier`` makes of the options that say how often attacks look."""
        counts: dict[str, Any] = COUNTS[self.tier]
        given = {name: count for name, count in counts.items() if getattr(self, name) is None}
        return replace(self, **given, shadows=USUAL if self.shadows_by_tier else self.shadows or None)

    @property
    def shadows_by_tier(self) -> bool:
        """Whether ``--tier`` trains shadow adapters: strong does, where it is known how."""
        known = self.shadow_config is not None or not is_foreign(self)
        return self.strong_by_tier and self.shadows is None and known

    @property
    def strong_by_tier(self) -> bool:
        """Whether the attacks are those of ``--tier strong``."""
        return self.tier == "strong" and self.attacks is None


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Put audited adapters side by side on one self-contained page."""

    runs: list[str] = field(default_factory=list)
    """Audited run folders or checkpoints."""
    output: str = "report.html"
    """The page."""
    shareable: bool = False
    """A page to show to others: without images, captions and names of files, folders and models."""
    audit: Optional[dict[str, Any]] = None
    """Audit the runs first, with these options of 'smplora audit', as in '{shadows: 8}'; what was so audited is kept, and shadow adapters are shared."""
    json: bool = False
    """Print the path and the verdicts as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return (
            []
            if self.runs
            else ["--runs is missing: give audited run folders, as in smplora report runs/lora runs/smp_lora"]
        )


def unknown_attack(name: str) -> str | None:
    """What is wrong with the name of an attack, or None."""
    plain = name.removesuffix(LOW_PASS)
    if plain != name and plain in ATTACKS and plain not in ERROR_BASED:
        return f"--attacks got '{name}', which compares no predictions; the low-pass filter is for {', '.join(ERROR_BASED)}"
    return unknown(ATTACKS, plain, "attacks")


def subject_problems(config: SubjectOptions, output_dir: str | None) -> list[str]:
    """Problems of the options that name an adapter."""
    return [
        *needed(config.adapter, "adapter", "a run folder of 'smplora train', one of its checkpoints, or a LoRA file"),
        *file_problems(config, output_dir),
        *([TWO_SOURCES] if config.train_data_dir and config.dataset_name else []),
        *existing_folder(config.train_data_dir, "train_data_dir"),
        *existing_folder(config.canaries_dir, "canaries_dir"),
        *cache_problems(config, config.train_data_dir),
        *at_least(config, ("seed",), 0),
    ]


def _signals_problems(config: AuditConfig) -> list[str]:
    ignored = [
        f"--{f.name}" for f in fields(config) if f.name not in OF_SIGNALS and getattr(config, f.name) != f.default
    ]
    both = [f"{', '.join(ignored)}: not with --signals, where no adapter is attacked; leave out"] if ignored else []
    missing = [] if Path(config.signals or "").is_file() else [f"--signals got '{config.signals}', which is not a file"]
    return [
        *both,
        *missing,
        *needed(config.output_dir, "output_dir", "a folder for audit.json and report.html"),
        *at_least(config, ("seed",), 0),
    ]


def shadow_problems(config: AuditConfig) -> list[str]:
    """What is wrong with the options of shadow adapters."""
    shadow_attacks, config = [name for name in config.attacks or () if name in SHADOW], config.with_counts()
    if config.shadows is None:
        set_options = [f"--{f.name}" for f in fields(ShadowOptions) if getattr(config, f.name) != f.default]
        return [
            *(
                [f"{', '.join(set_options)}: of shadow adapters; give --shadows too, or leave out"]
                if set_options
                else []
            ),
            *(
                [f"--attacks got {', '.join(shadow_attacks)}: needs shadow adapters; give --shadows 8"]
                if shadow_attacks
                else []
            ),
        ]
    number = f"--shadows got {config.shadows}; allowed: 0, and even numbers from {FEWEST} (every image is in half of them, and a spread needs two)"
    useless = f"--shadows got {config.shadows}, which none of --attacks uses; add one of {', '.join(SHADOW)}"
    return [
        *([] if config.shadows >= FEWEST and config.shadows % 2 == 0 else [number]),
        *([useless] if config.attacks is not None and not shadow_attacks else []),
        *if_any(unknown_signal(config.shadow_signal)),
        *at_least(config, ("workers",), 1),
        *([] if config.signals or not config.adapter else _config_problems(config)),
    ]


def unknown_signal(name: str) -> str | None:
    """What is wrong with ``--shadow_signal``, or None."""
    return unknown(dict.fromkeys(SHADOW_SIGNALS, ""), name.removesuffix(LOW_PASS), "shadow_signal")


def _config_problems(config: AuditConfig) -> list[str]:
    path = config.shadow_config
    if not path and not is_foreign(config):
        return []
    if not path:
        return [
            f"--shadows: '{config.adapter}' is no run of 'smplora train', so that it must be known how it "
            "was trained: give --shadow_config, a YAML file with options of 'smplora train'"
        ]
    return [] if Path(path).is_file() else [f"--shadow_config got '{path}', which is not a file"]
