"""What commands say on standard error."""

from __future__ import annotations

import re

READ = r"^--\w+ '.*': \d+ images?; captions: .*\n"
TOY = r"^the bundled (flow )?model \('tiny(-flow)?'\) is a toy .*\n"


def complaint(err: str) -> str:
    """Standard error without the lines that say what was read, and that the model is the bundled one."""
    return re.sub(f"{READ}|{TOY}", "", err, flags=re.MULTILINE)
