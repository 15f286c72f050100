"""Table 6: the coefficient lambda."""

from __future__ import annotations

from smplora.reproduce.runs import Run
from smplora.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_6",
    title="Table 6: coefficient λ",
    caption="SMP-LoRA with five values of λ on three data sets.",
    run=lambda row: Run(dataset=row["dataset"], mi_lambda=row["lambda"]),
)
