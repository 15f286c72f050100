"""Adapter files of other trainers: the same adapter in every layout reads as the same tensors and alphas."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from smplora.adapters.files.read import AdapterFile, named_as, read_adapter
from smplora.core.errors import CheckpointError

BLOCK = "unet.down_blocks.1.attentions.0.transformer_blocks.0"
CLIP = "text_encoder.text_model.encoder.layers.3"
MODULES = {  # module -> (inputs, outputs)
    f"{BLOCK}.attn1.to_q": (6, 5),
    f"{BLOCK}.attn2.to_out.0": (5, 5),
    f"{BLOCK}.ff.net.0.proj": (5, 8),
    f"{CLIP}.self_attn.q_proj": (4, 4),
    f"{CLIP}.self_attn.out_proj": (4, 4),
    f"{CLIP}.mlp.fc1": (4, 7),
}
RANK, ALPHA = 3, 7.0


def adapter() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {}
    for module, (inputs, outputs) in MODULES.items():
        state[f"{module}.lora_A.weight"] = torch.randn(RANK, inputs)
        state[f"{module}.lora_B.weight"] = torch.randn(outputs, RANK)
    return state


def halves(name: str) -> tuple[str, str, str]:
    """(module, "A", "down")."""
    module, _, rest = name.partition(".lora_")
    return module, rest[0], {"A": "down", "B": "up"}[rest[0]]


def kohya(state: dict[str, Tensor], original: bool = False) -> dict[str, Tensor]:
    found = {}
    for name, tensor in state.items():
        module, _, side = halves(name)
        flat = module.replace(".", "_")
        first = "lora_te1" if original else "lora_te"
        flat = flat.replace("text_encoder_", f"{first}_") if flat.startswith("text") else f"lora_{flat}"
        flat = flat.replace("down_blocks_1_attentions_0", "input_blocks_4_1") if original else flat
        found |= {f"{flat}.lora_{side}.weight": tensor, f"{flat}.alpha": torch.tensor(ALPHA)}
    return found


def comfyui(name: str) -> str:
    name = name.replace("unet.down_blocks.1.attentions.0", "diffusion_model.input_blocks.4.1")
    return name.replace("text_encoder.", "text_encoders.clip_l.transformer.")


def onetrainer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in state.items():
        module, _, side = halves(comfyui(name))
        module = module.replace("diffusion_model.", "unet.").replace("text_encoders.clip_l.transformer", "clip_l")
        found |= {f"{module}.lora_{side}.weight": tensor, f"{module}.alpha": torch.tensor(ALPHA)}
    return found


def of_2023(name: str) -> str:
    module, _, side = halves(name)
    owner, _, layer = module.removesuffix(".0").rpartition(".")
    if layer in ("to_q", "to_out"):
        return f"{owner}.processor.{layer}_lora.{side}.weight"
    if owner.endswith("self_attn"):
        return f"{owner}.{ {'q_proj': 'to_q', 'out_proj': 'to_out'}[layer] }_lora.{side}.weight"
    return f"{module}.lora_linear_layer.{side}.weight" if "mlp" in module else f"{module}.lora.{side}.weight"


def of_official_scripts(name: str) -> str:
    """Attention and text encoder renamed, the rest left: what diffusers' scripts write."""
    module, _, side = halves(name)
    if module.startswith("text"):
        return f"{module.replace('text_model.', '')}.lora_linear_layer.{side}.weight"
    return f"{module}.lora.{side}.weight" if ".to_" in module else name


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata)
    return path


def check(file: AdapterFile, alpha: float, only: str = "") -> None:
    expected = {name: tensor for name, tensor in adapter().items() if name.startswith(only)}
    assert file.state.keys() == expected.keys()
    assert all(torch.equal(file.state[name], expected[name]) for name in expected)
    assert file.ranks == {module: RANK for module in MODULES if module.startswith(only)}
    assert file.alphas == {module: alpha for module in MODULES if module.startswith(only)}


LOADER = {"unet.r": RANK, "unet.lora_alpha": ALPHA, "text_encoder.r": RANK, "text_encoder.lora_alpha": ALPHA}


def test_every_layout_reads_alike(tmp_path: Path) -> None:
    state = adapter()
    layouts: dict[str, tuple[dict[str, Tensor], dict[str, str] | None, float]] = {
        "kohya": (kohya(state), None, ALPHA),
        "kohya, SDXL": (kohya(state, original=True), None, ALPHA),
        "diffusers, 2023": ({of_2023(n): t for n, t in state.items()}, None, RANK),
        "diffusers, official scripts": ({of_official_scripts(n): t for n, t in state.items()}, None, RANK),
        "diffusers, OneTrainer": (onetrainer(state), None, ALPHA),
        "kohya, LyCORIS": ({n.replace("lora_unet_", "lycoris_"): t for n, t in kohya(state).items()}, None, ALPHA),
        "peft, ComfyUI": ({comfyui(n): t for n, t in state.items()}, None, RANK),
        "peft, wrapped": ({n.replace("unet.", "unet.base_model.model."): t for n, t in state.items()}, None, RANK),
        "peft": (state, {"lora_adapter_metadata": json.dumps(LOADER)}, ALPHA),
        "peft, no word of alpha": (state, None, RANK),
        "peft, adapter's name": ({n.replace(".weight", ".default.weight"): t for n, t in state.items()}, None, RANK),
    }
    for name, (tensors, metadata, alpha) in layouts.items():
        file = read_adapter(write(tmp_path / f"{name}.safetensors", tensors, metadata))
        check(file, alpha)
        assert file.layout == name.partition(",")[0]


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_unprefixed_files_are_of_the_unet(prefix: str, tmp_path: Path) -> None:
    """``save_attn_procs`` and peft's ``save_pretrained`` write the U-Net alone; the latter puts alpha beside it."""
    tensors = {f"{prefix}{n.removeprefix('unet.')}": t for n, t in adapter().items() if n.startswith("unet.")}
    path = write(tmp_path / "adapter_model.safetensors", tensors)
    check(read_adapter(path), RANK, "unet.")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 2.0, "use_rslora": True}))
    check(read_adapter(path), 2 * RANK**0.5, "unet.")


def test_alpha_by_module(tmp_path: Path) -> None:
    told = {**LOADER, "unet.alpha_pattern": {"attn1.to_q": 1.5}}
    file = read_adapter(write(tmp_path / "a.safetensors", adapter(), {"lora_adapter_metadata": json.dumps(told)}))
    assert file.alphas[f"{BLOCK}.attn1.to_q"] == 1.5
    assert file.alphas[f"{BLOCK}.attn2.to_out.0"] == ALPHA


def test_one_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    state = adapter()
    a, b = f"{BLOCK}.attn1.to_q.lora_A.weight", f"{CLIP}.mlp.fc1.lora_B.weight"
    twins = {
        a: (
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
            "unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_down.weight",
            "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
            f"{BLOCK}.attn1.to_q.lora_A.other.weight",
            f"{BLOCK}.attn1.processor.to_q_lora.down.weight",
        ),
        b: (b.replace("text_model.", ""), "clip_l.text_model.encoder.layers.3.mlp.fc1.lora_B.weight"),
    }
    for name, others in twins.items():
        for other in others:
            with pytest.raises(CheckpointError) as error:
                read_adapter(write(tmp_path / "a.safetensors", {**state, other: state[name]}))
            module = name.partition(".lora_")[0]
            assert f"{module} is in it twice, as " in str(error.value), other
            assert name in str(error.value)
            assert other in str(error.value)


def test_embeddings_beside_an_adapter_are_named(tmp_path: Path) -> None:
    bundle = {
        f"bundle_emb.{word}.{clip}": torch.ones(2, 4) for word in ("a cat", "b.c") for clip in ("clip_l", "clip_g")
    }
    file = read_adapter(write(tmp_path / "a.safetensors", kohya(adapter()) | bundle))
    check(file, ALPHA)
    assert file.embeddings == ("a cat", "b.c")


def test_settings_beside_are_part_of_the_adapter(tmp_path: Path) -> None:
    path, digests = write(tmp_path / "adapter_model.safetensors", adapter()), set()
    for alpha in (1, 2):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        digests.add(read_adapter(path).sha256)
    assert len(digests) == 2


def test_names_of_the_model_at_hand(tmp_path: Path) -> None:
    file = read_adapter(write(tmp_path / "a.safetensors", adapter()))
    flat = {name.replace("text_model.", "") for name in adapter()}
    assert named_as(file.state, flat).keys() == flat
    assert named_as(file.state, file.state) == file.state


NAME = "lora_unet_mid_block_attentions_0_proj_in"
PAIR = {f"{NAME}.lora_up.weight": torch.ones(4, 2, 1, 1)}
DOWN, MID, MAGNITUDE = f"{NAME}.lora_down.weight", f"{NAME}.lora_mid.weight", f"{NAME}.dora_scale"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight": torch.ones(2, 4, 3, 3)},
         "unet.down_blocks.0.resnets.0.conv1 lacks its lora_B half"),
        ({**PAIR, DOWN: torch.ones(2, 4, 1, 1), MID: torch.ones(2, 3, 3, 3)}, "lora_mid (2, 3, 3, 3) and lora_down"),
        ({f"{NAME}.hada_w1_a": torch.ones(4, 2)}, "factors that do not fit or are not complete: hada_w1_a (4, 2)"),
        ({f"{NAME}.lokr_w1": torch.ones(4, 2)}, "factors that do not fit or are not complete: lokr_w1 (4, 2)"),
        ({f"{NAME}.lokr_w1": torch.ones(4, 2), f"{NAME}.lokr_w2": torch.ones(2, 2), MAGNITUDE: torch.ones(4, 1)},
         "DoRA magnitudes beside what is no low-rank pair"),
        ({**PAIR, DOWN: torch.ones(2, 4, 1, 1), f"{NAME}.diff": torch.ones(4, 4)}, "is changed in two ways, by lora"),
        ({**PAIR, DOWN: torch.ones(2, 4, 1, 1), f"{NAME}.lora_up.bias": torch.ones(4)}, "a bias beside the low-rank"),
        ({"unet.mid_block.x.lora_B.bias": torch.ones(4)}, "a bias beside the low-rank matrices, in unet.mid_block.x"),
        ({f"{NAME}.oft_blocks": torch.ones(4)}, "OFT (orthogonal rotations)"),
        ({f"{NAME}.a1.weight": torch.ones(4)}, "GLoRA"),
        ({f"{NAME}.lora_up.weight": torch.ones(4, 0), DOWN: torch.ones(0, 4)}, "is empty, of shape"),
        ({**PAIR, DOWN: torch.ones(2, 4, 1, 1).bool()}, "holds 8 numbers of type bool"),
        ({**PAIR, DOWN: torch.ones(2, 4, 1, 1) * 1j}, "holds 8 numbers of type complex64"),
        ({**PAIR, DOWN: torch.ones(2, 4, 1, 1), f"{NAME}.alpha": torch.ones(3)}, "an alpha is one"),
        ({**PAIR, DOWN: torch.ones(2, 4, 1, 1), f"{NAME}.alpha": torch.tensor(float("inf"))}, "not numbers"),
        ({"bundle_emb.cat.clip_l": torch.ones(1, 4)}, "it holds learned embeddings and no adapter"),
        (PAIR, "unet.mid_block.attentions.0.proj_in lacks its lora_A half"),
        ({**PAIR, DOWN: torch.ones(3, 4, 1, 1)}, "halves that do not fit: (3, 4, 1, 1) and (4, 2, 1, 1)"),
        (
            {**PAIR, DOWN: torch.ones(2, 3, 1, 1), MAGNITUDE: torch.ones(1, 3, 1, 1)},
            "a DoRA magnitude per input",
        ),
        ({"transformer.blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 4)}, "in no part of Stable Diffusion"),
        ({"conv_in.weight": torch.ones(2, 4)}, "conv_in.weight is in no layout that smplora knows"),
        ({"unet.mid_block.x.lora_A.weight": torch.tensor([[float("nan")]]),
          "unet.mid_block.x.lora_B.weight": torch.ones(1, 1)}, "values that are not numbers"),
        ({}, "it holds no tensors"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(tensors: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(CheckpointError) as error:
        read_adapter(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    for suffix in (".ckpt", ".pt", ".bin"):
        path = tmp_path / f"adapter{suffix}"
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(CheckpointError, match="a pickle, which can run any program when it is read"):
            read_adapter(path)
    assert not (tmp_path / "exploded").exists()
