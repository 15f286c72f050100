"""``--allow_download``: fetch base models and networks from the hub into the local cache. Besides ``push`` the only use
of the internet, and only when asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smplora.core.console import say
from smplora.core.errors import CheckpointError

OF_NETWORKS = ("*.json", "*.txt", "*.safetensors")  # the files of a model of the transformers library
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts of pipelines that smplora has no use for


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """Say it, and turn what goes wrong inside into one line.

    Raises:
        CheckpointError: no such model, or no network.
    """
    say(f"fetching {name} from the hub into the local cache")
    try:
        yield
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"--allow_download: '{name}' could not be fetched from the hub: {reason}") from error


def at_hand(name: str) -> bool:
    """Whether ``name`` is a file or folder here, or a hub id whose weights are in the local cache."""
    if Path(name).exists():
        return True
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        return False
    return any(folder.rglob("*.safetensors"))


def fetch_network(name: str) -> None:
    """Fetch a model of the transformers library, such as an image encoder. What is at hand stays.

    Raises:
        CheckpointError: no such model, no network, no safetensors files.
    """
    if at_hand(name):
        return
    from huggingface_hub import snapshot_download

    with fetching(name):
        folder = Path(snapshot_download(name, allow_patterns=list(OF_NETWORKS)))
    if not any(folder.rglob("*.safetensors")):
        raise CheckpointError(f"--allow_download: '{name}' has no weights in safetensors; take a model that has")


def cached_models() -> list[str]:
    """The ids of the base models in diffusers format that lie in the local hub cache, sorted."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return []
    return sorted(
        repository.repo_id
        for repository in repositories
        if repository.repo_type == "model"
        and any(file.file_name == "model_index.json" for revision in repository.revisions for file in revision.files)
    )
