"""Run folders, what is audited of them, base models by name, files of other trainers. Imports data, adapters, attacks,
config, models, results, core."""
