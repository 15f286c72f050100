"""Options of shadow adapters: trained like the adapter under audit, on halves of the same images that are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

FEWEST, USUAL = 4, 8


@dataclass(frozen=True, kw_only=True)
class ShadowOptions:
    shadows: Optional[int] = None
    """Train so many shadow adapters (0, or an even number from 4; usual: 8, 16) and attack with LiRA and RMIA too. Default: 8 for --tier strong, else 0."""
    shadow_signal: str = "calibrated_loss"
    """What the shadow attacks compare: the signals of one attack, such as loss or secmi; with +low_pass on low frequencies only. docs/auditing.md lists them."""
    shadow_dir: Optional[str] = None
    """Where the shadow adapters go; audits that name one folder share those that are the same. Default: shadows/ beside audit.json."""
    shadow_config: Optional[str] = None
    """YAML file with options of 'smplora train' for the shadows. Of an adapter made elsewhere, those that come closest; of a run in place of its own."""
    workers: Optional[int] = None
    """Processes that train shadows at once. Default: by the cores; 1 on a GPU."""
