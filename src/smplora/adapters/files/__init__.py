"""Files of adapters in the layouts of diffusers, peft, kohya and others: written, and read from anywhere. Imports
core."""
