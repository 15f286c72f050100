"""The command line: parsing only. Flags, YAML and help texts come from the dataclasses in config/."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from smplora.config.audit import AuditConfig, ReportConfig
from smplora.config.caption import CaptionConfig
from smplora.config.data import CacheConfig, SplitConfig
from smplora.config.dataset import DatasetConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.names_elsewhere import ELSEWHERE
from smplora.config.parsing import COMMAND_LINE, NO_VALUE, SWITCH, THE_CALL, parser_for, typed
from smplora.config.publish import ExportConfig, PushConfig
from smplora.config.quickstart import QuickstartConfig
from smplora.config.reproduce import ReproduceConfig
from smplora.config.sweep import SweepConfig
from smplora.config.train import TrainConfig
from smplora.core import offline
from smplora.core.errors import ConfigError, UserError, is_out_of_memory, listing, nearest
from smplora.core.version import __version__

SMALLER = ("train_batch_size", "batch_size", "resolution", "workers")  # what takes less memory when it is lower
FAILED = 2  # exit status for everything that the user can mend


@dataclass(frozen=True)
class Verb:
    """A command: its options, and the function that does it ("module:function", imported when it runs)."""

    options: type
    run: str
    example: str
    slow: bool = False  # says so before the heavy imports, also where nobody watches
    positional: str | None = None  # the option whose value (a list: whose values) may stand without its flag


VERBS = {
    "quickstart": Verb(
        QuickstartConfig,
        "smplora.experiments.quickstart:quickstart",
        "smplora quickstart --train_data_dir my_images",
        slow=True,
    ),
    "split": Verb(
        SplitConfig, "smplora.data.split:split", "smplora split --train_data_dir my_images --output_dir runs/split"
    ),
    "train": Verb(
        TrainConfig,
        "smplora.training.train:train",
        "smplora train --train_data_dir my_images --objective smp_lora --output_dir runs/smp_lora",
    ),
    "audit": Verb(AuditConfig, "smplora.audit.audit:command", "smplora audit runs/smp_lora", positional="adapter"),
    "evaluate": Verb(
        EvaluateConfig, "smplora.quality.evaluate:evaluate", "smplora evaluate runs/smp_lora", positional="adapter"
    ),
    "report": Verb(
        ReportConfig,
        "smplora.report.report:report",
        "smplora report runs/lora runs/smp_lora --output report.html",
        positional="runs",
    ),
    "export": Verb(
        ExportConfig,
        "smplora.publish.publish:export",
        "smplora export --adapter runs/smp_lora --output_dir published",
    ),
    "push": Verb(
        PushConfig, "smplora.publish.publish:push", "smplora push --adapter runs/smp_lora --repo_id user/my-adapter"
    ),
    "caption": Verb(
        CaptionConfig, "smplora.data.captioning:caption", "smplora caption my_images", positional="train_data_dir"
    ),
    "sweep": Verb(
        SweepConfig,
        "smplora.experiments.sweep.command:sweep",
        "smplora sweep --train_data_dir my_images --grid '{objective: [lora, smp_lora]}' --seeds '[0, 1, 2]'",
        slow=True,
    ),
    "dataset": Verb(
        DatasetConfig,
        "smplora.data.paper.build:dataset",
        "smplora dataset celeba_small --source originals/celeba",
        positional="name",
    ),
    "reproduce": Verb(
        ReproduceConfig,
        "smplora.experiments.reproduce.command:reproduce",
        "smplora reproduce table_1 figure_3",
        slow=True,
        positional="targets",
    ),
    "cache": Verb(CacheConfig, "smplora.core.cache:cache", "smplora cache --clear"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``smplora VERB --option value ...``; returns the exit status: 0, or 2 (of an invalid audit: 3) with one
    message on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        arguments = _without_offline(arguments)
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(overview())
            return 0
        if arguments[0] in ("-V", "--version"):
            print(f"smplora {__version__}")
            return 0
        verb = VERBS.get(arguments[0])
        if verb is None:
            raise ConfigError(
                f"unknown command '{arguments[0]}'{nearest(arguments[0], VERBS)}; allowed: {', '.join(VERBS)}"
            )
        options = parse(arguments[0], arguments[1:])
        _check_network(arguments[0], options)
        if sys.stderr.isatty() or verb.slow:
            print(f"smplora {arguments[0]}: loading ...", file=sys.stderr, flush=True)
        module, _, function = verb.run.partition(":")
        with offline.named():
            getattr(import_module(module), function)(options)
        return 0
    except UserError as error:
        print(f"smplora: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        if error.errno is None:  # not the operating system's
            raise
        print(
            f"smplora: {error.strerror}: {error.filename or 'while writing'}; nothing half-written was kept",
            file=sys.stderr,
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(out_of_memory(arguments[0]), file=sys.stderr)
    except KeyboardInterrupt:
        print("smplora: interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    return FAILED


def out_of_memory(name: str) -> str:
    """What to say where nothing better is known; a training step says more (memory.py)."""
    known = [f"--{f.name}" for f in fields(VERBS[name].options) if f.name in SMALLER]
    return f"smplora: out of memory; lower {' or '.join(known) or 'the number of --runs'}, or choose another --device"


def _without_offline(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--offline``, which may stand before or after the command; it blocks the network."""
    kept: list[str] = []
    words = list(arguments)
    blocked = offline.wanted()
    while words:
        word = words.pop(0)
        if word.partition("=")[0] != "--offline":
            kept.append(word)
            continue
        value = word.partition("=")[2] or (words.pop(0) if words and words[0].lower() in SWITCH else "true")
        if value.lower() not in SWITCH:
            raise ConfigError(f"--offline got '{value}'; allowed: {', '.join(SWITCH)}")
        blocked = SWITCH[value.lower()]
    if blocked:
        offline.block()
    return kept


def _check_network(name: str, options: Any) -> None:
    """Refuse what cannot work without a network where there is to be none."""
    asks = "'smplora push' uploads" if name == "push" and not options.dry_run else None
    asks = "--allow_download fetches from the hub" if getattr(options, "allow_download", False) else asks
    if asks and offline.wanted():
        raise ConfigError(f"--offline: {asks} and needs the network; leave one of them out")


def overview() -> str:
    """What ``smplora --help`` prints."""
    lines = ["smplora: adapt latent diffusion models to private images, and measure what the result gives away.", ""]
    for name, verb in VERBS.items():
        lines += [
            f"  {name:<11}{(verb.options.__doc__ or '').split('. ')[0].rstrip('.')}.",
            f"  {'':<11}  {verb.example}",
        ]
    return "\n".join(
        [
            *lines,
            "",
            "smplora VERB --help explains the options of one command; they may stand in a YAML file, --config FILE.",
            "--offline, with any command, makes every use of the network an error.",
        ]
    )


def parser_of(name: str) -> ArgumentParser:
    """The parser of one verb."""
    verb = VERBS[name]
    bare = f"; --{verb.positional} may be left out before its value" if verb.positional else ""
    return parser_for(
        verb.options,
        prog=f"smplora {name}",
        description=verb.options.__doc__,
        epilog=f"example: {verb.example}{bare}",
    )


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The verb's checked options.

    Raises:
        ConfigError: with every problem of flags and YAML in one message.
    """
    parser = parser_of(name)
    arguments = _with_switches(name, _with_positional(name, arguments))
    try:
        namespace = parser.parse_args(arguments)
        values = {f.name: namespace[f.name] for f in fields(VERBS[name].options)}
        problems = VERBS[name].options(**values).problems()
    except (ArgumentError, TypeError, ValueError, yaml.YAMLError) as error:
        unreadable: list[str] = []
        given = _given(arguments, unreadable)
        values, problems = _diagnose(parser, name, given)
        problems = unreadable + problems or [str(error).splitlines()[0]]
    if problems:
        raise ConfigError(listing(f"{name} cannot start", problems))
    return VERBS[name].options(**values)


def checked(name: str, options: Mapping[str, Any]) -> Any:
    """The verb's options from keyword arguments, checked like those of the command line.

    Raises:
        ConfigError: with every problem in one message.
    """
    values, problems = _diagnose(parser_of(name), name, [(key, value, THE_CALL) for key, value in options.items()])
    if problems:
        raise ConfigError(listing(f"{name} cannot start", problems))
    return VERBS[name].options(**values)


def _with_positional(name: str, arguments: Sequence[str]) -> list[str]:
    """Words that belong to no flag become values of the verb's positional option; others stay, to be complained of."""
    option, words = VERBS[name].positional, list(arguments)
    if option is None:
        return words
    switches = _switches(name)
    kept: list[str] = []
    values: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            values.append(word)
            continue
        kept.append(word)
        takes_value = words and "=" not in word and not words[0].startswith("--")
        if takes_value and (word not in switches or words[0].lower() in SWITCH):
            kept.append(words.pop(0))
    if not values or any(word.partition("=")[0] == f"--{option}" for word in kept):
        return [*values, *kept]
    if get_origin(get_type_hints(VERBS[name].options)[option]) is list:
        return [f"--{option}={json.dumps(values)}", *kept]
    return [f"--{option}={values[0]}", *values[1:], *kept]


def _switches(name: str) -> set[str]:
    return {f"--{f.name}" for f in fields(VERBS[name].options) if f.type in ("bool", "Optional[bool]")}


def _with_switches(name: str, arguments: Sequence[str]) -> list[str]:
    """``--json`` alone means ``--json true``: what people expect of a switch."""
    switches = _switches(name)
    words = [*arguments, "--"]
    return [f"{word}=true" if word in switches and after.startswith("--") else word for word, after in pairwise(words)]


def _diagnose(
    parser: ArgumentParser, name: str, given: Sequence[tuple[str, Any, str]]
) -> tuple[dict[str, Any], list[str]]:
    options = VERBS[name].options
    values, problems = typed(parser, options, name, given, ELSEWHERE if issubclass(options, TrainConfig) else {})
    return values, problems + options(**values).problems()


def _given(arguments: Sequence[str], problems: list[str]) -> list[tuple[str, Any, str]]:
    """(option, value, where) of everything given, YAML files first."""
    from_files: list[tuple[str, Any, str]] = []
    from_flags: list[tuple[str, Any, str]] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            problems.append(f"the command line has '{word}' where an option was expected; options begin with --")
            continue
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = NO_VALUE if not words or words[0].startswith("--") else words.pop(0)
        if key == "config":
            from_files += _yaml_items(text, problems)
        else:
            from_flags.append((key.removesuffix("+"), text, COMMAND_LINE))
    return from_files + from_flags


def _yaml_items(path: str, problems: list[str]) -> list[tuple[str, Any, str]]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"--config got '{path}', which cannot be read: {str(error).splitlines()[0]}")
        return []
    if not isinstance(content, dict):
        problems.append(f"--config got '{path}', which is not a list of 'option: value' lines")
        return []
    return [(str(key), value, path) for key, value in content.items()]


def entry_point() -> None:
    """Console script."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its notes on torchvision are nothing a user can act on
    sys.exit(main())
