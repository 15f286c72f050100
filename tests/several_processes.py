"""Run in several processes by training/test_distributed.py: train, then resume a copy from its middle."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from accelerate import PartialState

from smplora.config.train import TrainConfig
from smplora.core.errors import CheckpointError
from smplora.experiments.tasks import train

settings, target = json.loads(sys.argv[1]), Path(sys.argv[2])
processes = PartialState(cpu=True)
train(TrainConfig(**settings, output_dir=str(target / "two")), progress=False)
if processes.is_main_process:
    shutil.copytree(target / "two", target / "resumed")
processes.wait_for_everyone()
resumed = {**settings, "output_dir": str(target / "resumed"), "resume_from_checkpoint": "checkpoint-2"}
train(TrainConfig(**resumed), progress=False)
sharded = {
    **settings,
    "shard_base_model": True,
    "monitor_steps": 2,
    "validation_steps": 2,
    "validation_inference_steps": 2,
}
train(TrainConfig(**sharded, output_dir=str(target / "sharded")), progress=False)
try:  # a run of one process, taken up by two
    train(TrainConfig(**{**resumed, "train_batch_size": 4, "output_dir": str(target / "one")}), progress=False)
except CheckpointError as error:
    (target / f"refused-{processes.process_index}").write_text(str(error))
