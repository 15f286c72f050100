"""Table 7: the adapter's learning rate."""

from __future__ import annotations

from smplora.experiments.reproduce.claims import steps
from smplora.experiments.reproduce.runs import PaperRun
from smplora.experiments.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_7",
    title="Table 7: learning rate",
    caption="SMP-LoRA with three learning rates of the adapter, Pokemon.",
    run=lambda row: PaperRun(learning_rate=row["learning_rate"]),
    claim="The lower the learning rate, the worse the images; little is leaked at any.",
    observed=lambda rows: steps(rows, "learning_rate", ("fid", "kid", "asr", "auc_dev")),
)
