"""Adapters of other trainers for flow-matching models: each layer gets what the file says, whatever its names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flow_checkpoints import CHECKPOINTS
from smplora.adapters.files.read import read_adapter
from smplora.adapters.foreign.attach import attach_file
from smplora.core.errors import CheckpointError
from smplora.models.flow import FlowMatching
from smplora.models.load import load_model

RANK, ALPHA = 2, 1.0
WIDTH = 48  # of the small Z-Image
FLUX_WIDTH = 3072  # its conversion knows no other
Pairs = dict[str, tuple[Tensor, Tensor]]  # A and B of layers by some trainer's names


def pairs(shapes: dict[str, tuple[int, int]]) -> Pairs:
    rng = torch.Generator().manual_seed(0)
    return {
        name: (torch.randn(RANK, inputs, generator=rng), torch.randn(outputs, RANK, generator=rng))
        for name, (outputs, inputs) in shapes.items()
    }


def kohya(of: Pairs, start: str = "lora_unet_") -> dict[str, Tensor]:
    """Also musubi-tuner's."""
    file: dict[str, Tensor] = {}
    for name, (a, b) in of.items():
        file |= {f"{start}{name}.lora_down.weight": a, f"{start}{name}.lora_up.weight": b}
        file |= {f"{start}{name}.alpha": torch.tensor(ALPHA)}
    return file


def peft(of: Pairs, start: str) -> dict[str, Tensor]:
    """Of ai-toolkit ("diffusion_model.") and diffusers ("transformer.")."""
    return {
        f"{start}{name}.lora_{side}.weight": half
        for name, halves in of.items()
        for side, half in zip("AB", halves, strict=True)
    }


def probe(a: Tensor) -> Tensor:
    """A of a vector that no part of a matrix leaves out."""
    return a @ torch.linspace(-1, 1, a.shape[1])


def changes(path: Path, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What each layer's change makes of a probe, by the transformer's names."""
    file = read_adapter(path, 0, transformer=True, convert=convert)
    modules = {name.removesuffix(".lora_A.weight") for name in file.state if name.endswith("lora_A.weight")}
    found = {}
    for module in modules:
        a, b = (file.state[f"{module}.lora_{side}.weight"] for side in "AB")
        found[module.removeprefix("transformer.")] = file.alphas[module] / len(a) * b @ probe(a)
    return found


Z_FUSED = {"layers_0_attention_qkv": (3 * WIDTH, WIDTH), "layers_0_attention_out": (WIDTH, WIDTH)}
Z_SPLIT = {"layers_1_attention_to_q": (WIDTH, WIDTH), "noise_refiner_0_attention_to_out_0": (WIDTH, WIDTH)}
Z_SPLIT |= {"layers_1_feed_forward_w1": (128, WIDTH)}


FLUX = {  # by kohya's names: as in the original checkpoint, at full width
    "double_blocks_0_img_attn_qkv": (3 * FLUX_WIDTH, FLUX_WIDTH),
    "double_blocks_0_txt_attn_proj": (FLUX_WIDTH, FLUX_WIDTH),
    "double_blocks_0_img_mlp_0": (4 * FLUX_WIDTH, FLUX_WIDTH),
    "single_blocks_0_linear1": (7 * FLUX_WIDTH, FLUX_WIDTH),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FlowMatching]:
    found = {}
    for name, make in CHECKPOINTS.items():
        model = load_model(str(make(tmp_path_factory.mktemp("flow") / name)), torch.device("cpu"))
        assert isinstance(model, FlowMatching)
        found[name] = model
    return found


def test_z_image_of_kohya_and_musubi_tuner(models: dict[str, FlowMatching], tmp_path: Path) -> None:
    """Names of diffusers, and those of the original checkpoint with one matrix for queries, keys and values."""
    of, convert = pairs({**Z_FUSED, **Z_SPLIT}), models["z_image"].converted_adapter
    save_file(kohya(of), tmp_path / "a.safetensors")
    whole = {name: ALPHA / RANK * b @ probe(a) for name, (a, b) in of.items()}
    fused = whole["layers_0_attention_qkv"].split(WIDTH)
    check(
        changes(tmp_path / "a.safetensors", convert),
        {
            **{f"layers.0.attention.to_{letter}": part for letter, part in zip("qkv", fused, strict=True)},
            "layers.0.attention.to_out.0": whole["layers_0_attention_out"],
            "layers.1.attention.to_q": whole["layers_1_attention_to_q"],
            "noise_refiner.0.attention.to_out.0": whole["noise_refiner_0_attention_to_out_0"],
            "layers.1.feed_forward.w1": whole["layers_1_feed_forward_w1"],
        },
    )
    twice = kohya(pairs({**Z_FUSED, "layers_0_attention_to_q": (WIDTH, WIDTH)}))
    save_file(twice, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="is in it twice, once as lora_unet_layers_0_attention"):
        changes(tmp_path / "b.safetensors", convert)


@pytest.mark.parametrize("start", ["diffusion_model.", "transformer."])
def test_z_image_of_ai_toolkit_and_diffusers(models: dict[str, FlowMatching], tmp_path: Path, start: str) -> None:
    of = pairs({"layers.0.attention.to_q": (WIDTH, WIDTH), "layers.0.attention.to_out.0": (WIDTH, WIDTH)})
    save_file(peft(of, start), tmp_path / "a.safetensors")
    found = changes(tmp_path / "a.safetensors", models["z_image"].converted_adapter)
    check(found, {name: b @ probe(a) for name, (a, b) in of.items()})


@pytest.mark.parametrize("family", ["flux", "chroma"])
def test_flux_of_kohya(models: dict[str, FlowMatching], tmp_path: Path, family: str) -> None:
    """Fused matrices are split: of single blocks queries, keys, values and the first half of the feed-forward part."""
    of = pairs(FLUX)
    save_file(kohya(of), tmp_path / "a.safetensors")
    whole = {name: ALPHA / RANK * b @ probe(a) for name, (a, b) in of.items()}
    queries, keys, values = whole["double_blocks_0_img_attn_qkv"].split(FLUX_WIDTH)
    single = whole["single_blocks_0_linear1"].split([FLUX_WIDTH] * 3 + [4 * FLUX_WIDTH])
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    check(
        changes(tmp_path / "a.safetensors", models[family].converted_adapter),
        {
            "transformer_blocks.0.attn.to_q": queries,
            "transformer_blocks.0.attn.to_k": keys,
            "transformer_blocks.0.attn.to_v": values,
            "transformer_blocks.0.attn.to_add_out": whole["double_blocks_0_txt_attn_proj"],
            "transformer_blocks.0.ff.net.0.proj": whole["double_blocks_0_img_mlp_0"],
            **{f"single_transformer_blocks.0.{name}": part for name, part in zip(parts, single, strict=True)},
        },
    )


def test_qwen_image_of_musubi_tuner_and_ai_toolkit(models: dict[str, FlowMatching], tmp_path: Path) -> None:
    dotted = (
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.1.attn.add_q_proj",
        "transformer_blocks.0.img_mlp.net.2",
    )
    of, path = pairs(dict.fromkeys(dotted, (8, 8))), tmp_path / "a.safetensors"
    convert = models["qwen_image"].converted_adapter
    save_file(kohya({name.replace(".", "_"): halves for name, halves in of.items()}), path)
    check(changes(path, convert), {name: ALPHA / RANK * b @ probe(a) for name, (a, b) in of.items()})
    save_file(peft(of, "diffusion_model."), path)
    check(changes(path, convert), {name: b @ probe(a) for name, (a, b) in of.items()})


def test_stable_diffusion_3_of_kohya_and_ai_toolkit(models: dict[str, FlowMatching], tmp_path: Path) -> None:
    shapes = {
        "joint_blocks_0_x_block_attn_qkv": (48, 16), "joint_blocks_0_context_block_attn_qkv": (48, 16),
        "joint_blocks_0_x_block_attn_proj": (16, 16), "joint_blocks_0_context_block_attn_proj": (16, 16),
        "joint_blocks_0_x_block_mlp_fc1": (64, 16), "joint_blocks_0_context_block_mlp_fc2": (16, 64),
    }  # fmt: skip
    of, path, convert = pairs(shapes), tmp_path / "a.safetensors", models["sd3"].converted_adapter
    save_file(kohya(of), path)
    whole = [ALPHA / RANK * b @ probe(a) for a, b in of.values()]
    block, letters = "transformer_blocks.0", "qkv"
    check(
        changes(path, convert),
        {
            **{f"{block}.attn.to_{x}": part for x, part in zip(letters, whole[0].split(16), strict=True)},
            **{f"{block}.attn.add_{x}_proj": part for x, part in zip(letters, whole[1].split(16), strict=True)},
            f"{block}.attn.to_out.0": whole[2],
            f"{block}.attn.to_add_out": whole[3],
            f"{block}.ff.net.0.proj": whole[4],
            f"{block}.ff_context.net.2": whole[5],
        },
    )
    plain = pairs({"transformer_blocks.0.attn.to_q": (16, 16)})
    save_file(peft(plain, "diffusion_model."), path)
    check(changes(path, convert), {name: b @ probe(a) for name, (a, b) in plain.items()})


def test_flux_2_of_musubi_tuner(models: dict[str, FlowMatching], tmp_path: Path) -> None:
    of = pairs({"double_blocks_0_img_attn_qkv": (96, 32), "single_blocks_0_linear1": (288, 32)})
    save_file(kohya(of), tmp_path / "a.safetensors")
    first, second = (ALPHA / RANK * b @ probe(a) for a, b in of.values())
    queries, keys, values = first.split(32)
    check(
        changes(tmp_path / "a.safetensors", models["flux2"].converted_adapter),
        {
            "transformer_blocks.0.attn.to_q": queries,
            "transformer_blocks.0.attn.to_k": keys,
            "transformer_blocks.0.attn.to_v": values,
            "single_transformer_blocks.0.attn.to_qkv_mlp_proj": second,
        },
    )


def check(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        torch.testing.assert_close(found[name], change, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", ["lora_transformer_", "lycoris_"])
@pytest.mark.parametrize("family", CHECKPOINTS)
def test_names_without_dots(models: dict[str, FlowMatching], tmp_path: Path, family: str, start: str) -> None:
    """OneTrainer's, and those that SimpleTuner writes with LyCORIS: every layer that a LoRA can be on, and magnitudes
    and layers of nobody are refused."""
    ends = models[family].lora_targets["all"]
    layers = {
        name: (module.out_features, module.in_features)
        for name, module in models[family].denoiser.named_modules()
        if name.endswith(ends) and isinstance(module, torch.nn.Linear)
    }
    of, path = pairs(layers), tmp_path / "a.safetensors"
    file = kohya({name.replace(".", "_"): halves for name, halves in of.items()}, start)
    save_file(file, path)
    expected = {name: ALPHA / RANK * b @ probe(a) for name, (a, b) in of.items()}
    assert len(expected) > 5
    check(changes(path, models[family].converted_adapter), expected)
    one = next(iter(file)).partition(".")[0]
    for more in (f"{one}.dora_scale", f"{start}nobody_0.alpha"):
        save_file({**file, more: torch.ones(1)}, path)
        with pytest.raises(CheckpointError, match=r"1 of its \d+ tensors are not understood"):
            attached(path, models[family])


def attached(path: Path, model: FlowMatching) -> None:
    attach_file(read_adapter(path, 0, transformer=True, convert=model.converted_adapter), path, model, "base")


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_what_would_be_lost_is_refused(models: dict[str, FlowMatching], tmp_path: Path, family: str) -> None:
    """Layers that a conversion passes over in silence or that no transformer of the family has, and magnitudes."""
    known, strange = {
        "chroma": ("double_blocks_0_img_mlp_2", "double_blocks_0_img_mlp_9"),
        "flux": ("double_blocks_0_img_mlp_2", "double_blocks_0_img_mlp_9"),
        "flux2": ("double_blocks_0_img_mlp_2", "double_blocks_0_img_mlp_9"),
        "flux2_dev": ("double_blocks_0_img_mlp_2", "double_blocks_0_img_mlp_9"),
        "qwen_image": ("transformer_blocks_0_attn_to_q", "transformer_blocks_0_attn_to_x"),
        "sd3": ("joint_blocks_0_x_block_attn_proj", "joint_blocks_0_x_block_adaLN_modulation_1"),
        "z_image": ("layers_0_attention_to_q", "layers_0_attention_to_x"),
    }[family]
    good, path = kohya(pairs({known: (8, 8)})), tmp_path / "a.safetensors"
    for more in (
        kohya(pairs({strange: (8, 8)})),
        {f"lora_unet_{known}.dora_scale": torch.ones(8, 1)},
        {f"lora_unet_{known}.diff_b": torch.ones(8)},
        kohya(pairs({"down_blocks_0_attentions_0_proj_in": (8, 8)})),
    ):
        save_file({**good, **more}, path)
        with pytest.raises(CheckpointError, match=r"--adapter"):
            attached(path, models[family])
    save_file(good, path)
    assert len(changes(path, models[family].converted_adapter)) == 1
