"""Table 6: the coefficient lambda."""

from __future__ import annotations

from smplora.experiments.reproduce.claims import steps
from smplora.experiments.reproduce.runs import PaperRun
from smplora.experiments.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_6",
    title="Table 6: coefficient λ",
    caption="SMP-LoRA with five values of λ on three data sets.",
    run=lambda row: PaperRun(dataset=row["dataset"], mi_lambda=row["lambda"]),
    claim="The larger λ, the worse the images and the less is leaked.",
    observed=lambda rows: steps(rows, "mi_lambda", ("fid", "kid", "asr", "auc_dev")),
)
