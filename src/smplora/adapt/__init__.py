"""What is trained. One file per adaptation method; to add one, add a file and a line here."""

import logging

# peft imports bitsandbytes where it is installed; on some processors that prints a line on a kernel for 4-bit weights
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

ADAPTATIONS = {"lora": "smplora.adapt.lora:LoRAAdaptation"}
