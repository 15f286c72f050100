"""The command line: parsing only. Flags, YAML and help texts come from the dataclasses in config/."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from smplora.cli.commands import VERBS
from smplora.cli.help import help_text
from smplora.cli.parse import parse
from smplora.config.parsing import SWITCH
from smplora.core import offline
from smplora.core.console import forget_what_was_said
from smplora.core.errors import ConfigError, UserError, is_out_of_memory, nearest, readable
from smplora.core.output import private_files
from smplora.core.stopping import SIGNALS, heard, raise_stopped
from smplora.core.surroundings import flush_streams, leave_broken_streams, settle_streams
from smplora.core.version import __version__

SMALLER = ("train_batch_size", "batch_size", "resolution", "workers")  # what takes less memory when it is lower
BROKEN_PIPE = 13  # the number of SIGPIPE, which Windows has not
HELP = {"-h", "--help", "--help_all"}
FAILED = 2  # exit status for everything that the user can mend


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``smplora VERB --option value ...``; returns the exit status: 0, or 2 (of an invalid audit: 3) with one
    message on standard error."""
    settle_streams()
    forget_what_was_said()
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            flush_streams()
    except BrokenPipeError:  # whoever read our output has enough, as 'head' does
        leave_broken_streams()
        return 128 + BROKEN_PIPE
    except OSError as error:  # standard output is on a full disk
        leave_broken_streams()
        return _failed(error)


def _run(arguments: list[str]) -> int:
    try:
        arguments = _without_offline(arguments)
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(overview(), flush=True)
            return 0
        if arguments[0] in ("-V", "--version"):
            print(f"smplora {__version__}")
            return 0
        verb = VERBS.get(arguments[0])
        if verb is None:
            raise ConfigError(
                f"unknown command '{arguments[0]}'{nearest(arguments[0], VERBS)}; allowed: {', '.join(VERBS)}"
            )
        if asked := HELP.intersection(arguments[1:]):
            print(help_text(arguments[0], everything="--help_all" in asked), flush=True)
            return 0
        options = parse(arguments[0], arguments[1:])
        _check_network(arguments[0], options)
        if sys.stderr.isatty() or verb.slow:
            print(f"smplora {arguments[0]}: loading ...", file=sys.stderr, flush=True)
        module, _, function = verb.run.partition(":")
        with heard(), offline.hub(may_use_network(arguments[0], options)), offline.named(), private_files():
            getattr(import_module(module), function)(options)
        return 0
    except UserError as error:
        print(f"smplora: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        raise
    except OSError as error:
        if not is_out_of_memory(error):
            return _failed(error)
        print(out_of_memory(arguments[0]), file=sys.stderr)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        print(out_of_memory(arguments[0]), file=sys.stderr)
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        word = "interrupted" if number == signal.SIGINT else "stopped"
        print(f"smplora: {word}; run the same command again to resume", file=sys.stderr)
        return 128 + int(number)
    return FAILED


def _failed(error: OSError) -> int:
    """Say what the operating system refused; returns the exit status."""
    if error.errno is None:  # not the operating system's
        raise error
    where = readable(str(error.filename or "while writing"))
    print(f"smplora: {error.strerror}: {where}; nothing half-written was kept", file=sys.stderr)
    return FAILED


def out_of_memory(name: str) -> str:
    """What to say where nothing better is known; a training step says more (memory.py)."""
    known = [f"--{f.name}" for f in fields(VERBS[name].options) if f.name in SMALLER]
    return f"smplora: out of memory; lower {' or '.join(known) or 'the number of --runs'}, or choose another --device"


def _without_offline(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--offline``, which may stand before or after the command; it blocks the network."""
    rest: list[str] = []
    words = list(arguments)
    blocked = offline.is_offline()
    while words:
        word = words.pop(0)
        if word.partition("=")[0] != "--offline":
            rest.append(word)
            continue
        value = word.partition("=")[2] or (words.pop(0) if words and words[0].lower() in SWITCH else "true")
        if value.lower() not in SWITCH:
            raise ConfigError(f"--offline got '{value}'; allowed: {', '.join(SWITCH)}")
        blocked = SWITCH[value.lower()]
    if blocked:
        offline.block()
    return rest


def may_use_network(name: str, options: Any) -> bool:
    """Whether a command was asked for something that goes to the network; else nothing of it is to go there."""
    return _asks(name, options) is not None or getattr(options, "report_to", None) in ("wandb", "trackio", "all")


def _asks(name: str, options: Any) -> str | None:
    """What of a command cannot work without a network."""
    if getattr(options, "allow_download", False):
        return "--allow_download fetches from the hub"
    return "'smplora push' uploads" if name == "push" and not options.dry_run else None


def _check_network(name: str, options: Any) -> None:
    """Refuse what cannot work without a network where there is to be none; trackers look for themselves."""
    asks = _asks(name, options)
    if asks and offline.is_offline():
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
            "smplora VERB --help explains the main options of one command, --help_all every option by subject; they",
            "may stand in a YAML file, --config FILE.",
            "--offline, with any command, makes every use of the network an error.",
        ]
    )


def entry_point() -> None:
    """Console script."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell's background jobs inherit that Ctrl-C is ignored
            signal.signal(number, raise_stopped)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its notes on torchvision are nothing a user can act on
    sys.exit(main())
