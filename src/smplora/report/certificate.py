"""A certificate: one printable page about one audited adapter, without images, captions and names of files."""

from __future__ import annotations

import json
import re

from markupsafe import Markup

from smplora.core.reading import parse_json
from smplora.core.version import __version__
from smplora.report import wording
from smplora.report.html import template, with_code
from smplora.report.limitations import not_measured, shadows_were_trained
from smplora.results.certificate import FORMAT, Certificate, CertifiedAttack
from smplora.results.estimate import Proportion
from smplora.results.record import as_json, from_plain
from smplora.results.subjects import ReportedAdapter

NAME = "certificate.html"
_EMBEDDED = re.compile(r'<script type="application/json" id="certificate">(.*?)</script>', re.DOTALL)


def certificate_of(subject: ReportedAdapter) -> Certificate:
    """What may be said of an audit to everybody."""
    audit = subject.audit
    said = Certificate(
        format=FORMAT,
        adapter=audit.subject.label,
        adapter_sha256=audit.subject.adapter_sha256,
        model_digest=audit.subject.model_digest,
        level=audit.verdict.level,
        verdict=audit.verdict.sentence,
        cells=dict(audit.split.cells),
        checks_passed=sum(check.passed is True for check in audit.gates.checks),
        checks=len(audit.gates.checks),
        shadows=audit.shadows.number if audit.shadows and shadows_were_trained(subject) else 0,
        attacks=tuple(
            CertifiedAttack(a.title, a.access, a.test.auc, a.aux_members.auc if a.aux_members else None)
            for a in audit.attacks
        ),
        limits=tuple(not_measured([subject])),
        split_seal=audit.split.seal,
        version=__version__,
    )
    # as it will be read: spaces are made equal
    read_back: Certificate = from_plain(Certificate, as_json(said))
    return read_back.sealed()


def page(certificate: Certificate) -> str:
    """The page, with the content as JSON in it for ``read``."""
    content = json.dumps(as_json(certificate)).replace("<", "\\u003c")
    attacks = [(attack, [auc_text(attack.test), auc_text(attack.aux_members)]) for attack in certificate.attacks]
    return template("certificate.html.j2").render(
        certificate=certificate,
        cells=wording.cells(certificate.cells),
        light=wording.LEVEL_WORDS[certificate.level],
        attacks=attacks,
        limits=[with_code(limit) for limit in certificate.limits],
        content=Markup(content),
    )


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
