"""What the paper trains and what is measured of it, in the paper's own numbers; a scale turns them into options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

LAMBDA, RANK, RATE = 0.05, 64, 1e-4  # of the paper's main experiments
LORA, MP, SMP = "lora", "mp_lora", "smp_lora"
Stabiliser = Literal["", "clipping", "normalisation"]
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"objective": LORA},
    "MP-LoRA": {"objective": MP},
    "SMP-LoRA": {"objective": SMP},
    "Full fine-tuning": {"objective": LORA, "adaptation": "full"},
    "SMP full fine-tuning": {"objective": SMP, "adaptation": "full"},
    "DreamBooth": {"objective": LORA, "adaptation": "dreambooth"},
    "SMP-DreamBooth": {"objective": SMP, "adaptation": "dreambooth"},
    "MP-LoRA + gradient clipping": {"objective": MP, "stabiliser": "clipping"},
    "MP-LoRA + gradient normalization": {"objective": MP, "stabiliser": "normalisation"},
}


@dataclass(frozen=True, kw_only=True)
class PaperRun:
    """One training of the paper. ``mi_lambda``, ``rank`` and ``learning_rate`` are the paper's values.

    Args:
        stabiliser: how the gradient is kept in bounds, where that is the question (Table 10).
    """

    dataset: str = "Pokemon"
    objective: str = SMP
    adaptation: str = "lora"
    mi_lambda: float = LAMBDA
    rank: int = RANK
    learning_rate: float = RATE
    stabiliser: Stabiliser = ""

    @property
    def title(self) -> str:
        """For people: what is not the usual."""
        parts = [f"λ {self.mi_lambda:g}"] if self.objective != LORA else []
        parts += [f"rank {self.rank}"] if self.rank != RANK else []
        parts += [f"learning rate {self.learning_rate:g}"] if self.learning_rate != RATE else []
        return ", ".join([self.dataset, self.method, *parts])

    @property
    def method(self) -> str:
        """The paper's name of it, whatever lambda, rank and so on."""
        plain = {"objective": self.objective, "adaptation": self.adaptation, "stabiliser": self.stabiliser}
        usual = {"adaptation": "lora", "stabiliser": ""}
        return next(name for name, fields in METHODS.items() if {**usual, **fields} == plain)


@dataclass(frozen=True)
class Need:
    """A run, and what a target wants to know of it.

    Args:
        theory: gradients and curvature while training (Fig. 1b, Fig. 2, Table 3).
        measured: the usual audit and evaluation.
        attacks: an audit of its own, with these attacks.
    """

    run: PaperRun
    theory: bool = False
    measured: bool = True
    attacks: tuple[str, ...] = ()


def of_method(name: str) -> dict[str, Any]:
    """The fields of ``PaperRun`` that the paper's name of a method means.

    Raises:
        KeyError: no such method.
    """
    return dict(METHODS[name])
