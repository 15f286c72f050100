"""audit.json: what an audit found. The one statement of its fields; docs/formats.md has the tables made of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from smplora.results.attack import GROUPS, AttackResult, Group, Numbers, Sign
from smplora.results.estimate import Proportion
from smplora.results.memorisation import Memorisation
from smplora.results.record import Count, Line, Record, Share, absent

FORMAT: Literal["smplora.audit/3"] = "smplora.audit/3"
UNCROSSED: Literal["smplora.audit/2"] = "smplora.audit/2"
"""Of versions that judged aux members by attacks fitted on aux, and corrected rates by Bonferroni: still read."""

Level = Literal["invalid", "red", "amber", "green"]
LEVELS: tuple[Level, ...] = get_args(Level)  # worst first


@dataclass(frozen=True)
class TrainedWith(Record):
    """What the audit took for granted of an adapter made elsewhere."""

    resolution: Count | None
    clip_skip: Count
    max_token_length: Count
    enable_bucket: bool
    bucket_no_upscale: bool


@dataclass(frozen=True)
class Adapter(Record):
    """The adapter that was looked at."""

    label: Line
    """For people: "SMP-LoRA, stopped at step 500", or the file's name."""
    objective: Line
    """"unknown" of adapters made elsewhere."""
    adaptation: Line | None = absent()
    """"lora", "full", "dreambooth", "textual_inversion"; absent of ready scores."""
    step: int | None = None
    """Steps that it was trained for; null of adapters made elsewhere."""
    max_train_steps: int | None = None
    """Steps that its run was to have."""
    adapter_sha256: str | None = None
    """Of the files that hold what was trained."""
    model: Line = "unknown"
    """The base model."""
    model_digest: str | None = None
    trained_with: TrainedWith | None = absent()
    """Of adapters made elsewhere."""


@dataclass(frozen=True)
class SplitSummary(Record):
    """Who was a member."""

    protocol: Line
    """"fixed", "coin", "pools" (folders said it), "shadow"; of ready scores what they said."""
    seal: str
    """SHA-256 of the manifest."""
    cells: dict[str, Count]
    """Images of each cell."""


@dataclass(frozen=True)
class ShadowSummary(Record):
    """How the shadow adapters were trained."""

    number: Count
    signal: Line
    """The attack whose signals are compared."""
    objective: Line
    mi_lambda: float | None
    adaptation: Line
    steps: Count
    images: Count
    """Images of each."""
    alike: bool = True
    """As the adapter was, as far as that is known; false: by --shadow_config, of a run that knows better."""


@dataclass(frozen=True)
class TriedAttack(Record):
    """One of several attacks that a gate tried."""

    attack: Line
    auc: Proportion


@dataclass(frozen=True)
class Gate(Record):
    """What must hold for the audit to mean anything."""

    name: Line
    """"image_statistics", "image_features", "captions", "near_duplicates", "base_model", "shuffled_labels" or
    "positive_control"."""
    passed: bool | None
    """Null: it could not be checked."""
    sentence: Line
    auc: Proportion | None
    attacks: tuple[TriedAttack, ...] | None = absent()
    """Of base_model and positive_control."""


@dataclass(frozen=True)
class Gates(Record):
    """The validity gates; "passed" is null where there was nothing to check."""

    passed: bool | None
    tolerance: Share
    """By how much an AUC without the adapter may surely exceed 0.5."""
    checks: tuple[Gate, ...]
    notes: tuple[Line, ...]


@dataclass(frozen=True)
class LowFpr(Record):
    """Of the significant true positive rates the one farthest above its false positive rate; where none is, the most
    significant."""

    attack: Line
    fpr: Share
    tpr: Proportion
    p_corrected: Share


@dataclass(frozen=True)
class Strongest(Record):
    """The strongest attack on one group, corrected for everything that was looked at."""

    attack: Line
    """Chosen on the other half, out of fold."""
    sign: Sign
    attacks: Count
    """How many it was chosen among."""
    chosen_on: Line
    auc: Proportion
    auc_deviation: Proportion
    p_corrected: Share
    """Of its AUC, for all attacks, statistics and groups."""
    smallest_p_corrected: Share
    """Of the most significant attack and statistic, likewise."""
    low_fpr: LowFpr | None


@dataclass(frozen=True)
class EpsilonByCounts(Record):
    """A lower bound on epsilon from counts (Clopper-Pearson), and the largest that cells of this size could prove."""

    attack: Line
    value: float
    ceiling: float
    true_positives: Count
    false_positives: Count


@dataclass(frozen=True)
class EpsilonOfOneRun(Record):
    """A lower bound on epsilon from one run, whose members were drawn by fair coins."""

    attack: Line
    value: float
    ceiling: float
    guesses: Count
    right: Count
    candidates: Count
    mu: float | None = absent()
    """A lower bound on the mu of Gaussian differential privacy, from the same guesses."""
    gaussian_epsilon: float | None = absent()
    """The epsilon that goes with it and delta; absent where delta is 0."""


@dataclass(frozen=True)
class Epsilon(Record):
    """Lower bounds on the epsilon of (epsilon, delta)-differential privacy."""

    delta: Share
    level: Share
    clopper_pearson: EpsilonByCounts
    one_run: EpsilonOfOneRun | None


@dataclass(frozen=True)
class Canaries(Record):
    """Pictures that a fair coin put into the training set or not, and what they prove."""

    inside: Count
    """How many the coin put in."""
    outside: Count
    chosen_on: Count
    """Canaries that attacks learned from and were chosen on; those that are guessed are others."""
    attack: Line
    title: Line
    """Of the attack."""
    auc: Proportion
    """Of that attack, on those that are guessed."""
    one_run: EpsilonOfOneRun
    left_out: tuple[Line, ...]
    """Attacks that were not run on canaries."""
    sentence: Line


@dataclass(frozen=True)
class DatasetInference(Record):
    """Whether the training set as a whole is found."""

    attack: Line
    p: Share


@dataclass(frozen=True)
class Power(Record):
    """The smallest AUC that cells of this size would have found."""

    n_members: Count
    n_nonmembers: Count
    level: Share
    power: Share
    auc: Share | None


@dataclass(frozen=True)
class Exposure(Record):
    """How the strongest attack's scores lie, as counts per bin."""

    attack: Line
    edges: tuple[float, ...]
    members: tuple[Count, ...]
    nonmembers: tuple[Count, ...]


@dataclass(frozen=True)
class Verdict(Record):
    """The audit's own verdict; a report never makes one."""

    level: Level
    sentence: Line
    attack: Line
    group: Group


@dataclass(frozen=True)
class Method(Record):
    """Where a number's statistics come from."""

    of: Line
    reference: Line
    bibtex: str


@dataclass(frozen=True)
class AdapterDigest(Record):
    """Of the "subject" object alone what tells one adapter from another."""

    adapter_sha256: str | None


@dataclass(frozen=True)
class AuditSubject(Record):
    """Which adapter an audit.json is about, whatever its format."""

    subject: AdapterDigest


@dataclass(frozen=True)
class VerdictLevel(Record):
    """Of the "verdict" object alone the light."""

    level: Level


@dataclass(frozen=True)
class AuditVerdict(Record):
    """Which light an audit.json has, whatever its format."""

    verdict: VerdictLevel


@dataclass(frozen=True, kw_only=True)
class Audit(Record):
    """audit.json."""

    format: Literal["smplora.audit/3", "smplora.audit/2"]
    subject: Adapter
    split: SplitSummary
    settings: dict[str, Any] = field(default_factory=dict)
    """The options that decide the numbers, and what they came to ("attacks", "timesteps")."""
    shadows: ShadowSummary | None = None
    gates: Gates
    attacks: tuple[AttackResult, ...]
    strongest: dict[Group, Strongest]
    epsilon: Epsilon
    dataset_inference: DatasetInference
    power: dict[Group, Power]
    exposure: dict[Group, Exposure]
    verdict: Verdict
    methods: tuple[Method, ...] = ()
    memorisation: Memorisation | None = None
    """Null: copies were not looked for."""
    canaries: Canaries | None = absent()
    """Absent: there are none."""
    environment: dict[str, Any] = field(default_factory=dict)
    elapsed_s: float | None = absent()

    def __post_init__(self) -> None:
        """Raises ValueError: a group of members is missing, or the name of an attack is not there, or it has nothing on
        the group in question."""
        by_group: dict[str, Collection[Group]] = {
            "strongest": self.strongest, "power": self.power, "exposure": self.exposure,
        }  # fmt: skip
        for name, groups in by_group.items():
            if missing := set(GROUPS) - set(groups):
                raise ValueError(f"{name!r} has nothing on {', '.join(sorted(missing))}")
        for group, strongest in self.strongest.items():
            self.attack(strongest.attack, group)
        self.attack(self.verdict.attack, self.verdict.group)

    def attack(self, name: str, group: Group = "test") -> AttackResult:
        """The attack ``name``, which has numbers on ``group``.

        Raises:
            ValueError: there is none.
        """
        for attack in self.attacks:
            if attack.name == name and attack.on(group) is not None:
                return attack
        raise ValueError(f"there is no attack {name!r} on {group}")

    def chosen(self, group: Group) -> AttackResult:
        """The strongest attack on ``group``; for the verdict's group the verdict's own."""
        name = self.verdict.attack if group == self.verdict.group else self.strongest[group].attack
        return self.attack(name, group)

    def numbers(self, group: Group) -> Numbers:
        """What the strongest attack on ``group`` achieves there."""
        numbers = self.chosen(group).on(group)
        assert numbers is not None
        return numbers
