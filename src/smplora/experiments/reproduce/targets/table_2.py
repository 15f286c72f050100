"""Table 2: larger data sets."""

from __future__ import annotations

from smplora.experiments.reproduce.claims import defence_against_baseline
from smplora.experiments.reproduce.runs import PaperRun, of_method
from smplora.experiments.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_2",
    title="Table 2: larger data sets",
    caption="LoRA and SMP-LoRA on data sets five times as large.",
    claim="SMP-LoRA also defends larger data sets, and its images are nearly as good as LoRA's.",
    observed=lambda rows: defence_against_baseline(rows, ("asr", "auc_dev", "fid", "kid"), "dataset"),
    run=lambda row: PaperRun(dataset=row["dataset"], **of_method(row["method"])),
)
