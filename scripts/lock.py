"""Write requirements.lock: every distribution that smplora and its tests need, with version and SHA-256.

    make lock

For CPython 3.11 on Linux (x86-64), with the versions of constraints.txt, as PyPI hands them out; run it there. What pip
would take from anywhere else has another hash, and is refused: the lock is for everybody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
LOCK = REPOSITORY / "requirements.lock"
HOST = "https://files.pythonhosted.org/"  # PyPI's files
OWN = ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_PROXY")  # settings of pip that say how, not where from
HEADER = """\
# Written by 'make lock'. For CPython 3.11 on Linux (x86-64): smplora's dependencies and those of its tests, as PyPI hands
# them out. PyPI's PyTorch is the one for NVIDIA GPUs; other builds, such as those for CPUs alone, are other files with
# other hashes, which are not here. On other systems and versions of Python constraints.txt alone applies.
#
#     pip install --require-hashes -r requirements.lock && pip install --no-deps .
"""


def main() -> int:
    """Ask pip what it would install, and write it down."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["install", "--dry-run", "--ignore-installed", "--quiet", "--only-binary", ":all:"]
        words += ["--report", str(report), "-c", "constraints.txt", ".[dev]"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") or k in OWN}
        environment["PIP_CONFIG_FILE"] = os.devnull
        subprocess.run([sys.executable, "-m", "pip", *words], cwd=REPOSITORY, env=environment, check=True)
        content = json.loads(report.read_text(encoding="utf-8"))
    LOCK.write_text(HEADER + "".join(sorted(entries(content), key=str.lower)), encoding="utf-8")
    return 0


def entries(report: Mapping[str, Any]) -> Iterator[str]:
    """The lines of pip's installation report, but for this repository's own.

    Raises:
        ValueError: a file that is not PyPI's, or without a SHA-256.
    """
    for item in report["install"]:
        about, source = item["metadata"], item["download_info"]
        if "dir_info" in source:  # smplora itself
            continue
        digest = source.get("archive_info", {}).get("hashes", {}).get("sha256")
        if not source["url"].startswith(HOST) or not digest:
            raise ValueError(
                f"{about['name']} {about['version']} would not come from PyPI: its hash is not everybody's"
            )
        yield f"{about['name']}=={about['version']} --hash=sha256:{digest}\n"


if __name__ == "__main__":
    sys.exit(main())
