"""Table 9: full fine-tuning and DreamBooth."""

from __future__ import annotations

from smplora.experiments.reproduce.claims import defence_against_baseline
from smplora.experiments.reproduce.runs import LORA, PaperRun, of_method
from smplora.experiments.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_9",
    title="Table 9: full fine-tuning and DreamBooth",
    caption="Other ways to adapt, with and without the defence, Pokemon.",
    run=lambda row: PaperRun(**of_method(row["method"])),
    best_of=("Pokemon",),
    claim="Whatever is trained, the defence leaks less than training without it, and the images are worse.",
    observed=lambda rows: defence_against_baseline(
        rows, ("asr", "auc_dev", "fid", "kid"), "adaptation", ("the same without", LORA)
    ),
)
