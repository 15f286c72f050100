"""What commands say on standard error."""

from __future__ import annotations

import re


def complaint(err: str) -> str:
    """Standard error without the lines that say what was read."""
    return re.sub(r"^--\w+ '.*': \d+ images?; captions: .*\n", "", err, flags=re.MULTILINE)
