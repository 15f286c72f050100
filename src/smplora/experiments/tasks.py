"""Train, audit and evaluate as people run it: first what measures, then the pages and cards that are made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from smplora.audit import audit as measuring
from smplora.audit.external_scores import audit_signals
from smplora.audit.property_inference import infer as inferring
from smplora.audit.reuse import audit_done, previous_audit
from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.properties import PropertiesConfig
from smplora.config.subject import is_foreign
from smplora.config.train import TrainConfig
from smplora.core.console import say
from smplora.core.errors import InvalidAudit, readable
from smplora.core.files import files_sha256
from smplora.core.parallel import Task, Work
from smplora.core.surroundings import real
from smplora.publish.card import write_card
from smplora.quality import evaluate as quality
from smplora.quality.reuse import evaluate_done, previous_quality
from smplora.report.certificate import NAME as CERTIFICATE
from smplora.report.report import print_table, write_certificate, write_report
from smplora.results.audit import Audit, AuditSubject, AuditVerdict
from smplora.results.properties import Properties
from smplora.results.quality import Quality
from smplora.results.record import as_json, read
from smplora.runs.complete import page_is_final, train_done
from smplora.runs.earlier import keeping_earlier
from smplora.runs.rehearsal import keep_rehearsal, why_no_final
from smplora.runs.subject import Subject, find_subject, result_folder
from smplora.training import train as training
from smplora.training.reuse import latest_step, train_length, train_once

PAGE = "report.html"
BARE_TRAINING = Work(train_once, train_done, train_length, latest_step)  # of shadow adapters: without page and card


def train(config: TrainConfig, *, progress: bool = True) -> Path:
    """``smplora train``: adapt the base model; the run's page is kept up to date, its card is written at the end.

    Raises:
        UserError: as ``training.train.train``.
    """

    def describe(subject: Subject) -> None:
        if config.final:
            keep_rehearsal(config)
        write_card(subject)

    run = training.train(config, progress=progress, refresh=refresh_page, describe=describe)
    if config.run_page and not page_is_final(run):
        refresh_page(run)
    return run


def refresh_page(run: Path) -> None:
    """Write a run's page anew."""
    from smplora.report.run_page import write_run_page  # draws with matplotlib, which takes a second to import

    write_run_page(run)


def audit(config: AuditConfig, *, progress: bool = True) -> Audit:
    """Attack an adapter, or judge ready scores; then write what is made of the numbers: the card of a run, or the page
    of what has no run. An audit that a gate makes invalid is returned like any other.

    Raises:
        UserError: anything that the user can mend.
    """
    folder = result_folder(config.adapter, config.output_dir, "audit")
    with keeping_earlier(folder, "audit"):
        result = audit_signals(config) if config.signals else measuring.audit(config, BARE_TRAINING, progress=progress)
    of_a_run = not config.signals and not is_foreign(config)
    if of_a_run and config.output_dir is None:
        write_card(find_subject(config.adapter or ""))
    if progress or not of_a_run or (folder / PAGE).exists():
        write_report([measured_in(config)], folder / PAGE)
    if not config.signals:  # which are about no adapter
        write_certificate(measured_in(config), published_files(config), folder / CERTIFICATE)
    if progress:
        label = result.subject.label
        if config.signals:
            print_table([folder])
        say(f"{label}: {result.verdict.sentence}")
        if result.canaries:
            say(f"{label}: {result.canaries.sentence}")
        if result.memorisation:
            say(f"{label}: {result.memorisation.sentence}")
    if config.json:
        print(json.dumps(as_json(result)))
    return result


def measured_in(config: AuditConfig) -> Path:
    """The folder that pages about an audit read: the adapter's, or where the audit was written."""
    if config.output_dir or is_foreign(config):
        return result_folder(config.adapter, config.output_dir, "audit")
    return find_subject(config.adapter or "").folder


def published_files(config: AuditConfig) -> dict[str, str]:
    """SHA-256 of each file that a run's adapter is published in; adapters made elsewhere are one file, and known."""
    if is_foreign(config):
        return {}
    subject = find_subject(config.adapter or "")
    names = subject.adaptation.published(subject.folder)
    return {name: files_sha256([subject.folder / name]) for name in names}


def audit_command(config: AuditConfig) -> None:
    """``smplora audit``; with ``--plan`` only what it would do is printed.

    Raises:
        InvalidAudit: a gate failed; everything is written nevertheless.
        UserError: anything that the user can mend.
    """
    if config.plan and not config.signals:
        plan = measuring.plan(config)
        print(json.dumps(plan.as_dict()) if config.json else "\n".join(map(readable, plan.lines())))
        return
    verdict = audit(config).verdict
    page = result_folder(config.adapter, config.output_dir, "audit") / PAGE
    beside = "" if config.signals else f"; {CERTIFICATE} beside it says the same to others, without images"
    say(f"report: {real(page)}{beside}")
    if not config.signals and not is_foreign(config) and config.output_dir is None:
        say(f"next: {next_step(config.adapter or '', verdict.level)}")
    if verdict.level == "invalid":
        raise InvalidAudit(verdict.sentence)


def properties(config: PropertiesConfig, *, progress: bool = True) -> Properties:
    """Ask what an adapter tells of its training set as a whole, and say it.

    Raises:
        UserError: anything that the user can mend.
    """
    with keeping_earlier(result_folder(config.adapter, config.output_dir, "properties"), "properties"):
        result = inferring.infer(config, BARE_TRAINING, progress=progress)
    if progress:
        for question in (result.size, result.share):
            for line in (*(a.sentence for a in question.answers), question.sentence) if question else ():
                say(f"{result.subject.label}: {line}")
        for note in result.notes:
            say(note)
        folder = result_folder(config.adapter, config.output_dir, "properties")
        say(f"result: {real(folder / 'properties.json')}; 'smplora report' shows it beside the adapter's audit")
    if config.json:
        print(json.dumps(as_json(result)))
    return result


def properties_command(config: PropertiesConfig) -> None:
    """``smplora properties``; with ``--plan`` only what it would do is printed.

    Raises:
        UserError: anything that the user can mend.
    """
    if not config.plan:
        properties(config)
        return
    lines = inferring.plan(config)
    print(json.dumps({"plan": lines}) if config.json else "\n".join(map(readable, lines)))


def evaluate(config: EvaluateConfig, *, progress: bool = True) -> Quality:
    """``smplora evaluate``: measure the quality of an adapter's images; a run's card is written anew.

    Raises:
        UserError: anything that the user can mend.
    """
    folder = result_folder(config.adapter, config.output_dir, "quality")
    with keeping_earlier(folder, "quality"):
        result = quality.evaluate(config, progress=progress)
    audit_of = folder.parent / "audit"
    if config.output_dir is None and not is_foreign(config) and (audit_of / PAGE).exists():  # quality was not measured
        about = read(audit_of / "audit.json", AuditSubject, "audit again").subject.adapter_sha256
        if about == result.subject.adapter_sha256:
            write_report([folder.parent], audit_of / PAGE)
        else:
            say(f"{audit_of} is about another adapter and stays as it is; 'smplora audit' makes it anew")
    if config.output_dir is None and not is_foreign(config):
        write_card(find_subject(config.adapter or ""))
    if progress:
        say(f"{result.subject.label}: {quality.in_words(result)}")
        say(f"result: {real(folder / 'quality.json')}; samples.png and real.png beside it show images")
        if config.output_dir is None and not is_foreign(config):
            say(f"next: {next_step(config.adapter or '')}")
    if config.json:
        print(json.dumps(as_json(result)))
    return result


def next_step(adapter: str, level: str = "") -> str:
    """What is left to do with a run that was looked at, and audited with a light of ``level``."""
    if level == "red":
        return "another objective or fewer steps; docs/choosing.md says which, and 'smplora report' compares them"
    if level == "invalid":
        return "mend what the report names, and audit again"
    subject = find_subject(adapter)
    audited = subject.folder / "audit" / "audit.json"
    if not audited.exists():
        return f"smplora audit {adapter}"
    if not (subject.folder / "quality" / "quality.json").exists():
        return f"smplora evaluate {adapter}"
    report = f"smplora report {adapter} --output report.html"
    green = read(audited, AuditVerdict, "audit again").verdict.level == "green"
    if not green or subject.folder != subject.run or why_no_final(subject.config):
        return report
    return f"{report}, or smplora train --final {subject.run} to train on all images"


def train_quietly(config: TrainConfig) -> None:
    """Train, or resume, in a worker. A finished run is left alone."""
    train(config, progress=False)


def audit_once(config: AuditConfig) -> str:
    """Audit, unless that was done; returns the verdict for people."""
    result = previous_audit(config) or audit(config, progress=False)
    return f"{result.subject.label}: {result.verdict.sentence}"


def evaluate_once(config: EvaluateConfig) -> None:
    """Evaluate, unless that was done. Says nothing: the numbers stand beside those of the audit."""
    if previous_quality(config) is None:
        evaluate(config, progress=False)


Options: TypeAlias = TrainConfig | AuditConfig | EvaluateConfig
COMMAND = {TrainConfig: "train", AuditConfig: "audit", EvaluateConfig: "evaluate"}
WORK = {
    TrainConfig: Work(train_quietly, train_done, train_length, latest_step),
    AuditConfig: Work(audit_once, audit_done),
    EvaluateConfig: Work(evaluate_once, evaluate_done),
}


def task(name: str, options: Options, after: str | None = None) -> Task:
    """A training, audit or evaluation for a worker; see ``core.parallel.Task``."""
    return Task(name, options, WORK[type(options)], after)
