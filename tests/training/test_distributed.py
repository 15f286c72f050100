"""Two processes (gloo) train as one with the doubled batch, resume exactly, and refuse another number of processes."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import warm
from conftest import short_config
from smplora.experiments.tasks import train
from smplora.training.batches import members_first


def write_shapes(folder: Path) -> Path:
    """24 pictures of three shapes, so that batches of aux members and non-members differ in theirs; with tags."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(24):
        size = ((32, 32), (24, 40), (48, 24))[k % 3]
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{k:02d}.png")
        (folder / f"{k:02d}.txt").write_text(f"noise, number {k}, grey")
    return folder


def launch(script: Path, *arguments: str, processes: int = 2) -> None:
    """Run a script as torchrun does, from one warm process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with tempfile.TemporaryFile("w+") as stderr:
        started = []
        for rank in map(str, range(processes)):
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            environment = os.environ | place | ranks
            started.append(warm.start(*arguments, program=script.read_text(), env=environment, stderr=stderr))
        while any(process.poll() is None for process in started):
            if any(process.poll() for process in started):  # the others would wait for it
                [process.kill() for process in started if process.poll() is None]
            time.sleep(0.05)
        stderr.seek(0)
        assert not any(process.returncode for process in started), stderr.read()


@pytest.mark.parametrize(("model", "learns_text", "sharing"), [("tiny", True, "aux"), ("tiny-flow", False, "none")])
def test_two_processes_are_one_with_the_doubled_batch(
    model: str, learns_text: bool, sharing: str, tmp_path: Path
) -> None:
    config = short_config(
        write_shapes(tmp_path / "shapes"),
        tmp_path / "one",
        aux_size=4,
        enable_bucket=True,
        bucket_reso_steps=8,
        random_flip=True,
        shuffle_caption=True,
        caption_dropout_rate=0.2,
        use_ema=True,
        train_batch_size=4,
        gradient_accumulation_steps=2,
        pretrained_model_name_or_path=model,
        train_text_encoder=learns_text,
        learning_rate=1e-4,
        max_train_steps=4,
        checkpointing_steps=2,
        proxy_learning_rate=1e-4,
        proxy_sharing=sharing,
    )
    train(config, progress=False)
    settings = {**asdict(config), "train_batch_size": 2}
    del settings["output_dir"]
    launch(Path(__file__).parents[1] / "several_processes.py", json.dumps(settings), str(tmp_path))

    last = "checkpoints/checkpoint-4"
    for name in ("adapter_state", "proxy", "ema"):
        one, *others = (load_file(tmp_path / run / last / f"{name}.safetensors") for run in ("one", "two", "sharded"))
        for other in others:
            assert one.keys() == other.keys()
            assert max((one[key] - other[key]).abs().max().item() for key in one) < 1e-5
    moved = load_file(tmp_path / "one" / "checkpoints/checkpoint-2/adapter_state.safetensors")
    learned = load_file(tmp_path / "one" / last / "adapter_state.safetensors")
    part = "text_encoder" if learns_text else ""
    assert any(not torch.equal(now, moved[key]) for key, now in learned.items() if key.startswith(part))
    metrics = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("one", "two", "resumed")]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in metrics]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=0)
    assert losses[2] == losses[1]
    for path in sorted((tmp_path / "two" / last).glob("*.safetensors")):
        assert (tmp_path / "resumed" / last / path.name).read_bytes() == path.read_bytes(), path.name
    for process in (0, 1):
        assert "was trained by 1 processes, and now there would be 2" in (tmp_path / f"refused-{process}").read_text()


def test_gathered_shares_are_the_whole_batch_in_its_order() -> None:
    members, others = torch.arange(6), torch.arange(10, 16)
    shares = [torch.cat([members[2 * p : 2 * p + 2], others[2 * p : 2 * p + 2]]) for p in range(3)]
    assert torch.equal(members_first(torch.cat(shares)[:, None], 3)[:, 0], torch.cat([members, others]))
