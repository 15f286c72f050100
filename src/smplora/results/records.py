"""What a report knows about a subject: plain frozen records, filled by ``collect`` and read by everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

FORMAT = "smplora.audit/2"

Level = Literal["invalid", "red", "amber", "green"]
Group = Literal["test", "aux_members"]
LEVELS: tuple[Level, ...] = get_args(Level)  # worst first
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; whatever does not exist is None, and ``reason`` may say why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Rate:
    """True-positive rate at a false-positive rate, both as fractions."""

    fpr: float
    tpr: Estimate
    resolvable: bool
    needs_nonmembers: int


@dataclass(frozen=True)
class Numbers:
    """One attack on one group of members."""

    n_members: int
    n_nonmembers: int
    auc: Estimate
    auc_method: str
    bootstrap: Estimate
    p_corrected: float | None  # for all attacks on this group
    asr: Estimate
    rates: tuple[Rate, ...]  # by rising FPR
    roc: tuple[tuple[float, float], ...]  # (fpr, tpr), rising
    above: tuple[tuple[float, float], ...]  # the band around it, pointwise
    below: tuple[tuple[float, float], ...]

    @property
    def exposure(self) -> float:
        """Distance of the AUC from chance: a score that is wrong systematically gives members away too."""
        return 0.0 if self.auc.value is None else abs(self.auc.value - 0.5)

    @property
    def smallest_fpr(self) -> float:
        """The smallest false-positive rate that these non-members resolve, by the audit's own rule."""
        rule = min((rate.needs_nonmembers * rate.fpr for rate in self.rates), default=1.0)
        return min(1.0, rule / self.n_nonmembers)

    def rate(self, fpr: float) -> Rate | None:
        """The entry at ``fpr``, if the audit has it."""
        return next((rate for rate in self.rates if abs(rate.fpr - fpr) < 1e-9), None)


@dataclass(frozen=True)
class Attack:
    """One attack on both groups of members."""

    name: str
    title: str
    access: str
    reference: str
    bibtex: str
    fitted_on: str
    test: Numbers
    aux_members: Numbers | None
    paper_asr: float | None  # the paper's own protocol
    paper_label: str

    def on(self, group: Group) -> Numbers | None:
        """Its numbers on one group of members."""
        return self.test if group == "test" else self.aux_members


@dataclass(frozen=True)
class Verdict:
    """The audit's own verdict; the report never makes one."""

    level: Level
    sentence: str
    attack: str
    group: Group


@dataclass(frozen=True)
class Gate:
    """What must hold for the audit to mean anything; None: it could not be checked."""

    passed: bool | None
    sentence: str


@dataclass(frozen=True)
class Finding:
    """The strongest attack on one group, corrected for everything that was looked at."""

    title: str
    auc: Estimate
    level: float
    p: float
    attacks: int


@dataclass(frozen=True)
class Epsilon:
    """A lower bound on epsilon, and the largest that cells of this size could prove."""

    value: float
    ceiling: float


@dataclass(frozen=True)
class Histogram:
    """How the strongest attack's scores lie."""

    edges: tuple[float, ...]
    members: tuple[int, ...]
    nonmembers: tuple[int, ...]


@dataclass(frozen=True)
class Exposed:
    """The members that the strongest attack is surest of; never in a shareable report."""

    attack: str
    pictures: tuple[bytes, ...]
    notes: tuple[str, ...]  # one per picture


@dataclass(frozen=True)
class Evidence:
    """What all attacks together prove."""

    gates: tuple[Gate, ...]
    notes: tuple[str, ...]
    findings: Mapping[Group, Finding]
    epsilon: Epsilon
    one_run: Epsilon | None
    delta: float
    dataset_p: float
    detectable: Mapping[Group, float]
    power: float
    histograms: Mapping[Group, Histogram]
    exposed: Exposed | None
    methods: tuple[str, ...]  # BibTeX of the statistics


@dataclass(frozen=True)
class Counted:
    """How many of how many, as a share with its interval."""

    count: int
    of: int
    share: Estimate


@dataclass(frozen=True)
class CopyMeasure:
    """What one distance finds of copies; ``images`` and ``generations`` by side: "train", "held_out"."""

    title: str
    reference: str
    bibtex: str
    threshold: float
    images: Mapping[str, Counted]
    generations: Mapping[str, Counted]
    p: float
    ratio: Estimate | None  # to the nearest training over the nearest held-out image; its interval is that of chance
    ratio_p: float | None


@dataclass(frozen=True)
class Prompts:
    """How loudly captions are answered: by score (train, held-out, AUC)."""

    reference: str
    bibtex: str
    scores: Mapping[str, tuple[float | None, float | None, Estimate]]
    reason: str  # why there is no AUC


@dataclass(frozen=True)
class CopyPair:
    """A generated image, the training image nearest to it, and the held-out image nearest to it. Private."""

    pictures: tuple[bytes, ...]
    note: str


@dataclass(frozen=True)
class Memorisation:
    """Copies of training images among generated ones."""

    found: str | None  # "copies", "nearer"
    sentence: str
    about: str  # what was generated and compared
    measures: tuple[CopyMeasure, ...]
    prompts: Prompts
    pairs: tuple[CopyPair, ...]  # never in a shareable report
    captions: tuple[tuple[str, float, float], ...]  # (caption, adapter, base), likewise


@dataclass(frozen=True)
class Distances:
    """What one network says of generated images against held-out and against training images."""

    name: str  # of --features
    title: str
    kid: Estimate
    fid: Estimate
    train_kid: Estimate
    train_fid: Estimate
    cmmd: Estimate
    diversity: tuple[Estimate, ...]  # precision, recall, density, coverage, against held-out images
    nearest: Estimate  # distance to the nearest training image over that to the nearest held-out image


@dataclass(frozen=True)
class Quality:
    """How good generated images are; samples and real images as PNG files, one per caption."""

    by: tuple[Distances, ...]  # the first is the one that figures show
    held_out_loss: Estimate
    clip_score: Estimate
    real_clip_score: Estimate  # of the held-out images
    n_held_out: int | None
    settings: Mapping[str, str]
    captions: tuple[str, ...]
    samples: tuple[bytes, ...]
    real: tuple[bytes, ...]

    @property
    def kid(self) -> Estimate:
        """Against held-out images, by the first network."""
        return self.by[0].kid

    @property
    def fid(self) -> Estimate:
        """Likewise."""
        return self.by[0].fid


@dataclass(frozen=True, eq=False)  # told apart by identity
class Run:
    """The run that a subject belongs to; empty mappings where the adapter came without its run."""

    folder: Path
    config: Mapping[str, str]
    environment: Mapping[str, str]
    curves: Mapping[str, tuple[tuple[int, float], ...]]  # of metrics.jsonl by name: (step, value), rising


@dataclass(frozen=True, eq=False)  # told apart by identity
class Subject:
    """An adapter with its audit, and its quality and run where they exist."""

    folder: Path
    label: str  # unique within a report
    objective: str
    model: str
    step: int | None
    max_train_steps: int | None
    split: Mapping[str, str]
    cells: Mapping[str, int]
    seal: str
    settings: Mapping[str, str]  # of the audit
    environment: Mapping[str, str]  # of the audit
    attacks: tuple[Attack, ...]
    chosen: Mapping[Group, str]  # the attack that aux calls strongest
    evidence: Evidence
    verdict: Verdict
    quality: Quality | None
    memorisation: Memorisation | None
    run: Run

    def strongest(self, group: Group) -> Attack | None:
        """The attack that the audit chose for ``group``; for the verdict's group the verdict's own."""
        name = self.verdict.attack if group == self.verdict.group else self.chosen[group]
        attack = next(attack for attack in self.attacks if attack.name == name)
        return attack if attack.on(group) else None

    def strongest_numbers(self, group: Group) -> Numbers | None:
        """What the strongest attack on ``group`` achieves there."""
        attack = self.strongest(group)
        return attack.on(group) if attack else None
