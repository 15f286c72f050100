"""A base model with what is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from smplora.models.diffusion import LatentDiffusion

if TYPE_CHECKING:
    from smplora.adapters.files.write import Facts
    from smplora.models.diffusion import LatentDiffusion


class Adaptation(Protocol):
    """What is trained, and how it is handed out. One file each in ``adapters/``."""

    @property
    def freezes_base(self) -> bool:
        """The base model's weights stay as they are, so that 16 bits will do for them."""
        ...

    @property
    def noun(self) -> str:
        """For model cards, behind the title: "adapter"."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Likewise, of the hub."""
        ...

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Freeze ``model``, add what is trained, note where in ``model.adapted`` and itself in ``model.adaptation``;
        return what is trained by component (fp32). The model still computes what it did."""
        ...

    def check(self, model: LatentDiffusion) -> None:
        """See, before anything is written, whether the options fit ``model``.

        Raises:
            ConfigError: they do not.
        """
        ...

    def base(self, model: LatentDiffusion) -> AbstractContextManager[None]:
        """Inside, ``model`` is the base model, bit for bit."""
        ...

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Switch on or off whatever the adaptation does in training only, such as dropout."""
        ...

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The trained tensors; names begin with the component's, as "unet." or "text_encoder."."""
        ...

    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Restore them exactly.

        Raises:
            KeyError, RuntimeError: tensors that this model does not have, or lacks, or of other shapes.
        """
        ...

    def layers(self, model: LatentDiffusion) -> Watched:
        """What white-box attacks look at."""
        ...

    def publish(
        self, model: LatentDiffusion, folder: Path, facts: Facts, *, precision: str, complete: bool
    ) -> list[str]:
        """Write what is handed out into ``folder``, in the format that other programs read; returns what could not be
        written, one sentence each.

        Args:
            facts: what the file may tell of the training.
            precision: of storage, a key of ``export.PRECISIONS``.
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


@dataclass(frozen=True)
class Watched:
    """The layers (linear or convolutional) whose weights' gradients attacks may see; none where none was trained."""

    adapter: Sequence[nn.Module]  # of what was trained
    base: Sequence[nn.Module]  # the base model's under it
    updates: dict[nn.Module, Callable[[], Tensor] | None]  # layer -> dW [O, I ...]; None: its output is what dW adds


@contextmanager
def without_gradients(model: LatentDiffusion) -> Iterator[None]:
    """Inside, a backward pass leaves no gradient with the weights."""
    trained = [p for name in model.adapted for p in model.component(name).parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def base_model(model: LatentDiffusion, when: bool = True) -> AbstractContextManager[None]:
    """Inside, the adapter is switched off."""
    return model.adaptation.base(model) if when and model.adaptation else nullcontext()
