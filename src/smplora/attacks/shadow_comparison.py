"""What attacks with shadow adapters share: the signals of N adapters whose training images are known, beside those of
the adapter under audit. Pure.

Shadows are trained as the adapter was, with the same objective (the adaptive setting: Aerni et al. 2024, Song & Mittal
2021), so that a defence is attacked by somebody who knows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from smplora.attacks.base import Attack, AttackInfo
from smplora.config.catalogue.attacks import LOW_PASS
from smplora.core.arrays import Bools, Floats
from smplora.core.errors import ConfigError

# signals that are negative distances, which spread like a log-normal
DISTANCES = ("loss", "loss_single", "secmi", "pia", "pian", "sima", "noise_probe")
SMALLEST = 1e-30


@dataclass(frozen=True)
class Shadows:
    """Of N shadow adapters, by the digests of the images."""

    signals: Mapping[str, Floats]  # [N, k], on a near-normal scale
    is_in: Mapping[str, Bools]  # [N], which of them were trained on the image

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it."""
        digest = hashlib.sha256()
        for image in sorted(self.signals):
            digest.update(image.encode() + self.signals[image].tobytes() + self.is_in[image].tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Comparison:
    """Samples as a scorer of a shadow attack sees them."""

    target: Floats  # [n, k], of the adapter under audit
    shadows: Floats  # [n, N, k]
    is_in: Bools  # [n, N]

    def packed(self) -> Floats:
        """As signals, one array: [n, 1 + N, k + 1]; row 0 is the target, the last column says which shadows are in."""
        rows = np.concatenate([self.target[:, None], self.shadows], 1)
        flags = np.concatenate([np.zeros((len(rows), 1)), self.is_in], 1)
        return np.concatenate([rows, flags[..., None]], 2)

    @classmethod
    def unpacked(cls, signals: Floats) -> Comparison:
        """The inverse of ``packed``."""
        return cls(signals[:, 0, :-1], signals[:, 1:, :-1], signals[:, 1:, -1] > 0.5)

    def mean(self, inside: bool) -> Floats:
        """Of the shadows with, or without, the image: [n, k]."""
        weights = (self.is_in == inside)[..., None]
        means: Floats = (self.shadows * weights).sum(1) / weights.sum(1)
        return means


def near_normal(signal: str, signals: Floats) -> Floats:
    """The signals [n, ...] of the attack ``signal`` as [n, k] on a near-normal scale, still higher for members: of
    distances the logarithm, of anything else (a difference of logarithms, a similarity) itself."""
    flat = signals.reshape(len(signals), -1)
    if signal.removesuffix(LOW_PASS) in DISTANCES:
        return -np.log(np.maximum(-flat, SMALLEST))
    return flat


@dataclass(frozen=True)
class ShadowAttack(Attack):
    """Compares a signal of the adapter with those of its shadows. A subclass says how, by its scorer."""

    about: ClassVar[AttackInfo]
    own_signal: ClassVar[str | None] = None  # what it compares, whatever ``--shadow_signal`` says
    shadow_signal: str  # the name of the attack whose signals are compared
    compared: Attack  # that attack
    shadows: Shadows | None = None
    fingerprint: str = ""  # of the shadows, for caches of signals

    @property
    def info(self) -> AttackInfo:  # type: ignore[override]
        """That of LiRA or RMIA, and of what they compare."""
        if self.own_signal:
            return self.about
        inner = self.compared.info
        return replace(
            self.about,
            title=f"{self.about.title} ({inner.title[:1].lower()}{inner.title[1:]})",
            access=inner.access,
            bibtex=f"{self.about.bibtex}\n{inner.bibtex}",
            fitted_on="aux and shadow adapters",
        )

    def among(self, shadows: Shadows) -> Self:
        """The same attack, with shadows to compare with."""
        return replace(self, shadows=shadows, fingerprint=shadows.fingerprint)

    def signals(self, view: Any) -> Floats:
        """``Comparison.packed``: [b, 1 + N, k + 1].

        Raises:
            ConfigError: there are no shadows.
        """
        if self.shadows is None:
            raise ConfigError("--attacks got one that needs shadow adapters; give --shadows 8")
        return Comparison(
            near_normal(self.shadow_signal, self.compared.signals(view)),
            np.stack([self.shadows.signals[digest] for digest in view.digests]),
            np.stack([self.shadows.is_in[digest] for digest in view.digests]),
        ).packed()
