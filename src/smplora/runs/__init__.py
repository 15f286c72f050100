"""Run folders, what is audited of them, base models by name, files of other trainers. Imports data, adapters, config,
models, results, core."""
