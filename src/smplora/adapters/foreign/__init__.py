"""What adapter files of other programs do to a base model. Imports files, lora, models and core."""
