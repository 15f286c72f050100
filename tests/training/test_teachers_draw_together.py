"""Teachers that draw each image together, by the mean of their predictions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import short_config
from smplora.cli.main import main
from smplora.core.random_streams import stream_seed
from smplora.core.reading import json_lines
from smplora.experiments.tasks import train
from smplora.runs.folder import DONE
from smplora.runs.subject import load_subject
from smplora.training.synthesis import FOLDER, TABLE
from smplora.training.teachers import TEACHERS

STEPS, GUIDANCE = 2, 3.0
DRAWN: dict[str, Any] = {
    "objective": "synth_lora", "synthetic_teachers": 2, "teachers_draw": "together", "num_synthetic_images": 4,
    "synthetic_inference_steps": STEPS, "synthetic_guidance_scale": GUIDANCE, "sample_batch_size": 3,
    "learning_rate": 1e-2, "max_train_steps": 2, "teacher_steps": 3,
}  # fmt: skip
ADAPTATIONS: dict[str, dict[str, Any]] = {
    "lora": {"train_text_encoder": True, "lora_dropout": 0.5},
    "full": {"adaptation": "full", "objective": "synth_lora"},
    "textual_inversion": {
        "adaptation": "textual_inversion",
        "instance_prompt": "a <sks>",
        "placeholder_token": "<sks>",
        "initializer_token": "digit",
    },
}  # fmt: skip


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_images_are_of_the_mean_prediction(image_folder: Path, tmp_path: Path, adaptation: str) -> None:
    """As of teachers that are loaded one by one, each with its own text encoder, and guided each by itself."""
    config = short_config(image_folder, tmp_path / "run", **{**DRAWN, **ADAPTATIONS[adaptation]})
    run = train(config, progress=False)
    rows = [row for _, row in json_lines((run / FOLDER / TABLE).read_text())]
    models = [load_subject(str(run / TEACHERS / f"teacher-{k}"), None, "cpu").model for k in range(2)]
    size, captions = models[0].resolution, [row["text"] for row in rows]
    assert not torch.equal(*(model.generate(captions[:1], [0], **how(size)) for model in models))

    def mean(text: str, noised: Tensor, t: Tensor, _: Mapping[str, Tensor]) -> Tensor:
        guided = []
        for model in models:
            without, with_caption = (
                model.predict(noised, t, model.text.embed(model.text.tokens([caption], size))) for caption in ("", text)
            )
            guided.append(without + GUIDANCE * (with_caption - without))
        return sum(guided) / 2  # type: ignore[return-value]

    for i, text in enumerate(captions):
        seeds = [stream_seed(config.seed, "synthetic image", i)]
        steps = {"resolution": size, "num_inference_steps": STEPS}
        alone = models[0].decode(models[0].sample({}, None, seeds, predict=partial(mean, text), **steps))
        drawn = np.asarray(Image.open(run / FOLDER / rows[i]["file_name"]), dtype=float)
        assert np.abs(drawn - alone[0].permute(1, 2, 0).numpy() * 255).max() <= 1


def test_distilled_text_encoders(image_folder: Path, tmp_path: Path) -> None:
    """Teachers' files name them as diffusers does, which may differ from the model's names."""
    few = {"teacher_steps": 1, "max_train_steps": 1, "train_text_encoder": True}
    config = short_config(image_folder, tmp_path / "run", objective="distill_lora", **few)
    assert (train(config, progress=False) / DONE).exists()


def how(size: int) -> dict[str, Any]:
    return {"resolution": size, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}


def test_one_teacher_cannot_draw_together(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    assert main([*words, "--objective", "synth_lora", "--teachers_draw", "together"]) == 2
    assert "--teachers_draw together needs several teachers; give --synthetic_teachers 2" in capsys.readouterr().err
