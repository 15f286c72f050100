"""Table 1: image quality and privacy of LoRA, MP-LoRA and SMP-LoRA on five data sets."""

from __future__ import annotations

from smplora.experiments.reproduce.claims import defence_against_baseline
from smplora.experiments.reproduce.runs import MP, PaperRun, of_method
from smplora.experiments.reproduce.systems import SystemsTable

TARGET = SystemsTable(
    name="table_1",
    title="Table 1: LoRA, MP-LoRA and SMP-LoRA",
    caption="Image generation and defence against membership inference on five data sets.",
    run=lambda row: PaperRun(dataset=row["dataset"], **of_method(row["method"])),
    best_of=("Pokemon", "CelebA_Small", "CelebA_Large", "CelebA_Gender", "CelebA_Varying"),
    claim="SMP-LoRA leaks far less than LoRA, and draws far better than MP-LoRA.",
    observed=lambda rows: [
        *defence_against_baseline(rows, ("asr", "auc_dev"), "dataset"),
        *defence_against_baseline(rows, ("fid", "kid"), "dataset", ("MP-LoRA", MP)),
    ],
)
