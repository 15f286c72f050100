"""What an adaptation method is: what is trained, and the files that it is handed out in."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from smplora.adapters.files.write import AdapterFacts
from smplora.models.adapted import Adaptation
from smplora.models.diffusion import LatentDiffusion


class PublishedAdaptation(Adaptation, Protocol):
    """One file each in ``adapters/``: a dataclass, whose fields bear the names of options (``registry.made``)."""

    @property
    def noun(self) -> str:
        """For model cards, behind the title: "adapter"."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Likewise, of the hub."""
        ...

    def check(self, model: LatentDiffusion) -> None:
        """See, before anything is written, whether the options fit ``model``.

        Raises:
            ConfigError: they do not.
        """
        ...

    def publish(
        self, model: LatentDiffusion, folder: Path, facts: AdapterFacts, *, precision: str, complete: bool
    ) -> list[str]:
        """Write what is handed out into ``folder``, in the format that other programs read; returns what could not be
        written, one sentence each.

        Args:
            facts: what the file may tell of the training.
            precision: of storage, a key of ``files.write.PRECISIONS``.
            complete: everything that users expect; False: only what audits need, for a checkpoint.
        """
        ...

    def weights(self, folder: Path) -> list[Path]:
        """The files of ``publish`` that hold what was trained, whether they exist or not; the first one's header tells
        the facts."""
        ...

    def published(self, folder: Path) -> list[str]:
        """Names, relative to ``folder``, of the files that ``publish`` wrote there."""
        ...

    def read(self, folder: Path) -> dict[str, Tensor]:
        """What ``publish`` wrote, as ``load_state_dict`` takes it; libraries' versions may differ in some names.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        ...

    def usage(self, source: str, pipeline: str, base: str) -> list[str]:
        """Lines of Python that load it in diffusers, for the model card.

        Args:
            source: where the files are: a folder, or the id of a repository.
            pipeline: the class of diffusers' pipeline.
            base: the base model's id.
        """
        ...
