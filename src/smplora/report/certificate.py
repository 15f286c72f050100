"""A certificate: one printable page about one audited adapter, without images, captions and names of files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from markupsafe import Markup

from smplora.core.reading import parse_json
from smplora.core.version import __version__
from smplora.core.wording import p_text, percent
from smplora.report import wording
from smplora.report.html import template, with_code
from smplora.report.limitations import not_measured, shadows_were_trained
from smplora.results.attack import GROUPS, Group
from smplora.results.audit import Audit
from smplora.results.certificate import FORMAT, Certificate, CertifiedAttack, CertifiedGroup
from smplora.results.estimate import Proportion
from smplora.results.record import as_json, from_plain
from smplora.results.subjects import ReportedAdapter

NAME = "certificate.html"
ELSEWHERE = "an adapter that was made elsewhere"
_EMBEDDED = re.compile(r'<script type="application/json" id="certificate">(.*?)</script>', re.DOTALL)


def certificate_of(subject: ReportedAdapter, files: Mapping[str, str]) -> Certificate:
    """What may be said of an audit to everybody.

    Args:
        files: SHA-256 of every file that the adapter is published in, by name.
    """
    audit = subject.audit
    said = Certificate(
        format=FORMAT,
        adapter=ELSEWHERE if audit.subject.objective == "unknown" else audit.subject.label,  # else the name of a file
        adapter_sha256=audit.subject.adapter_sha256,
        files=dict(files),
        model_digest=audit.subject.model_digest,
        level=audit.verdict.level,
        verdict=audit.verdict.sentence,
        cells={cell: size for cell, size in audit.split.cells.items() if cell != "reference"},
        checks_passed=sum(check.passed is True for check in audit.gates.checks),
        checks=len(audit.gates.checks),
        shadows=audit.shadows.number if audit.shadows and shadows_were_trained(subject) else 0,
        strongest={group: _group(audit, group) for group in GROUPS},
        attacks=tuple(
            CertifiedAttack(a.title, a.access, a.test.auc, a.aux_members.auc if a.aux_members else None)
            for a in audit.attacks
        ),
        limits=tuple(not_measured([subject])),
        version=__version__,
    )
    # as it will be read: spaces are made equal
    read_back: Certificate = from_plain(Certificate, as_json(said))
    return read_back.sealed()


def _group(audit: Audit, group: Group) -> CertifiedGroup:
    strongest = audit.strongest[group]
    title = audit.attack(strongest.attack, group).title
    rate = strongest.low_fpr
    named = rate and replace(rate, attack=audit.attack(rate.attack, group).title)
    return CertifiedGroup(title, strongest.attacks, strongest.auc, strongest.p_corrected, named)


def page(certificate: Certificate) -> str:
    """The page, with the content as JSON in it for ``read``."""
    content = json.dumps(as_json(certificate)).replace("<", "\\u003c")
    attacks = [(attack, [auc_text(attack.test), auc_text(attack.aux_members)]) for attack in certificate.attacks]
    return template("certificate.html.j2").render(
        certificate=certificate,
        cells=wording.cells(certificate.cells),
        light=wording.LEVEL_WORDS[certificate.level],
        attacks=attacks,
        strongest=[_in_words(group, one) for group, one in certificate.strongest.items()],
        limits=[with_code(limit) for limit in certificate.limits],
        content=Markup(content),
    )


def _in_words(group: Group, one: CertifiedGroup) -> str:
    among = f"of {one.attacks} attacks, " if one.attacks > 1 else ""
    sentence = (
        f"On {wording.GROUP_WORDS[group]}: the strongest {among}{one.attack}, has an AUC of {auc_text(one.auc)}; "
        f"corrected p {p_text(one.p_corrected)}"
    )
    rate = one.low_fpr
    if rate is None:
        return f"{sentence}."
    found = f"{percent(rate.tpr.value)} of them are found at {percent(rate.fpr)} false alarms by {rate.attack}"
    return f"{sentence}; {found} (corrected p {p_text(rate.p_corrected)})."


def auc_text(auc: Proportion | None) -> str:
    """ "0.61 [0.52, 0.70]"."""
    return f"{auc.value:.2f} {wording.interval(auc)}" if auc else ""


def read(text: str) -> Certificate:
    """The content of a certificate's page.

    Raises:
        ValueError: it is none, or was changed after it was written. What a page of another version shows is not
            looked at, only what it holds.
    """
    found = _EMBEDDED.search(text)
    if found is None:
        raise ValueError("it is no certificate of smplora")
    certificate: Certificate = from_plain(Certificate, parse_json(found[1]))
    if certificate.digest != certificate.computed:
        raise ValueError("it was changed after it was written: its digest is that of other content")
    if certificate.version == __version__ and page(certificate) != text:
        raise ValueError("what it shows is not what it holds")
    return certificate
