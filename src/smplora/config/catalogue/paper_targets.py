"""The paper, reproduced: each of its tables and figures is one file in ``targets/`` and one line here."""

from __future__ import annotations

TARGETS = {
    "figure_1a": "smplora.experiments.reproduce.targets.figure_1a:TARGET",
    "figure_1b": "smplora.experiments.reproduce.targets.figure_1b:TARGET",
    "figure_1c": "smplora.experiments.reproduce.targets.figure_1c:TARGET",
    "figure_1d": "smplora.experiments.reproduce.targets.figure_1d:TARGET",
    "table_1": "smplora.experiments.reproduce.targets.table_1:TARGET",
    "table_2": "smplora.experiments.reproduce.targets.table_2:TARGET",
    "figure_2": "smplora.experiments.reproduce.targets.figure_2:TARGET",
    "table_3": "smplora.experiments.reproduce.targets.table_3:TARGET",
    "table_6": "smplora.experiments.reproduce.targets.table_6:TARGET",
    "figure_3": "smplora.experiments.reproduce.targets.figure_3:TARGET",
    "table_7": "smplora.experiments.reproduce.targets.table_7:TARGET",
    "table_8": "smplora.experiments.reproduce.targets.table_8:TARGET",
    "table_9": "smplora.experiments.reproduce.targets.table_9:TARGET",
    "table_10": "smplora.experiments.reproduce.targets.table_10:TARGET",
    "table_11": "smplora.experiments.reproduce.targets.table_11:TARGET",
    "figure_4": "smplora.experiments.reproduce.targets.figure_4:TARGET",
}
FAMILIES = {
    "all": tuple(TARGETS),
    "figure_1": ("figure_1a", "figure_1b", "figure_1c", "figure_1d"),
}


def expand(names: list[str]) -> list[str]:
    """Names of targets, ``all`` and ``figure_1`` as the targets that they mean, each once, in the paper's order."""
    chosen = {target for name in names for target in FAMILIES.get(name, (name,))}
    return [name for name in TARGETS if name in chosen]
