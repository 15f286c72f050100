"""Table 11: other attacks, II-S and GSA1."""

from __future__ import annotations

from smplora.experiments.reproduce.claims import defence_against_baseline
from smplora.experiments.reproduce.runs import PaperRun, of_method
from smplora.experiments.reproduce.systems import SystemsTable

ATTACKS = {"black-box II-S": "semantic_distance", "gradient GSA1": "gsa1"}
TARGET = SystemsTable(
    name="table_11",
    title="Table 11: other attacks",
    caption="The black-box attack II-S (Wu et al. 2022) and the gradient attack GSA1 (Pang et al. 2023), Pokemon.",
    run=lambda row: PaperRun(**of_method(row["method"])),
    best_of=("Pokemon",),
    claim="SMP-LoRA leaks less than LoRA by these attacks too.",
    observed=lambda rows: defence_against_baseline(rows, ("asr", "auc_dev"), "attack"),
    attack=lambda row: ATTACKS[row["attack"]],
)
