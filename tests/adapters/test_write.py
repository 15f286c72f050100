"""What is published computes what was trained: adapters of every kind, written in both layouts, loaded by the stock
pipeline of each family, and read back by us."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from checkpoints import FAMILIES, build, stock
from conftest import short_config
from smplora.adapters.files.read import named_as, read_adapter
from smplora.adapters.files.write import (
    ADAPTER_FILE,
    KOHYA_FILE,
    AdapterFacts,
    LoraSettings,
    adapter_bytes,
    kohya_bytes,
)
from smplora.adapters.foreign.attach import attach_file
from smplora.adapters.lora import TEXT_TARGETS
from smplora.experiments.tasks import train
from smplora.models.diffusion import ATTENTION, TARGETS
from smplora.models.load import load_model
from smplora.runs.subject import load_subject

TEXT = TEXT_TARGETS["all"]
RANK, ALPHA = 4, 10.0
CASES: dict[str, dict[str, LoraSettings]] = {
    "attention": {"unet": LoraSettings(RANK, ALPHA, ATTENTION)},
    "all": {"unet": LoraSettings(RANK, ALPHA, TARGETS["all"])},
    "text encoders": {
        "unet": LoraSettings(RANK, ALPHA, TARGETS["all"]),
        "text_encoder": LoraSettings(3, 5.0, TEXT),
        "text_encoder_2": LoraSettings(2, 3.0, TEXT_TARGETS["attention"]),
    },
    "rank-stabilised": {
        "unet": LoraSettings(RANK, ALPHA, TARGETS["all"], use_rslora=True),
        "text_encoder": LoraSettings(3, 5.0, TEXT, use_rslora=True),
    },
    "dora": {
        "unet": LoraSettings(RANK, ALPHA, TARGETS["all"], use_dora=True),
        "text_encoder": LoraSettings(3, 5.0, TEXT, use_dora=True),
    },
}
FACTS = {
    "sd1": AdapterFacts("smp_lora", "sd_v1", 32, layers_per_block=1),
    "sd2_v": AdapterFacts("smp_lora", "sd_v2_v", 32, layers_per_block=1),
    "sdxl": AdapterFacts("smp_lora", "sdxl_base_v1-0", 32, layers_per_block=1),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: build(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@torch.no_grad()
def outputs(pipeline: Any) -> dict[str, Tensor]:
    """What each component computes on fixed inputs."""
    ids = torch.arange(1, 13)[None]
    generator = torch.Generator().manual_seed(3)
    unet = pipeline.unet
    states = torch.randn(1, 12, unet.config.cross_attention_dim, generator=generator)
    more = {}
    if unet.config.addition_embed_type:
        added = {"text_embeds": torch.randn(1, 24, generator=generator), "time_ids": torch.full((1, 6), 32.0)}
        more = {"added_cond_kwargs": added}
    found = {"unet": unet(torch.randn(1, 4, 8, 8, generator=generator), 500, states, **more).sample}
    for name in ("text_encoder", "text_encoder_2"):
        if encoder := getattr(pipeline, name, None):
            found[name] = encoder(ids, output_hidden_states=True).hidden_states[-1]
    return found


def adapt(pipeline: Any, components: Mapping[str, LoraSettings]) -> dict[str, Tensor]:
    """Random adapters that matter, through peft; returns their tensors under full names."""
    torch.manual_seed(1)
    state = {}
    for name, settings in components.items():
        part: nn.Module = getattr(pipeline, name)
        part.add_adapter(LoraConfig(**settings.peft_config()))  # type: ignore[operator]
        for parameter, value in part.named_parameters():
            if ".lora_" in parameter:
                value.data = value.data * 1.3 if "magnitude" in parameter else torch.randn_like(value) * 0.1
        own = get_peft_model_state_dict(part)
        state |= {f"{name}.{key}": tensor.detach().contiguous() for key, tensor in own.items()}
    return state


def worst(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """The largest error over the components, relative to the adapter's effect."""
    effects = {name: (ours[name] - base[name]).norm() for name in ours}
    adapted = {name: effect for name, effect in effects.items() if effect > 0}
    assert min(adapted.values()) > 1e-3
    assert all((theirs[name] - base[name]).norm() == 0 for name in effects.keys() - adapted.keys())
    return max(float((theirs[name] - ours[name]).norm() / effect) for name, effect in adapted.items())


@pytest.mark.parametrize(
    ("case", "family"),
    [
        ("attention", "sd1"),
        ("all", "sdxl"),
        *(("text encoders", family) for family in FAMILIES),
        ("rank-stabilised", "sdxl"),
        ("dora", "sd1"),
        ("dora", "sdxl"),
    ],
)
def test_the_stock_pipeline_computes_the_same(case: str, family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    trained = stock(family, folders[family])
    components = {n: s for n, s in CASES[case].items() if hasattr(trained, n)}
    base = outputs(trained)
    state = adapt(trained, components)
    ours = outputs(trained)
    contents = {
        ADAPTER_FILE: adapter_bytes(state, components, FACTS[family]),
        KOHYA_FILE: kohya_bytes(state, components, FACTS[family]),
    }
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content)
        if case != "dora" or file == ADAPTER_FILE:  # diffusers leaves kohya's dora_scale out, and says so
            pipeline = stock(family, folders[family])
            pipeline.load_lora_weights(tmp_path, weight_name=file)
            assert worst(ours, outputs(pipeline), base) < 1e-5, file
        back = read_adapter(tmp_path / file, layers_per_block=1)
        audited = load_model(str(folders[family]), torch.device("cpu"))
        attach_file(back, tmp_path / file, audited, family)
        assert worst(ours, outputs(SimpleNamespace(unet=audited.denoiser, **audited.text.encoders)), base) < 1e-5
        found = named_as(back.state, state)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)
        for module, rank in back.ranks.items():
            settings = components[module.partition(".")[0]]
            assert (rank, back.alphas[module] / rank) == (settings.rank, pytest.approx(settings.scale))


@pytest.mark.parametrize(("precision", "file", "error"), [("fp16", KOHYA_FILE, 2e-3), ("bf16", ADAPTER_FILE, 2e-2)])
def test_half_precision(precision: str, error: float, file: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Half the size; the error is that of the numbers' rounding, and alpha has none."""
    trained = stock("sd1", folders["sd1"])
    base = outputs(trained)
    components = {"unet": LoraSettings(3, 7.7, TARGETS["all"])}
    state = adapt(trained, components)
    ours = outputs(trained)
    pack = adapter_bytes if file == ADAPTER_FILE else kohya_bytes
    whole, half = (pack(state, components, FACTS["sd1"], precision=p) for p in ("float", precision))
    tensors = sum(t.numel() for t in state.values())
    assert len(whole) - len(half) == pytest.approx(2 * tensors, abs=300)
    (tmp_path / file).write_bytes(half)
    pipeline = stock("sd1", folders["sd1"])
    pipeline.load_lora_weights(tmp_path, weight_name=file)
    assert 1e-6 < worst(ours, outputs(pipeline), base) < error
    assert [*read_adapter(tmp_path / file).alphas.values()] == pytest.approx([7.7] * (len(state) // 2), abs=1e-6)


def test_a_trained_run_with_text_encoders(folders: dict[str, Path], image_folder: Path, tmp_path: Path) -> None:
    """The command's own files, of SDXL with both text encoders: the stock pipeline computes what is audited."""
    config = short_config(
        image_folder,
        tmp_path / "run",
        pretrained_model_name_or_path=str(folders["sdxl"]),
        max_train_steps=2,
        learning_rate=1e-2,
        lora_targets="all",
        lora_alpha=8,
        use_rslora=True,
        train_text_encoder=True,
        text_encoder_lr=1e-2,
    )
    run = train(config, progress=False)
    audited = load_subject(str(run), None, "cpu").model
    parts = {name: audited.component(name) for name in ("unet", "text_encoder", "text_encoder_2")}
    ours = outputs(SimpleNamespace(**parts))
    base = outputs(stock("sdxl", folders["sdxl"]))
    for file in (ADAPTER_FILE, KOHYA_FILE):
        pipeline = stock("sdxl", folders["sdxl"])
        pipeline.load_lora_weights(run, weight_name=file)
        assert worst(ours, outputs(pipeline), base) < 1e-5, file
