"""The commands as functions, for notebooks and programs: keyword arguments are the options of ``smplora VERB --help``.

    from smplora.api import audit, evaluate, report, train

    run = train(train_data_dir="my_images", objective="smp_lora", output_dir="runs/smp_lora")
    audit(run)
    evaluate(run)
    report([run])

Every function raises ``ConfigError`` with everything that is wrong with the options, before anything is computed.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, TypeVar

from smplora.cli.commands import VERBS
from smplora.cli.main import may_use_network
from smplora.cli.parse import checked
from smplora.core import offline
from smplora.core.errors import CheckpointError, ConfigError
from smplora.core.output import private_files

__all__ = [
    "Page",
    "Result",
    "Run",
    "audit",
    "dataset",
    "evaluate",
    "properties",
    "quickstart",
    "report",
    "reproduce",
    "schema",
    "split",
    "sweep",
    "train",
]

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Run:
    """A run folder, or one of its checkpoints; goes wherever a path does."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, for instance for ``pandas.DataFrame``."""
        from smplora.runs.folder import RunFolder

        return RunFolder(self.path).metrics()

    @property
    def monitor(self) -> list[dict[str, Any]]:
        """The lines of monitor.jsonl: held-out loss and running attack."""
        from smplora.runs.folder import MONITOR, RunFolder

        return RunFolder(self.path).metrics(MONITOR)

    @property
    def checkpoints(self) -> list[Run]:
        """The checkpoints that were kept, by step; each can be audited as if training had stopped there."""
        from smplora.runs.folder import RunFolder

        folder = RunFolder(self.path)
        return [Run(folder.checkpoints / f"checkpoint-{step}") for step in folder.steps()]

    @property
    def page(self) -> Page:
        """The run's page.

        Raises:
            CheckpointError: it was switched off.
        """
        from smplora.report.run_page import PAGE

        if not (self.path / PAGE).exists():
            raise CheckpointError(f"'{self.path}' has no {PAGE}: it was trained with --run_page false")
        return Page(self.path / PAGE)


class Result(dict[str, Any]):
    """What audit.json or quality.json says (docs/formats.md), and one sentence of it to look at."""

    def __init__(self, content: dict[str, Any], sentence: str) -> None:
        super().__init__(content)
        self.sentence = sentence

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.sentence)}</p>"


@dataclass(frozen=True)
class Page:
    """An HTML page; a notebook shows it."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Page({str(self.path)!r})"

    def _repr_html_(self) -> str:
        content = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{content}" width="100%" height="700" style="border: 0"></iframe>'


def command(verb: str, first_arguments: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Tells help and completion which options a function takes: those of the verb but for ``first_arguments``."""

    def with_signature(function: Function) -> Function:
        positional = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in first_arguments]
        options = [
            Parameter(
                f.name, Parameter.KEYWORD_ONLY, annotation=f.type, default=getattr(VERBS[verb].options, f.name, ...)
            )
            for f in fields(VERBS[verb].options)
            if f.name not in (*first_arguments, "json", "adapter", "runs")
        ]
        described: Any = function
        described.__signature__ = Signature([*positional, *options])
        return function

    return with_signature


@command("train")
def train(**options: Any) -> Run:
    """Adapt the base model to the members of a split; the same call again resumes. See ``smplora train --help``."""
    return Run(_call("train", options))


@command("audit", ["run"])
def audit(run: str | os.PathLike[str], **options: Any) -> Result:
    """Attack an adapter; returns the content of audit.json, also where a gate makes the audit invalid: then the
    verdict's level says so. With ``plan=True`` what it would do and cost. See ``smplora audit --help``."""
    if options.get("plan"):
        plan = _call("audit", {"adapter": run, **options}, "smplora.audit.audit:plan")
        return Result(plan.as_dict(), "\n".join(plan.lines()))
    audited = _call("audit", {"adapter": run, **options}, "smplora.experiments.tasks:audit")
    return Result(_as_json(audited), f"{audited.subject.label}: {audited.verdict.sentence}")


@command("properties", ["run"])
def properties(run: str | os.PathLike[str], **options: Any) -> Result:
    """What an adapter tells of its training set as a whole; returns the content of properties.json. With ``plan=True``
    what would be trained for it. See ``smplora properties --help``."""
    if options.get("plan"):
        lines = _call("properties", {"adapter": run, **options}, "smplora.audit.property_inference.infer:plan")
        return Result({"plan": lines}, "\n".join(lines))
    found = _call("properties", {"adapter": run, **options}, "smplora.experiments.tasks:properties")
    asked = [question.sentence for question in (found.size, found.share) if question]
    return Result(_as_json(found), f"{found.subject.label}: {' '.join(asked)}")


@command("evaluate", ["run"])
def evaluate(run: str | os.PathLike[str], **options: Any) -> Result:
    """Generate images and measure their quality; returns the content of quality.json. See ``smplora evaluate
    --help``."""
    quality = _call("evaluate", {"adapter": run, **options})
    kid = quality.against.held_out.kid
    shown = f"too few images for KID ({kid.reason})" if kid.value is None else f"KID {kid.value:.4f}"
    return Result(_as_json(quality), f"{quality.subject.label}: {shown} against held-out images")


@command("report", ["runs"])
def report(
    runs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str] = "report.html", **options: Any
) -> Page:
    """Put audited adapters side by side on one page. See ``smplora report --help``."""
    _call("report", {"runs": [os.fspath(run) for run in runs], "output": output, **options})
    return Page(Path(output))


@command("split")
def split(**options: Any) -> dict[str, Any]:
    """Divide images into sealed cells; returns the content of split.json. See ``smplora split --help``."""
    manifest: dict[str, Any] = _as_json(_call("split", options).manifest())
    return manifest


@command("quickstart")
def quickstart(**options: Any) -> Page:
    """The whole story at once. See ``smplora quickstart --help``."""
    return Page(_call("quickstart", options))


@command("sweep")
def sweep(**options: Any) -> Page:
    """Train, audit and evaluate many settings; sweep.json and sweep.csv lie beside the page. See ``smplora sweep
    --help``."""
    return Page(_call("sweep", options))


@command("dataset", ["name"])
def dataset(name: str, **options: Any) -> Path:
    """Build one of the paper's data sets from a local copy of the originals; returns its folder. See ``smplora dataset
    --help``."""
    folder: Path = _call("dataset", {"name": name, **options})
    return folder


@command("reproduce", ["targets"])
def reproduce(targets: Sequence[str], **options: Any) -> Page:
    """Tables and figures of the paper, such as ``["table_6", "figure_3"]`` or ``["all"]``. See ``smplora reproduce
    --help``."""
    return Page(_call("reproduce", {"targets": list(targets), **options}))


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a result's file: "audit" of audit.json, "quality" of quality.json, "properties".

    Raises:
        ConfigError: another name.
    """
    from smplora.results.audit import Audit
    from smplora.results.properties import Properties
    from smplora.results.quality import Quality
    from smplora.results.record import schema as schema_of

    kinds = {"audit": Audit, "quality": Quality, "properties": Properties}
    if name not in kinds:
        raise ConfigError(f"schema got '{name}'; allowed: {', '.join(kinds)}")
    return schema_of(kinds[name])


def _as_json(result: Any) -> dict[str, Any]:
    from smplora.results.record import as_json

    content: dict[str, Any] = as_json(result)
    return content


def _call(verb: str, options: dict[str, Any], run: str | None = None) -> Any:
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in options.items()}
    if offline.is_offline():
        offline.block()
    config = checked(verb, plain)
    module, _, function = (run or VERBS[verb].run).partition(":")
    with offline.hub(may_use_network(verb, config)), offline.named(), private_files():
        return getattr(import_module(module), function)(config)
