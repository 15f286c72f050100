"""What is trained. One file per adaptation method; to add one, add a file and a line here, and its title."""

ADAPTATIONS = {
    "lora": "smplora.adapters.lora:LoRAAdaptation",
    "full": "smplora.adapters.full:FullAdaptation",
    "dreambooth": "smplora.adapters.full:DreamBoothAdaptation",
    "textual_inversion": "smplora.adapters.textual_inversion:TextualInversionAdaptation",
}

TITLES = {
    "lora": "LoRA",
    "full": "full fine-tuning",
    "dreambooth": "DreamBooth",
    "textual_inversion": "textual inversion",
}

TRAINS_WEIGHTS = ("full", "dreambooth")  # of the base model itself
LEARNING_RATES = {
    "lora": 1e-4,
    "full": 5e-6,
    "dreambooth": 5e-6,
    "textual_inversion": 5e-4,
}  # the paper's; diffusers' script's
