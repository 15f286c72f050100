"""Files of adapters in the layouts of diffusers, peft, kohya and others: written, and read from anywhere. Imports
core."""

ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
