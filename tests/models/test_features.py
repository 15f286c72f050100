"""The networks of --features: Inception against torch-fidelity's, CLIP against its own forward pass; refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from encoder_folders import saved, saved_clip
from smplora.core.errors import CheckpointError, ConfigError
from smplora.models.encoders.features import load_extractor
from smplora.models.encoders.inception import Inception, load_inception
from smplora.models.encoders.transformers import ClipEncoder
from smplora.models.single_file import clip_tokenizer

CPU = torch.device("cpu")
IMAGES = torch.rand((3, 3, 20, 20), generator=torch.Generator().manual_seed(0))
THEIR_768 = [0.0, 0.0382, 0.4391, 0.0297, 0.4832, 0.2419, 0.0382, 0.3154]  # torch-fidelity's, every 96th
THEIR_2048 = [0.2054, 0.0, 0.0178, 1.1282, 0.2893, 0.5299, 0.5671, 0.0867]  # every 256th


def planted(dimensions: int) -> dict[str, torch.Tensor]:
    """Weights of the FID network from a seed, by the order of their names."""
    rng = torch.Generator().manual_seed(0)
    state = Inception(dimensions).state_dict()
    for name in sorted(state):
        drawn = torch.randn if name.endswith("conv.weight") else torch.rand
        values = drawn(state[name].shape, generator=rng) if state[name].dim() else state[name]
        if name.endswith("conv.weight"):
            values = values * (2 / values[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            values = values + 0.5
        state[name] = values
    return state


def test_inception_is_that_of_torch_fidelity(tmp_path: Path) -> None:
    """What torch-fidelity 0.3.0's network gave for these weights and this picture."""
    save_file({**planted(2048), "fc.weight": torch.zeros(1008, 2048)}, tmp_path / "inception.safetensors")
    network = load_inception(str(tmp_path / "inception.safetensors"), 2048)
    before = []
    network.Mixed_6e.register_forward_hook(lambda module, inputs, output: before.append(output.mean((2, 3))))
    found = network(torch.rand((1, 3, 299, 299), generator=torch.Generator().manual_seed(1)))
    np.testing.assert_allclose(found[0, 5::256], THEIR_2048, atol=2e-4)
    np.testing.assert_allclose(before[0][0, 5::96], THEIR_768, atol=2e-4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Mixed_6e.branch1x1.conv.weight": None}, "lacks Mixed_6e.branch1x1.conv.weight (1 of"),
        (
            {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 1, 3, 3)},
            "has Conv2d_1a_3x3.conv.weight of shape (32, 1, 3, 3)",
        ),
        ({"fc.weight": torch.zeros(1000, 2048)}, "knows 1000 classes: the network of torchvision"),
    ],
)
def test_other_networks_weights(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in ({**planted(768), **changes}).items() if tensor is not None}
    file = tmp_path / "inception.safetensors"
    save_file(state, file)
    with pytest.raises(CheckpointError) as error:
        load_extractor("inception-768", str(file), CPU)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_pickles_and_broken_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "inception.pth").write_bytes(b"pickle")
    (tmp_path / "half.safetensors").write_bytes(b"half a file")
    for name, reason in (("inception.pth", "pickles are not read"), ("half.safetensors", "cannot be read")):
        with pytest.raises(CheckpointError, match=reason) as error:
            load_extractor("inception-2048", str(tmp_path / name), CPU)
        assert "safetensors.torch as s; s.save_file" in str(error.value)


def test_clip_gives_unit_vectors_whose_products_are_its_similarities(tmp_path: Path) -> None:
    model = saved_clip(tmp_path)
    encoder = ClipEncoder(str(tmp_path), "cpu", "clip_score_model")
    captions = ["a handwritten five", "six", "a much longer caption " * 40]
    images, texts = encoder.embedding(IMAGES), encoder.read(captions)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    pictures = [np.uint8((i * 255).round().permute(1, 2, 0).numpy()) for i in IMAGES]
    pixels = transformers.AutoImageProcessor.from_pretrained(tmp_path)(images=pictures, return_tensors="pt")
    words = clip_tokenizer("<|endoftext|>")(captions, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        answer = model(pixel_values=pixels["pixel_values"], **words)
    torch.testing.assert_close(images @ texts.mT, answer.logits_per_image / model.logit_scale.exp().detach())


def test_transformers_features_by_name(tmp_path: Path) -> None:
    """Their weights are named by content, whatever the folder is called."""
    direct = saved("dino", tmp_path / "private name")
    extractor = load_extractor("dinov2", str(tmp_path / "private name"), CPU)
    prepared = transformers.AutoImageProcessor.from_pretrained(tmp_path / "private name")(
        images=[np.uint8((i * 255).round().permute(1, 2, 0).numpy()) for i in IMAGES], return_tensors="pt"
    )
    with torch.no_grad():
        torch.testing.assert_close(extractor.embed(IMAGES), direct(prepared["pixel_values"]).pooler_output)
    assert extractor.weights.startswith("sha256:")
    assert extractor.title(16) == "DINOv2, 16-d"


def test_clip_features_want_a_clip(tmp_path: Path) -> None:
    saved("dino", tmp_path)
    with pytest.raises(ConfigError, match="which is no CLIP but 'dinov2'"):
        load_extractor("clip", str(tmp_path), CPU)
