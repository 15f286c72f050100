"""Options of checking a certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from smplora.config.checks import needed, with_sizes


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check a certificate of an audit: whether it is as it was written, and whether it is about the adapter at hand."""

    certificate: Optional[str] = None
    """certificate.html, as 'smplora audit' and 'smplora export' write it."""
    adapter: Optional[str] = None
    """The adapter's .safetensors file, or a run folder. Default: the adapter in the certificate's folder."""
    json: bool = False
    """Print the result as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return needed(self.certificate, "certificate", "certificate.html of an audit")
