"""Options of making canaries."""

from __future__ import annotations

from dataclasses import dataclass

from smplora.config.checks import at_least, with_sizes

FEWEST = 100  # fewer prove next to nothing


@dataclass(frozen=True, kw_only=True)
class CanariesConfig:
    """Make canaries: patterns with captions that nobody would miss. Train with --canaries_dir: a fair coin puts each into the training set or not, and 'smplora audit' guesses which, so that one run of any objective proves a lower bound on epsilon."""

    output_dir: str = "canaries"
    """Where the pictures and metadata.jsonl go. A folder of your own pictures with captions serves as well."""
    number: int = 400
    """How many. A coin puts half of them into training, a quarter serves to choose an attack; 100 right guesses of 100 prove epsilon 3.5."""
    resolution: int = 512
    """Edge length in pixels: that of training."""
    seed: int = 0
    """Seed of the patterns. The coins are tossed by --split_seed."""
    json: bool = False
    """Print the folder and the number as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return [
            *at_least(self, ("number",), FEWEST),
            *at_least(self, ("resolution",), 8),
            *at_least(self, ("seed",), 0),
        ]
