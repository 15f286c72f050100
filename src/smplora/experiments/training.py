"""``smplora train``: a run that is complete is said to be, before anything takes time."""

from __future__ import annotations

import json
from pathlib import Path

from smplora.config.train import TrainConfig
from smplora.core.console import say
from smplora.results.record import as_json
from smplora.results.run import PAGE
from smplora.runs.complete import needs_nothing


def say_what_was_made(run: Path) -> None:
    """The last lines of a training; of several processes one says them."""
    from accelerate import PartialState

    from smplora.publish.card import CARD
    from smplora.runs.subject import find_subject

    if not PartialState().is_main_process:
        return
    subject = find_subject(str(run))
    files = ", ".join(subject.adaptation.published(run))
    pages = [name for name in (CARD, PAGE) if (run / name).exists()]
    say(f"{run}: {files} after step {subject.step:,}; {' and '.join(pages)} beside it")
    final = subject.config.final
    say(f"next: smplora export {run} --output_dir published" if final else f"next: smplora audit {run}")


def refresh_card(config: TrainConfig) -> None:
    """Of a final that is complete: its rehearsal may have been audited since."""
    from smplora.publish.card import write_card
    from smplora.runs.rehearsal import keep_rehearsal, was_audited
    from smplora.runs.subject import find_subject

    if was_audited(Path(config.final or "")):
        keep_rehearsal(config)
        write_card(find_subject(config.output_dir))


def train_command(config: TrainConfig) -> Path:
    """Train, or resume; a complete run is left alone. Returns its folder.

    Raises:
        UserError: as ``training.train.train``.
    """
    if config.final:  # reads images' splits, and so torch
        from smplora.runs.rehearsal import FOLDER, was_audited, with_options_of_rehearsal

        config = with_options_of_rehearsal(config)
        kept = Path(config.output_dir) / FOLDER
        if not (kept.exists() or was_audited(Path(config.final or ""))):
            say(f"'{config.final}' was not audited, and the card says so; better: 'smplora audit {config.final}' first")
    done = needs_nothing(config)
    if done is None:
        from smplora.experiments.tasks import train  # torch and diffusers take seconds to import

        run = train(config)
        say_what_was_made(run)
        return run
    say(f"{config.output_dir} is complete: {done.step} steps; its images were not read again")
    if config.final:
        refresh_card(config)
    if config.json:
        print(json.dumps({"run": config.output_dir, **as_json(done)}))
    return Path(config.output_dir)
