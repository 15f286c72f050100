"""The paper's published numbers, from ``assets/paper_tables.yaml``."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from smplora.core.files import ASSETS

METRICS = ("fid", "kid", "asr", "auc_dev", "tpr")  # asr and tpr in %, as the paper prints them


@cache
def published() -> dict[str, Any]:
    """The whole file."""
    text = (ASSETS / "paper_tables.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def rows(table: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each row of a table of systems as (what names it, its numbers)."""
    return [
        (
            {key: value for key, value in row.items() if not _is_number(key)},
            {key: value for key, value in row.items() if _is_number(key)},
        )
        for row in published()[table]
    ]


def _is_number(key: str) -> bool:
    return key.removesuffix("_std") in METRICS
