"""Table 8: the adapter's rank."""

from __future__ import annotations

from smplora.experiments.reproduce.claims import ranges
from smplora.experiments.reproduce.runs import PaperRun
from smplora.experiments.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_8",
    title="Table 8: rank r",
    caption="SMP-LoRA with five ranks, Pokemon.",
    run=lambda row: PaperRun(rank=row["rank"]),
    claim="The rank makes little difference.",
    observed=lambda rows: ranges(rows, ("fid", "kid", "asr", "auc_dev")),
)
