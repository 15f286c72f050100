"""What leaves the machine: adapter files, model card, chosen pictures of a subject. Never split, metrics or config."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, UnidentifiedImageError

from smplora.adapters.files.read import AdapterFile, read_adapter
from smplora.adapters.files.write import (
    ADAPTER_FILE,
    KOHYA_FILE,
    OURS,
    AdapterFacts,
    LoraSettings,
    kohya_bytes,
    needs_kohya,
)
from smplora.config.publish import ExportConfig, PublishOptions, PushConfig
from smplora.core.console import say
from smplora.core.errors import CheckpointError, ConfigError, Lines, PushError
from smplora.core.files import UNFINISHED, check_writable, write_atomically
from smplora.core.output import output_folder
from smplora.core.ownership import refuse_to_replace
from smplora.core.tensor_files import read_header
from smplora.publish.card import CARD, MARKER, CardOptions, audited, render
from smplora.report.certificate import NAME as CERTIFICATE
from smplora.report.certificate import certificate_of, page
from smplora.runs.subject import Subject, find_subject

UNAUDITED = "this adapter was not audited; 'smplora audit {}' measures what it gives away before others do"


def export(config: ExportConfig) -> Path:
    """``smplora export``: write the publishable files to ``--output_dir``; returns it.

    Raises:
        UserError: anything that the user can mend.
    """
    folder = Path(config.output_dir)
    subject, files = publishable(config, None)
    ours = {name.partition("/")[0] for name in files}
    there = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    foreign = [name for name in there if name not in ours and not name.startswith(UNFINISHED)]
    if foreign:
        raise ConfigError(
            f"--output_dir got '{folder}', which holds other files ({sorted(foreign)[0]}); give a new or empty folder"
        )
    refuse_to_replace(folder, files, "output_dir", [CARD])
    check_writable(folder)
    warn(subject)
    show(files)
    with output_folder(folder, ours):
        _write(files, folder)
    say(f"{folder} holds what may leave the machine; read {CARD} first. 'smplora push' uploads the same")
    if config.json:
        print(json.dumps({"folder": str(folder), "files": list(files)}))
    return folder


def push(config: PushConfig) -> str | None:
    """``smplora push``: upload the publishable files to the hub; returns the address, or None for a dry run.

    Raises:
        UserError: anything that the user can mend: no token, a public repository, no network among it.
    """
    repo_id = config.repo_id or ""
    subject, files = publishable(config, repo_id)
    warn(subject)
    say(f"to https://huggingface.co/{repo_id} ({'private' if config.private else 'public'}):")
    show(files)
    address = None
    if config.dry_run:
        say(Lines(f"\n{files[CARD].decode()}\n--dry_run: nothing was uploaded"))
    else:
        address = _upload(repo_id, config.private, files)
        say(f"published: {address}")
    if config.json:
        print(json.dumps({"url": address, "files": list(files)}))
    return address


def publishable(config: PublishOptions, repo_id: str | None) -> tuple[Subject, dict[str, bytes]]:
    """The subject, and the content of everything that may be published of it, by file name.

    Raises:
        UserError: no such adapter, or a picture that cannot be read.
    """
    subject = find_subject(config.adapter or "")
    subject.adaptation.read(subject.folder)  # damaged files are not handed on
    subject.check_files()
    files = {name: _own(subject.folder / name) for name in subject.adaptation.published(subject.folder)}
    if ADAPTER_FILE in files and KOHYA_FILE not in files:
        adapter = read_adapter(subject.folder / ADAPTER_FILE, transformer=True)
        try:
            if needs_kohya(settings_of(adapter)):
                files[KOHYA_FILE] = as_kohya(adapter)
        except (ValueError, KeyError) as error:
            say(f"no {KOHYA_FILE}: {error}")
    pictures = {f"sample-{i}.png": _bare(Path(p)) for i, p in enumerate(config.sample_images, 1)}
    options = CardOptions(config.base_model, config.license, config.instance_prompt, repo_id, tuple(pictures))
    own = subject.folder / CARD
    text = _own(own).decode() if own.exists() else MARKER
    card = render(subject, options, kohya=KOHYA_FILE in files) if MARKER in text else text
    audit, _ = audited(subject)
    if audit and not subject.config.final:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files[CERTIFICATE] = page(certificate_of(audit, digests)).encode()
    return subject, {**files, **pictures, CARD: card.encode()}


def _own(path: Path) -> bytes:
    """A file of a run, to be published.

    Raises:
        CheckpointError: it is a link, or no safetensors file though it is called one: neither is handed on.
    """
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"'{path}' is no plain file; links are not published: put the file itself there")
    if path.suffix == ".safetensors":
        read_header(path, f"'{path}' cannot be published: it")
    return path.read_bytes()


def as_kohya(adapter: AdapterFile) -> bytes:
    """A file of ours in diffusers' layout, in the kohya layout: for checkpoints, which have only the first.

    Raises:
        KeyError: it is not one of ours.
        ValueError: its model has modules without kohya names.
    """
    metadata = {k.removeprefix(OURS): v for k, v in adapter.metadata.items() if k.startswith(OURS)}
    facts = AdapterFacts(
        metadata["objective"],
        metadata["family"],
        int(metadata["resolution"]),
        metadata.get("base_model", ""),
        int(metadata["layers_per_block"]),
    )
    return kohya_bytes(adapter.state, settings_of(adapter), facts)


def settings_of(adapter: AdapterFile) -> dict[str, LoraSettings]:
    """How each component of a file of ours was adapted.

    Raises:
        KeyError: it is not one of ours.
    """
    loader: dict[str, Any] = json.loads(adapter.metadata["lora_adapter_metadata"])
    return {
        name: LoraSettings(
            loader[f"{name}.r"],
            loader[f"{name}.lora_alpha"],
            tuple(loader[f"{name}.target_modules"]),
            loader[f"{name}.use_rslora"],
            loader[f"{name}.use_dora"],
        )
        for name in dict.fromkeys(key.partition(".")[0] for key in loader)
    }


def warn(subject: Subject) -> None:
    """Say it where an adapter goes out unmeasured, or although it leaks."""
    audit, _ = audited(subject)
    if audit is None:
        say(f"warning: {UNAUDITED.format(subject.config.final or subject.folder)}")
    elif audit.audit.verdict.level == "red":
        say(f"warning: the audit of this adapter says: {audit.audit.verdict.sentence}")


def show(files: dict[str, bytes]) -> None:
    """List what goes out."""
    for name, content in files.items():
        say(f"  {name:<{max(map(len, files))}}  {len(content) / 1e6:8.2f} MB")


def _bare(path: Path) -> bytes:
    """A picture's pixels as PNG, without any metadata.

    Raises:
        CheckpointError: not a picture.
    """
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise CheckpointError(f"--sample_images: '{path}' cannot be read as a picture ({error})") from error
    bare = Image.frombytes("RGB", pixels.size, pixels.tobytes())
    buffer = io.BytesIO()
    bare.save(buffer, "PNG")
    return buffer.getvalue()


def _write(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)


def _upload(repo_id: str, private: bool, files: dict[str, bytes]) -> str:
    """Make the repository if need be, upload in one commit; returns the address."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    of_the_client: Any = HfHubHTTPError.__bases__  # of httpx or requests, by version
    api = huggingface_hub.HfApi()
    try:
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        if private and not api.repo_info(repo_id).private:
            raise ConfigError(f"--repo_id got '{repo_id}', which is public; --private false publishes there")
        with TemporaryDirectory() as folder:
            _write(files, Path(folder))
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Adapter by smplora")
    except (*of_the_client, LocalTokenNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PushError(
            f"the hub did not take it: {reason}; 'hf auth login' or HF_TOKEN gives smplora the right to write"
        ) from error
    return address
