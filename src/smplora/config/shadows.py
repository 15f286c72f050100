"""Options of shadow adapters: trained like the adapter under audit, on halves of the same images that are known."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from smplora.attacks import LOW_PASS, SHADOW, SHADOW_SIGNALS
from smplora.config.adapter_file import is_foreign
from smplora.config.checks import at_least, if_any
from smplora.core.registry import unknown

if TYPE_CHECKING:
    from smplora.config.audit import AuditConfig

FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class ShadowOptions:
    shadows: Optional[int] = None
    """Train so many shadow adapters, as the run was trained but on random halves of the audited images, and attack with LiRA and RMIA too. An even number, 4 or more; 8 and 16 are usual. What it will cost is said first; run the same command again to resume."""
    shadow_signal: str = "calibrated_loss"
    """What the shadow attacks compare: the signals of one of these attacks (with +low_pass also on low frequencies): calibrated_loss, loss, loss_single, secmi, pia, pian, sima, pfami, clid, gradient_alignment, noise_probe, rediffuse, reconstruction."""
    shadow_dir: Optional[str] = None
    """Where the shadow adapters go; audits of the same run with more shadows or another signal use them again. Default: shadows/ beside audit.json."""
    shadow_config: Optional[str] = None
    """Of an adapter made elsewhere: a YAML file with the options of 'smplora train' that come closest to how it was trained. A run knows its own."""
    workers: Optional[int] = None
    """Processes that train shadows at once. Default: by the cores; 1 on a GPU."""


def shadow_problems(config: AuditConfig) -> list[str]:
    """What is wrong with the options of shadow adapters."""
    wanted = [name for name in config.attacks or () if name in SHADOW]
    if config.shadows is None:
        given = [f"--{f.name}" for f in fields(ShadowOptions) if getattr(config, f.name) != f.default]
        return [
            *([f"{', '.join(given)}: of shadow adapters; give --shadows too, or leave out"] if given else []),
            *([f"--attacks got {', '.join(wanted)}: needs shadow adapters; give --shadows 8"] if wanted else []),
        ]
    number = f"--shadows got {config.shadows}; allowed: even numbers from {FEWEST} (every image is in half of them, and a spread needs two)"
    useless = f"--shadows got {config.shadows}, which none of --attacks uses; add one of {', '.join(SHADOW)}"
    return [
        *([] if config.shadows >= FEWEST and config.shadows % 2 == 0 else [number]),
        *([useless] if config.attacks is not None and not wanted else []),
        *if_any(unknown_signal(config.shadow_signal)),
        *at_least(config, ("workers",), 1),
        *([] if config.signals or not config.adapter else _config_problems(config)),
    ]


def unknown_signal(name: str) -> str | None:
    """What is wrong with ``--shadow_signal``, or None."""
    return unknown(dict.fromkeys(SHADOW_SIGNALS, ""), name.removesuffix(LOW_PASS), "shadow_signal")


def _config_problems(config: AuditConfig) -> list[str]:
    given = config.shadow_config
    if not is_foreign(config):
        return [f"--shadow_config got '{given}'; a run knows how it was trained: leave it out"] if given else []
    if not given:
        return [
            f"--shadows: '{config.adapter}' is no run of 'smplora train', so that shadow adapters need to be told how it "
            "was trained: give --shadow_config, a YAML file with options of 'smplora train'"
        ]
    return [] if Path(given).is_file() else [f"--shadow_config got '{given}', which is not a file"]
