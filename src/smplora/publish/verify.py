"""``smplora verify``: a certificate held against itself and against the adapter."""

from __future__ import annotations

import json
from pathlib import Path

from smplora.adapters.files import ADAPTER_FILE
from smplora.config.verify import VerifyConfig
from smplora.core.console import say
from smplora.core.errors import CheckpointError
from smplora.core.files import files_sha256
from smplora.core.reading import Unreadable, read_text
from smplora.core.version import __version__
from smplora.report.certificate import read
from smplora.results.certificate import Certificate
from smplora.results.record import as_json
from smplora.runs.folder import CONFIG
from smplora.runs.subject import find_subject


def verify(config: VerifyConfig) -> Certificate:
    """Say whether a certificate is as it was written and about the adapter; returns it.

    Raises:
        CheckpointError: it is not, or there is no adapter to hold it against.
    """
    path = Path(config.certificate or "")
    try:
        certificate = read(read_text(path))
    except (OSError, ValueError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"'{path}' cannot be relied on: {reason}") from error
    adapter = Path(config.adapter) if config.adapter else path.parent
    digest = _digest(adapter)
    if certificate.adapter_sha256 is None:
        raise CheckpointError(f"'{path}' is of ready scores (--signals) and names no adapter")
    if digest != certificate.adapter_sha256:
        raise CheckpointError(
            f"'{path}' is about another adapter: it names {certificate.adapter_sha256}, and '{adapter}' is {digest}"
        )
    say(f"{path} is as it was written, and about {adapter} (SHA-256 {digest})")
    if certificate.version != __version__:
        say(f"smplora {certificate.version} wrote it: what it holds was checked, not whether the page shows the same")
    say(f"{certificate.adapter}: {certificate.verdict}")
    say("it is not signed: that its numbers are those of an audit is its author's word; 'smplora audit' measures anew")
    if config.json:
        print(json.dumps(as_json(certificate)))
    return certificate


def _digest(adapter: Path) -> str:
    """Of a file, a run, a checkpoint, or a folder as 'smplora export' writes it; beside an audit the adapter is one
    folder up."""
    if not adapter.exists():
        raise CheckpointError(f"--adapter got '{adapter}', which does not exist")
    if adapter.is_file():
        return files_sha256([adapter])
    for folder in (adapter, adapter.parent):
        if (folder / CONFIG).exists() or folder.name.startswith("checkpoint-"):
            return find_subject(str(folder)).adapter_sha256
        if (folder / ADAPTER_FILE).is_file():
            return files_sha256([folder / ADAPTER_FILE])
    raise CheckpointError(f"no adapter is in '{adapter}'; name its .safetensors file with --adapter")
