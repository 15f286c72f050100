"""What the adapter minimises. One file per objective; to add one, add a file and a line here."""

OBJECTIVES = {
    "lora": "smplora.objectives.lora:LoRA",
    "mp_lora": "smplora.objectives.mp_lora:MPLoRA",
    "smp_lora": "smplora.objectives.smp_lora:SMPLoRA",
    "dp_lora": "smplora.objectives.dp_lora:DPLoRA",
    "distill_lora": "smplora.objectives.distill_lora:DistillLoRA",
    "synth_lora": "smplora.objectives.synth_lora:SynthLoRA",
}

WITH_PROXY = ("mp_lora", "smp_lora")  # those that lambda belongs to
TITLES = {
    "lora": "LoRA",
    "mp_lora": "MP-LoRA",
    "smp_lora": "SMP-LoRA",
    "dp_lora": "DP-LoRA",
    "distill_lora": "Distill-LoRA",
    "synth_lora": "Synth-LoRA",
}
