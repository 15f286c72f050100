"""Adapter files on the bundled model: in every layout what they add to the weights, and the base model untouched."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from smplora.adapters.files.read import read_adapter
from smplora.adapters.foreign.attach import attach_file
from smplora.core.errors import CheckpointError
from smplora.models.adapted import Adapted
from smplora.models.diffusion import LatentDiffusion
from smplora.models.load import load_model

ORIGINAL = {  # of the bundled model, which has one layer in each block
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": "input_blocks.3.1.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
    "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.2": "output_blocks.1.1.transformer_blocks.0.ff.net.2",
    "down_blocks.0.resnets.0.time_emb_proj": "input_blocks.1.0.emb_layers.1",
    "up_blocks.1.resnets.1.time_emb_proj": "output_blocks.3.0.emb_layers.1",
    "time_embedding.linear_1": "time_embed.0",
}
CONVOLUTIONS = {
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0.conv_shortcut": "output_blocks.2.0.skip_connection",
    "conv_out": "out.2",
}
TEXT = "text_model.encoder.layers.0.mlp.fc1"
RANK, ALPHA = 3, 6.0
Layout = Callable[[str, str, str], str]


def dotted(start: str, clip: str, original: bool, sides: dict[str, str]) -> Layout:
    def name(component: str, module: str, side: str) -> str:
        if component == "text_encoder":
            return f"{clip}{module}.{sides[side]}"
        return f"{start}{ ({**ORIGINAL, **CONVOLUTIONS}[module] if original else module) }.{sides[side]}"

    return name


def flat(start: str, clip: str, original: bool) -> Layout:
    def name(component: str, module: str, side: str) -> str:
        module = {**ORIGINAL, **CONVOLUTIONS}.get(module, module) if original else module
        return f"{clip if component != 'unet' else start}{module.replace('.', '_')}.{KOHYA[side]}"

    return name


KOHYA = {"A": "lora_down.weight", "B": "lora_up.weight", "alpha": "alpha"}
PEFT = {"A": "lora_A.weight", "B": "lora_B.weight", "alpha": "alpha"}
LAYOUTS: dict[str, Layout] = {
    "kohya": flat("lora_unet_", "lora_te_", False),
    "kohya, original names": flat("lora_unet_", "lora_te1_", True),
    "LyCORIS": flat("lycoris_", "lycoris_", False),
    "peft": dotted("unet.", "text_encoder.", False, PEFT),
    "peft, wrapped": dotted("unet.base_model.model.", "text_encoder.base_model.model.", False, PEFT),
    "ComfyUI": dotted("diffusion_model.", "text_encoders.clip_l.transformer.", True, PEFT),
    "ComfyUI, saved": dotted("model.diffusion_model.", "clip_l.transformer.", True, KOHYA),
    "OneTrainer": dotted("unet.", "clip_l.", True, KOHYA),
}


@cache
def tiny() -> LatentDiffusion:
    return load_model("tiny", torch.device("cpu"))


def predict(model: LatentDiffusion) -> Tensor:
    torch.manual_seed(1)
    latents, steps = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    tokens = model.text.tokens(["a zero", "seven"], 32)
    with torch.no_grad():
        return model.predict(latents, steps, model.text.embed(tokens))


def halves(model: LatentDiffusion, modules: dict[str, str]) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Random A and B of each module."""
    torch.manual_seed(0)
    made = {}
    for component, module in [*(("unet", m) for m in modules), ("text_encoder", TEXT.removeprefix("text_model."))]:
        weight = model.component(component).get_submodule(module).weight
        ones = (1,) * (weight.dim() - 2)
        full = module if component == "unet" else f"text_model.{module}"
        made[component, full] = torch.randn(RANK, *weight.shape[1:]) * 0.2, torch.randn(len(weight), RANK, *ones) * 0.2
    return made


def added(model: LatentDiffusion, changes: dict[tuple[str, str], Tensor]) -> LatentDiffusion:
    """A copy with the weights changed: what every layout must compute."""
    other = deepcopy(model)
    for (component, module), change in changes.items():
        weight = other.component(component).get_submodule(module.removeprefix("text_model.")).weight
        weight.data += change.reshape(weight.shape)
    return other


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_computes_the_same(layout: str, tmp_path: Path) -> None:
    base, name = tiny(), LAYOUTS[layout]
    made = halves(base, ORIGINAL | CONVOLUTIONS)
    tensors = {}
    for (component, module), (a, b) in made.items():
        tensors |= {name(component, module, "A"): a, name(component, module, "B"): b}
        tensors[name(component, module, "alpha")] = torch.tensor(ALPHA)
    save_file(tensors, tmp_path / "a.safetensors")
    products = {place: ALPHA / RANK * b.flatten(1) @ a.flatten(1) for place, (a, b) in made.items()}
    expected, before = predict(added(base, products)), predict(base)
    model = deepcopy(base)
    file = read_adapter(tmp_path / "a.safetensors", layers_per_block=1)
    adaptation = attach_file(file, tmp_path / "a.safetensors", model, "tiny")
    assert adaptation.components(model) == ["unet", "text_encoder"]
    assert model.text_is_trained
    torch.testing.assert_close(predict(model), expected, atol=1e-4, rtol=1e-4)
    with adaptation.base(model):
        assert torch.equal(predict(model), before)
    torch.testing.assert_close(predict(model), expected, atol=1e-4, rtol=1e-4)


def lycoris(name: str, weight: Tensor, tucker: bool = False) -> dict[str, Tensor]:
    """Factors of a LoKr (linear) or a LoHa (convolution, by a Tucker form if told so) for a weight."""
    rows, columns, kernel = len(weight), weight.shape[1], weight.shape[2:]
    if weight.dim() == 2:
        parts = {"lokr_w1": torch.randn(2, 2), "lokr_w2_a": torch.randn(rows // 2, RANK)}
        parts["lokr_w2_b"] = torch.randn(RANK, columns // 2)
    elif tucker:
        parts = {f"hada_{w}_{s}": torch.randn(RANK, n) for w in ("w1", "w2") for s, n in (("a", rows), ("b", columns))}
        parts |= {f"hada_t{k}": torch.randn(RANK, RANK, *kernel) for k in (1, 2)}
    else:
        parts = {f"hada_{w}_a": torch.randn(rows, RANK) for w in ("w1", "w2")}
        parts |= {f"hada_{w}_b": torch.randn(RANK, weight[0].numel()) for w in ("w1", "w2")}
    return {f"{name}.{part}": tensor * 0.3 for part, tensor in parts.items()} | {f"{name}.alpha": torch.tensor(ALPHA)}


def test_a_mixed_file_does_all_that_it_says(tmp_path: Path) -> None:
    """LoKr, LoHa, a plain pair, a pair with a bias, a whole difference and a norm's; white boxes see each dW."""
    base = tiny()
    torch.manual_seed(3)
    unet = base.denoiser
    linear, conv, core = "time_embedding.linear_2", "down_blocks.0.resnets.0.conv1", "mid_block.resnets.0.conv1"
    pair, norm, whole = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "conv_norm_out", "conv_out"
    tensors = lycoris("unet." + linear, unet.get_submodule(linear).weight)
    tensors |= lycoris("unet." + conv, unet.get_submodule(conv).weight)
    tensors |= lycoris("unet." + core, unet.get_submodule(core).weight, tucker=True)
    a, b = torch.randn(RANK, 64) * 0.3, torch.randn(64, RANK) * 0.3
    tensors |= {f"unet.{pair}.lora_A.weight": a, f"unet.{pair}.lora_B.weight": b}
    tensors |= {"unet.out.0.w_norm": torch.randn(32), "unet.out.0.b_norm": torch.randn(32)}
    tensors |= {"lora_unet_out_2.diff": torch.randn(4, 32, 3, 3), "lora_unet_out_2.diff_b": torch.randn(4)}
    tensors["unet.time_embedding.linear_2.diff_b"] = torch.randn(len(unet.get_submodule(linear).bias))
    save_file(tensors, tmp_path / "a.safetensors")
    file = read_adapter(tmp_path / "a.safetensors", layers_per_block=1)
    products = {name: file.differences[f"unet.{name}.weight"].tensor() for name in (linear, conv, core, whole, norm)}
    products[pair] = b @ a
    expected = added(base, {("unet", name): product for name, product in products.items()})
    for name, key in ((linear, "unet.time_embedding.linear_2.diff_b"), (whole, "lora_unet_out_2.diff_b"),
                      (norm, "unet.out.0.b_norm")):  # fmt: skip
        expected.denoiser.get_submodule(name).bias.data += tensors[key]
    model = deepcopy(base)
    adaptation = attach_file(file, tmp_path / "a.safetensors", model, "tiny")
    torch.testing.assert_close(predict(model), predict(expected), atol=1e-4, rtol=1e-4)
    with adaptation.base(model):
        assert torch.equal(predict(model), predict(base))
    assert not model.text_is_trained
    layers = Adapted(model, adaptation).layers
    dense = {layer: update for layer, update in layers.updates.items() if update is not None}
    found = {name: dense[model.denoiser.get_submodule(name)]() for name in (linear, conv, core, whole)}
    assert len(dense) == len(found) == len(layers.base) - 1
    for name, update in found.items():
        torch.testing.assert_close(update, products[name].reshape(update.shape), atol=1e-5, rtol=1e-4)
    state = {name: tensor.clone() for name, tensor in adaptation.state_dict(model).items()}
    adaptation.load_state_dict(model, {name: tensor * 2 for name, tensor in state.items()})
    assert all(torch.equal(tensor, 2 * state[name]) for name, tensor in adaptation.state_dict(model).items())
    with pytest.raises(KeyError, match="do not match"):
        adaptation.load_state_dict(model, dict(list(state.items())[1:]))


MISFITS = {
    "conv_in.lora_A.weight": ((2, 4, 5, 5), "unet.conv_in maps 36 numbers to 32, the file's 100 to 32"),
    "mid_block.resnets.0.time_emb_proj.lora_A.weight": ((2, 32, 2, 2), "maps 128 numbers to 64, the file's 128 to 32"),
    "down_blocks.0.resnets.0.conv2.lora_A.weight": (
        (2, 96, 3, 1),
        "has weights of shape (32, 32, 3, 3), the file's of",
    ),
    "conv_norm_out.lora_A.weight": ((2, 32), "it has no layer unet.conv_norm_out"),
    "down_blocks.0.motion_modules.0.proj.lora_A.weight": ((2, 4), "the file is of AnimateDiff"),
}


@pytest.mark.parametrize("key", MISFITS)
def test_what_does_not_fit_is_said(key: str, tmp_path: Path) -> None:
    shape, words = MISFITS[key]
    ones = (1,) * (len(shape) - 2)
    tensors = {f"unet.{key}": torch.ones(shape), f"unet.{key.replace('_A', '_B')}": torch.ones(32, 2, *ones)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(words)):
        attach_file(read_adapter(tmp_path / "a.safetensors"), tmp_path / "a.safetensors", deepcopy(tiny()), "tiny")


def test_differences_of_nothing_change_nothing(tmp_path: Path) -> None:
    save_file({"unet.conv_in.diff": torch.zeros(32, 4, 3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="changes nothing"):
        attach_file(read_adapter(tmp_path / "a.safetensors"), tmp_path / "a.safetensors", deepcopy(tiny()), "tiny")
