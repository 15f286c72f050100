"""What the adapter minimises, one file an objective, and the game of MP-LoRA and SMP-LoRA as one object. Imports
config, models, core; methods take plain arguments. To add an objective, add a file and a line in
config/catalogue/objectives.py."""
