"""What is trained. One file per adaptation method; to add one, add a file and a line here, and its title."""

import logging

# peft imports bitsandbytes where it is installed; on some processors that prints a line on a kernel for 4-bit weights
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

ADAPTATIONS = {
    "lora": "smplora.adapt.lora:LoRAAdaptation",
    "full": "smplora.adapt.full:FullAdaptation",
    "dreambooth": "smplora.adapt.dreambooth:DreamBoothAdaptation",
}

TITLES = {"lora": "LoRA", "full": "full fine-tuning", "dreambooth": "DreamBooth"}

TRAINS_WEIGHTS = ("full", "dreambooth")  # of the base model itself
LEARNING_RATES = {"lora": 1e-4, "full": 5e-6, "dreambooth": 5e-6}  # the paper's
