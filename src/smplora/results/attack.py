"""One attack in audit.json, on both groups of members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from smplora.results.estimate import Proportion, RateAtFpr
from smplora.results.record import Count, Line, Positive, Record, Share, absent

Group = Literal["test", "aux_members"]
Sign = Literal[1, -1]
GROUPS: tuple[Group, ...] = get_args(Group)
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class PValue(Record):
    """Of "scores do not depend on membership"."""

    p: Share
    """Of the AUC, two-sided, the attack alone."""
    auc: Share | None = absent()
    """Of the AUC, for all attacks, statistics and groups."""
    corrected: Share
    """Of what says most, the AUC or a true positive rate; for all attacks, statistics and groups."""


@dataclass(frozen=True)
class Band(Record):
    """The pointwise 95 % band of a ROC curve."""

    fpr_low: tuple[Share, ...]
    fpr_high: tuple[Share, ...]
    tpr_low: tuple[Share, ...]
    tpr_high: tuple[Share, ...]


@dataclass(frozen=True)
class Roc(Record):
    """A ROC curve, rising; points on a straight line between others are left out."""

    fpr: tuple[Share, ...]
    tpr: tuple[Share, ...]
    band: Band | None = absent()

    @property
    def points(self) -> Points:
        """(FPR, TPR)."""
        return tuple(zip(self.fpr, self.tpr, strict=True))

    @property
    def above(self) -> Points:
        """The upper edge of the band; () where there is none."""
        return tuple(zip(self.band.fpr_low, self.band.tpr_high, strict=True)) if self.band else ()

    @property
    def below(self) -> Points:
        """The lower edge of the band; () where there is none."""
        return tuple(zip(self.band.fpr_high, self.band.tpr_low, strict=True)) if self.band else ()


@dataclass(frozen=True, kw_only=True)
class Numbers(Record):
    """One attack on one group of members."""

    n_members: Positive
    n_nonmembers: Positive
    auc: Proportion
    auc_bootstrap: Proportion | None = absent()
    """Of earlier versions: percentiles, too narrow near AUC 1."""
    auc_deviation: Proportion | None
    """|AUC - 0.5| / 0.5."""
    asr: Proportion
    """Accuracy at the threshold fitted on the other half."""
    tpr_at_fpr: dict[str, RateAtFpr]
    """By false positive rate: "0.001", "0.01", "0.05", "0.1"."""
    roc: Roc
    sign: Sign | None = absent()
    """-1: low scores mean member, as the other half showed; the numbers are of scores turned round."""
    p_value: PValue | None

    @property
    def exposure(self) -> float:
        """Distance of the AUC from chance: a score that is wrong systematically gives members away too."""
        return abs(self.auc.value - 0.5)

    @property
    def rates(self) -> dict[float, RateAtFpr]:
        """``tpr_at_fpr`` by rising rate."""
        return dict(sorted((float(fpr), rate) for fpr, rate in self.tpr_at_fpr.items()))

    @property
    def smallest_fpr(self) -> float:
        """The smallest false positive rate that these non-members resolve, by the audit's own rule."""
        rule = min((rate.needs_nonmembers * fpr for fpr, rate in self.rates.items()), default=1.0)
        return min(1.0, rule / self.n_nonmembers)


@dataclass(frozen=True)
class PaperProtocol(Record):
    """The number that an attack's authors would report."""

    label: Line
    """How it was chosen."""
    asr: Share | None
    auc_deviation: Share | None = absent()
    tpr_at_5_fpr: Share | None = absent()
    epoch: Count | None = absent()


@dataclass(frozen=True)
class AllRows(Record):
    """The plain AUC of ready scores, as given."""

    n: Count
    auc: Proportion


@dataclass(frozen=True, kw_only=True)
class AttackResult(Record):
    """One attack on both groups of members."""

    name: Line
    """As in --attacks; NAME+low_pass on low frequencies."""
    title: Line
    access: Line
    """"black box", "grey box", "white box", "insider", or "scores as given"."""
    reference: Line = ""
    bibtex: str = ""
    fitted_on: Line
    """"the other half", "the other half and shadow adapters", or "aux, by the training": then "aux_members" is null."""
    test: Numbers
    """Members that no proxy has seen, by the attack as fitted on aux: the headline."""
    aux_members: Numbers | None
    """Members that proxies are trained on, by the attack as fitted on test."""
    paper_protocol: PaperProtocol | None = None
    all_rows: AllRows | None = absent()
    """Of ready scores."""

    def on(self, group: Group) -> Numbers | None:
        """Its numbers on one group of members."""
        return self.test if group == "test" else self.aux_members
