"""What smplora stands on: the licence of every installed distribution, and whether any has a known vulnerability.

    make audit-deps

Licences are read from the installed metadata and held against licences.toml. Vulnerabilities are pip-audit's to find;
where it is not installed or cannot reach its data, that is said, and is no pass.

Exit status: 0 all was checked and is fine, 1 something is not, 2 something could not be checked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Mapping
from email.message import Message
from fnmatch import fnmatch
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

LIST = Path(__file__).parent / "licences.toml"
INSTALL = "pipx install pip-audit"
FINE, WRONG, UNKNOWN = 0, 1, 2


def main() -> int:
    """Check both; returns the exit status."""
    rules = tomllib.loads(LIST.read_text(encoding="utf-8"))
    about = {str(d.metadata["Name"]): d.metadata for d in distributions()}
    wrong = [f"{name}: {problem}" for name in sorted(about) if (problem := licence_problem(name, about[name], rules))]
    print(f"licences: {len(about)} distributions, {len(wrong)} not accepted by {LIST.name}")
    for line in wrong:
        print(f"  {line}")
    status, sentence = vulnerabilities()
    print(f"vulnerabilities: {sentence}")
    return WRONG if wrong else status


def licence_problem(name: str, metadata: Message, rules: Mapping[str, Any]) -> str | None:
    """Why a distribution's licence is not accepted, or None."""
    if any(fnmatch(name.lower().replace("_", "-"), pattern) for pattern in rules["distributions"]):
        return None
    declared = declared_licence(metadata, rules["spelled"])
    if not declared:
        return "declares no licence"
    accepted = {*rules["usual"]["licences"], *rules["unusual"]}
    return None if is_accepted(declared, accepted) else declared


def declared_licence(metadata: Message, spelled: Mapping[str, str]) -> str:
    """The SPDX expression: as declared, else from the classifiers (all of them hold), else from the free text's first
    line. "" where there is none."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    named = [c for c in classifiers if c != "OSI Approved"]
    text = (metadata.get("License") or "").strip().partition("\n")[0].strip()
    return " AND ".join(spelled.get(one, one) for one in named or filter(None, [text]))


def is_accepted(expression: str, accepted: Iterable[str]) -> bool:
    """Whether an SPDX expression can be met with accepted licences: every side of an AND, one side of an OR."""
    known = set(accepted)
    tokens = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression)

    def either() -> bool:
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value |= both()
        return value

    def both() -> bool:
        value = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value &= one()
        return value

    def one() -> bool:
        token = tokens.pop(0) if tokens else ""
        if token != "(":
            return token in known
        value = either()
        return bool(tokens) and tokens.pop(0) == ")" and value

    return either() and not tokens


def vulnerabilities() -> tuple[int, str]:
    """What pip-audit says of what is installed beside this Python: an exit status, and a sentence."""
    program = shutil.which("pip-audit")
    if program is None:
        return UNKNOWN, f"not looked for, which is no pass: pip-audit is not installed ({INSTALL})"
    words = [program, "--progress-spinner", "off", "--path", sysconfig.get_path("purelib")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return FINE, "none known"
    if done.stdout.strip():  # the table of what it found
        return WRONG, f"some are known\n{done.stdout.rstrip()}"
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return UNKNOWN, f"not looked for, which is no pass: pip-audit could not ask ({last[:200]})"


if __name__ == "__main__":
    sys.exit(main())
