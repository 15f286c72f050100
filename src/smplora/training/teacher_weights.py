"""The trained weights of several teachers, which take turns in one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from smplora.adapters.base import PublishedAdaptation
from smplora.adapters.files.read import named_as
from smplora.models.adapted import exchanged
from smplora.models.diffusion import LatentDiffusion
from smplora.training.teachers import TEACHERS


@dataclass(frozen=True)
class TeacherWeights:
    """Trained teachers. They predict through one model, whose trained tensors theirs replace meanwhile."""

    model: LatentDiffusion
    parameters: Mapping[str, nn.Parameter]
    of_teacher: tuple[Mapping[str, Tensor], ...]  # by the names of ``parameters``

    @classmethod
    def read(
        cls,
        run: Path,
        count: int,
        model: LatentDiffusion,
        adaptation: PublishedAdaptation,
        parameters: Sequence[nn.Parameter],
    ) -> TeacherWeights:
        """Those of a run folder; the model keeps its own adapter.

        Args:
            parameters: what is trained.

        Raises:
            CheckpointError: one is gone or damaged.
        """
        own, weights = adaptation.state_dict(model), []
        named = {str(number): p for number, p in enumerate(parameters)}
        for k in range(count):
            state = adaptation.read(run / TEACHERS / f"teacher-{k}")
            adaptation.load_state_dict(model, named_as(state, own))
            weights.append({name: p.detach().clone() for name, p in named.items()})
        adaptation.load_state_dict(model, own)
        return cls(model, named, tuple(weights))

    def teaching(self, k: int) -> AbstractContextManager[None]:
        """Inside, the model is teacher ``k``."""
        return exchanged(self.parameters, self.of_teacher[k])

    @torch.no_grad()
    def generate(
        self,
        captions: Sequence[str],
        seeds: Sequence[int],
        *,
        resolution: int,
        num_inference_steps: int,
        guidance_scale: float,
        sampler: str,
    ) -> Tensor:
        """Images that all teachers draw together: as ``LatentDiffusion.generate``, from the mean of their predictions.

        The mean of noise predictions is the score of the geometric mean of what the teachers would draw, up to its
        scale: what one of K teachers alone knows counts for 1 / K (Vyas, Kakade and Barak 2023, "On provable copyright
        protection for generative models", CP-Delta with the KL divergence).
        """
        model, of_one, empties = self.model, [], []
        for k in range(len(self.of_teacher)):
            with self.teaching(k):  # text encoders may be theirs too
                of_one.append(model.embedded(captions, resolution))
                empties.append(model.unconditional(1, resolution))

        def stacked(embedded: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.stack([e[name] for e in embedded], 1) for name in embedded[0]}

        def mean_prediction(noised: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
            predictions = []
            for k in range(len(self.of_teacher)):
                with self.teaching(k):
                    own = {name: value[:, k] for name, value in conditioning.items()}
                    predictions.append(model.denoise(noised, timesteps, own).float())
            return torch.stack(predictions).mean(0)

        latents = model.sample(
            stacked(of_one),
            stacked(empties) if guidance_scale != 1 else None,
            seeds,
            resolution=resolution,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            predict=mean_prediction,
        )
        return model.decode(latents)
