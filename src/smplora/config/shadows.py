"""Options of shadow adapters: trained like the adapter under audit, on halves of the same images that are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

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
