"""``smplora verify``: a certificate held against itself and against the adapter."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

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
    way_out = "give certificate.html as 'smplora audit' or 'smplora export' wrote it"
    try:
        certificate = read(read_text(path))
    except OSError as error:
        raise CheckpointError(
            f"--certificate got '{path}', which cannot be read ({error.strerror}); {way_out}"
        ) from error
    except (ValueError, Unreadable) as error:
        raise CheckpointError(f"'{path}' cannot be relied on: {error}; {way_out}") from error
    adapter = Path(config.adapter).absolute() if config.adapter else path.absolute().parent
    known = {certificate.adapter_sha256, *certificate.files.values()}
    found = _digests(adapter, certificate.files)
    if not found & known:
        named = ", ".join([*certificate.files, *([] if certificate.files else ["the adapter's own files"])])
        raise CheckpointError(f"'{path}' is about another adapter than '{adapter}': it knows {named} by other SHA-256s")
    say(f"{path} is as it was written, and about {adapter} (SHA-256 {min(found & known)})")
    if certificate.version != __version__:
        say(f"smplora {certificate.version} wrote it: what it holds was checked, not whether the page shows the same")
    say(f"{certificate.adapter}: {certificate.verdict}")
    say("it is not signed: that its numbers are those of an audit is its author's word; 'smplora audit' measures anew")
    if config.json:
        print(json.dumps(as_json(certificate)))
    return certificate


def _digests(adapter: Path, names: Collection[str]) -> set[str]:
    """Of a file, of a run or checkpoint (beside an audit it is one folder up), or of the files of these names in a
    folder."""
    if not adapter.exists():
        raise CheckpointError(f"--adapter got '{adapter}', which does not exist")
    if adapter.is_file():
        return {files_sha256([adapter])}
    for folder in (adapter, adapter.parent):
        if (folder / CONFIG).exists() or folder.name.startswith("checkpoint-"):
            return {find_subject(str(folder)).adapter_sha256}
    inside = [name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts]
    if there := [adapter / name for name in inside if (adapter / name).is_file()]:
        return {files_sha256([file]) for file in there}
    raise CheckpointError(f"no adapter is in '{adapter}'; name its .safetensors file, or the run, with --adapter")
