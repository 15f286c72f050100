"""Table 10: MP-LoRA stabilised by other means."""

from __future__ import annotations

from smplora.reproduce.runs import Run, of_method
from smplora.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_10",
    title="Table 10: gradient clipping and normalisation",
    caption="MP-LoRA stabilised by clipping or normalising its gradient, against SMP-LoRA, Pokemon.",
    run=lambda row: Run(**of_method(row["method"])),
    best_of=("Pokemon",),
)
