"""Errors that are the user's to mend. The command line prints them without a traceback and exits with their status."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

ALLOCATION_FAILURES = (
    "can't allocate memory", "Cannot allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED",
    "bad_alloc", "could not create a primitive", "could not create a memory",  # C++'s, oneDNN's
    "can't start new thread", "failed to map segment",  # no room for a stack, or for a library that is imported
)  # fmt: skip
DIGITS = re.compile(r"\d{40,}")
LONGEST_LINE = 2000
MOST_LISTED = 100
ALIKE, SHOWN_OF_ALIKE = 6, 3  # a missing caption would be said of every image


class Lines(str):
    """Text of several lines. Line feeds of any other text that is shown came from outside, and are shown escaped."""


class UserError(Exception):
    """Says what was given, what is allowed and the way out."""

    exit_status = 2

    def __str__(self) -> str:
        return readable(self.args[0] if self.args else "")


class ConfigError(UserError):
    """Options that cannot be used; the message lists all of them."""


class DataError(UserError):
    """Images or captions that cannot be used."""


class SplitError(UserError):
    """A split that cannot be made or does not fit the data."""


class CheckpointError(UserError):
    """A model, adapter, checkpoint or cached result that cannot be used."""


class PushError(UserError):
    """An upload that did not happen."""


class InvalidAudit(UserError):
    """An audit whose numbers mean nothing, because a validity gate failed. Its files are written."""

    exit_status = 3


class TrainingError(UserError):
    """Training that cannot go on, for instance because the loss is not a number."""


def readable(text: str) -> str:
    """A message for people, whatever names and values from outside are quoted in it: control characters are shown
    escaped, so that they cannot move the cursor, colour the terminal or, but in ``Lines``, begin a line; long numbers
    and lines are cut short."""
    lines = text.split("\n") if isinstance(text, Lines) else [text]
    shown = ["".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line) for line in lines]
    shown = [DIGITS.sub(lambda run: f"(a number of {len(run[0])} digits)", line) for line in shown]
    return "\n".join(s if len(s) <= LONGEST_LINE else f"{s[:LONGEST_LINE]} ... ({len(s)} characters)" for s in shown)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: Python's, the GPU's (torch.OutOfMemoryError), MPS's or the CPU allocator's, which
    are plain RuntimeErrors, that of a thread, or of a library. Also where it only led to the error. By name and text,
    since this module imports no torch."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if (
            isinstance(cause, MemoryError)
            or type(cause).__name__ == "OutOfMemoryError"
            or (isinstance(cause, RuntimeError | ImportError | OSError) and any(w in text for w in ALLOCATION_FAILURES))
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` if something known is close to ``word``, else nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def listing(title: str, problems: list[str], end: str = "") -> Lines:
    """One message out of many problems: a single line for one, else one per line, the first ``MOST_LISTED``; ``end``
    comes after the last. Problems "name: cause" of one cause share a line, from ``ALIKE`` on."""
    title, end, *problems = (text.replace("\n", "\\n") for text in (title, end, *problems))  # no new line by a name
    if len(problems) == 1:
        return Lines(f"{title}: {problems[0]}{end}")
    said = _by_cause(problems)
    more = [f"  - and {len(said) - MOST_LISTED} more"] if len(said) > MOST_LISTED else []
    lines = [f"{title}: {len(problems)} problems", *(f"  - {p}" for p in said[:MOST_LISTED]), *more]
    return Lines("\n".join(lines) + end)


def _by_cause(problems: list[str]) -> list[str]:
    """What is wrong with many names in the same way, as one: "a, b, c and 97 more: the cause"."""
    together: dict[str, list[str]] = {}
    for problem in problems:
        cause = problem if problem.startswith("--") else problem.partition(": ")[2]  # options are not names
        together.setdefault(cause or problem, []).append(problem)
    said: list[str] = []
    for cause, alike in together.items():
        if len(alike) < ALIKE or cause == alike[0]:
            said += alike
        else:
            names = ", ".join(problem.partition(": ")[0] for problem in alike[:SHOWN_OF_ALIKE])
            said.append(f"{names} and {len(alike) - SHOWN_OF_ALIKE} more: {cause}")
    return said
