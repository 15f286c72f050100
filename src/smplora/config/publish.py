"""Options of what leaves the machine: the publishable files of an adapter, in a folder or on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from smplora.config.checks import needed, with_sizes


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    adapter: Optional[str] = None
    """A run folder of 'smplora train', or one of its checkpoints (RUN/checkpoints/checkpoint-500)."""
    base_model: Optional[str] = None
    """Hub id of the base model for the model card, where it was trained from a local folder or file."""
    license: Optional[str] = None
    """License for the model card, as the hub names it, such as 'creativeml-openrail-m'."""
    instance_prompt: Optional[str] = None
    """Words for the model card that call up what was learned. Captions are never published."""
    sample_images: list[str] = field(default_factory=list)
    """Pictures for the model card, published without names and metadata. Look at them first: pictures of an adapter that leaks may show private images."""
    json: bool = False
    """Print the result as JSON on standard output."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(PublishOptions):
    """Copy what may be published of an adapter to a folder. That is both adapter files, the model card and chosen pictures, and nothing else."""

    output_dir: str = "runs/published"
    """A new or empty folder, or one that an export wrote before."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return _publish_problems(self)


@dataclass(frozen=True, kw_only=True)
class PushConfig(PublishOptions):
    """Upload what may be published of an adapter to the Hugging Face hub. The same files as 'smplora export'; the only command that uploads."""

    repo_id: Optional[str] = None
    """Repository on the hub, as user/name. It is made if it does not exist."""
    private: bool = True
    """The repository must not be public; false makes a public one, or allows one that exists."""
    dry_run: bool = False
    """Show the files and the model card and upload nothing."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        named = needed(self.repo_id, "repo_id", "a repository on the hub, as user/name")
        wrong = [f"--repo_id got '{self.repo_id}'; allowed: user/name"]
        return [*_publish_problems(self), *named, *(wrong if self.repo_id and not _is_id(self.repo_id) else [])]


def _is_id(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def _publish_problems(config: PublishOptions) -> list[str]:
    base = config.base_model
    return [
        *needed(config.adapter, "adapter", "a run folder of 'smplora train' or one of its checkpoints"),
        *([f"--base_model got '{base}'; allowed: a hub id, user/name"] if base and not _is_id(base) else []),
        *(f"--sample_images got '{p}', which is not a file" for p in config.sample_images if not Path(p).is_file()),
    ]
