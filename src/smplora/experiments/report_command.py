"""``smplora report``: the page, and with ``--audit``, before it, audits that share their shadow adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from smplora.audit.reuse import previous_audit
from smplora.config.audit import AuditConfig, ReportConfig
from smplora.config.exactly import exactly
from smplora.config.subject import in_a_run
from smplora.core.console import say
from smplora.core.errors import ConfigError, listing
from smplora.core.surroundings import real
from smplora.experiments.tasks import audit
from smplora.report.report import check_output, report
from smplora.runs.subject import find_subject, result_folder

SHADOWS = "shadows"  # beside the page
OURS = ("adapter", "output_dir", "signals", "coin_flip", "plan", "json")


def report_command(config: ReportConfig) -> None:
    """Write the page; with ``--audit``, audit before it what was not audited with these options. Shadow adapters that
    would be the same for several adapters are trained once.

    Raises:
        UserError: anything that the user can mend. Runs, options and the page's place are checked before any audit.
    """
    if config.audit is not None:
        audits = audits_of(config)
        check_output(Path(config.output))
        left = [one for one in audits if previous_audit(one) is None]
        shared = f"; shadow adapters that would be the same are trained once, in {audits[0].shadow_dir}"
        say(f"{len(audits)} adapters, {len(left)} to audit{shared if audits[0].shadow_dir and left else ''}")
        for one in left:
            if (result_folder(one.adapter, None, "audit") / "audit.json").exists():
                say(f"{one.adapter}: replaces its audit, which has other options or is of another adapter")
            audit(one)
        config = replace(config, runs=[str(one.adapter) for one in audits])
    report(config)


def audits_of(config: ReportConfig) -> list[AuditConfig]:
    """One for each run, which is named by its folder."""
    given, audits = config.audit or {}, []
    problems = [f"'{name}' is decided by the report itself; leave it out" for name in OURS if name in given]
    shadows = str(real(Path(config.output)).parent / SHADOWS)  # however the page is named: runs note where they are
    for run in config.runs:
        if in_a_run(run):
            folder = str(find_subject(run).folder)
            one, wrong = exactly(AuditConfig, {"adapter": folder, **given})
            if one and one.with_counts().shadows and not one.shadow_dir:
                one = replace(one, shadow_dir=shadows)
            audits += [one] if one and one not in audits else []
        else:
            wrong = [f"'{run}' is no run of 'smplora train': audit it by 'smplora audit' first, and leave --audit out"]
        problems += wrong
    if problems:
        raise ConfigError(listing("--audit cannot be used", list(dict.fromkeys(problems))))
    return audits
