"""``smplora train``: a run that is complete is said to be, before anything takes time."""

from __future__ import annotations

import json

from smplora.config.train import TrainConfig
from smplora.core.console import say
from smplora.results.record import as_json
from smplora.runs.complete import needs_nothing


def train_command(config: TrainConfig) -> None:
    """Train, or resume; a complete run is left alone.

    Raises:
        UserError: as ``training.train.train``.
    """
    done = needs_nothing(config)
    if done is None:
        from smplora.experiments.tasks import train  # torch and diffusers take seconds to import

        train(config)
        return
    say(f"{config.output_dir} is complete: {done.step} steps; its images were not read again")
    if config.json:
        print(json.dumps({"run": config.output_dir, **as_json(done)}))
