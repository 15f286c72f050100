"""What a certificate of an audit says: numbers and limits, nothing about the images. It stands in certificate.html."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Literal

from smplora.results.attack import Group
from smplora.results.audit import Level, LowFpr
from smplora.results.estimate import Proportion
from smplora.results.record import Count, Line, Record, Share, as_json

FORMAT: Literal["smplora.certificate/1"] = "smplora.certificate/1"


@dataclass(frozen=True)
class CertifiedAttack(Record):
    """One attack that was tried."""

    title: Line
    access: Line
    test: Proportion
    """AUC on test members."""
    aux_members: Proportion | None


@dataclass(frozen=True)
class CertifiedGroup(Record):
    """The strongest attack on a group of members."""

    attack: Line
    """Its title; chosen on the other half of the images."""
    attacks: Count
    """How many it was chosen among."""
    auc: Proportion
    p_corrected: Share
    """For all attacks, statistics and groups."""
    low_fpr: LowFpr | None
    """The true positive rate that says most, where it says something."""


@dataclass(frozen=True)
class Certificate(Record):
    """The content of certificate.html."""

    format: Literal["smplora.certificate/1"]
    adapter: Line
    """What was audited, for people."""
    adapter_sha256: str | None
    """Of the files that hold what was trained."""
    files: dict[str, str]
    """SHA-256 of each file of it that is published, by name."""
    model_digest: str | None
    """Of the base model."""
    level: Level
    verdict: Line
    cells: dict[str, Count]
    """Images of each cell that attacks looked at."""
    checks_passed: Count
    checks: Count
    """Validity checks of the audit."""
    shadows: Count
    """Shadow adapters that attackers had."""
    strongest: dict[Group, CertifiedGroup]
    attacks: tuple[CertifiedAttack, ...]
    limits: tuple[Line, ...]
    """What was not measured."""
    version: Line
    """Of smplora."""
    digest: str = ""
    """SHA-256 of all other fields, as JSON with sorted keys."""

    @property
    def computed(self) -> str:
        """What ``digest`` must be."""
        content = as_json(replace(self, digest=""))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def sealed(self) -> Certificate:
        """The same with its digest."""
        return replace(self, digest=self.computed)
