"""A flow-matching transformer in one file, as ComfyUI has it, with the rest of its model in a folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import short_config
from flow_checkpoints import CHECKPOINTS
from smplora.cli.main import main
from smplora.core.console import forget_what_was_said
from smplora.core.errors import CheckpointError
from smplora.experiments.tasks import train
from smplora.models.load import load_model, usual_guidance
from smplora.runs.subject import load_subject

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
QUERY_KEY = (("q", "query"), ("k", "key"))
TRUE_WIDTH, WIDTH = 3072, 32  # of FLUX.1
Tensors = dict[str, Tensor]


def z_image(tensors: Tensors) -> Tensors:
    """Its original names: queries, keys and values in one matrix."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        match = re.search(r"\.attention\.to_([qkv])\.weight$", name)
        if match and match[1] == "q":
            stem = name[: match.start()]
            parts = [tensors[f"{stem}.attention.to_{letter}.weight"] for letter in "qkv"]
            found[f"{stem}.attention.qkv.weight"] = torch.cat(parts)
        elif not match:
            for ours, theirs in (
                ("all_final_layer.2-1.", "final_layer."), ("all_x_embedder.2-1.", "x_embedder."), ("to_out.0.", "out."),
                ("norm_k.", "k_norm."), ("norm_q.", "q_norm."),
            ):  # fmt: skip
                name = name.replace(ours, theirs)
            found[name] = tensor
    return {f"model.diffusion_model.{name}": tensor for name, tensor in found.items()}


BLOCK, SINGLE, TIME = r"transformer_blocks\.(\d+)\.", r"single_transformer_blocks\.(\d+)\.", r"time_text_embed\."
FLUX = (  # diffusers' layers -> Black Forest Labs'
    *((rf"{BLOCK}attn\.to_{x}", r"double_blocks.\1.img_attn.qkv") for x in "qkv"),
    *((rf"{BLOCK}attn\.add_{x}_proj", r"double_blocks.\1.txt_attn.qkv") for x in "qkv"),
    *((rf"{BLOCK}attn\.norm_{x}", rf"double_blocks.\1.img_attn.norm.{w}_norm.scale") for x, w in QUERY_KEY),
    *((rf"{BLOCK}attn\.norm_added_{x}", rf"double_blocks.\1.txt_attn.norm.{w}_norm.scale") for x, w in QUERY_KEY),
    (rf"{BLOCK}attn\.to_out\.0", r"double_blocks.\1.img_attn.proj"),
    (rf"{BLOCK}attn\.to_add_out", r"double_blocks.\1.txt_attn.proj"),
    (rf"{BLOCK}ff\.net\.(0|2)(\.proj)?", r"double_blocks.\1.img_mlp.\2"),
    (rf"{BLOCK}ff_context\.net\.(0|2)(\.proj)?", r"double_blocks.\1.txt_mlp.\2"),
    (rf"{BLOCK}norm1\.linear", r"double_blocks.\1.img_mod.lin"),
    (rf"{BLOCK}norm1_context\.linear", r"double_blocks.\1.txt_mod.lin"),
    *((rf"{SINGLE}{part}", r"single_blocks.\1.linear1") for part in (*(rf"attn\.to_{x}" for x in "qkv"), "proj_mlp")),
    *((rf"{SINGLE}attn\.norm_{x}", rf"single_blocks.\1.norm.{w}_norm.scale") for x, w in QUERY_KEY),
    (rf"{SINGLE}proj_out", r"single_blocks.\1.linear2"),
    (rf"{SINGLE}norm\.linear", r"single_blocks.\1.modulation.lin"),
    *((rf"{TIME}{a}_embedder\.linear_{n}", f"{b}_in.{way}_layer") for n, way in ((1, "in"), (2, "out"))
      for a, b in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance"))),
    ("context_embedder", "txt_in"), ("x_embedder", "img_in"), ("proj_out", "final_layer.linear"),
    (r"norm_out\.linear", "final_layer.adaLN_modulation.1"),
)  # fmt: skip
SD3 = (  # diffusers' layers -> Stability AI's
    *((rf"{BLOCK}attn\.to_{x}", r"joint_blocks.\1.x_block.attn.qkv") for x in "qkv"),
    *((rf"{BLOCK}attn\.add_{x}_proj", r"joint_blocks.\1.context_block.attn.qkv") for x in "qkv"),
    (rf"{BLOCK}attn\.to_out\.0", r"joint_blocks.\1.x_block.attn.proj"),
    (rf"{BLOCK}attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj"),
    *((rf"{BLOCK}ff{end}\.net\.{a}", rf"joint_blocks.\1.{side}_block.mlp.fc{b}")
      for end, side in (("", "x"), ("_context", "context")) for a, b in ((r"0\.proj", 1), (2, 2))),
    (rf"{BLOCK}norm1\.linear", r"joint_blocks.\1.x_block.adaLN_modulation.1"),
    (rf"{BLOCK}norm1_context\.linear", r"joint_blocks.\1.context_block.adaLN_modulation.1"),
    *((rf"{TIME}{a}_embedder\.linear_{n}", f"{b}_embedder.mlp.{at}") for n, at in ((1, 0), (2, 2))
      for a, b in (("timestep", "t"), ("text", "y"))),
    ("context_embedder", "context_embedder"), (r"pos_embed\.proj", "x_embedder.proj"),
    ("proj_out", "final_layer.linear"), (r"norm_out\.linear", "final_layer.adaLN_modulation.1"),
)  # fmt: skip
SWAPPED = r"(final_layer|joint_blocks\.1\.context_block)\.adaLN_modulation\.1\.\w+"  # shift and scale; of two blocks


def original(rules: Sequence[tuple[str, str]], start: str, tensors: Tensors) -> Tensors:
    """Layers under their names in the original checkpoint; those that get one name are one matrix, in this order."""
    rest, parts = dict(tensors), dict[str, list[Tensor]]()
    for pattern, target in rules:
        for name in tensors:
            if match := re.fullmatch(rf"{pattern}\.(weight|bias)", name):
                new = match.expand(target)
                end = "" if new.endswith(".scale") else f".{match[match.lastindex or 0]}"
                parts.setdefault(new + end, []).append(rest.pop(name))
    if "pos_embed.pos_embed" in rest:
        parts["pos_embed"] = [rest.pop("pos_embed.pos_embed")]
    assert not rest
    found = {name: torch.cat(tensors) for name, tensors in parts.items()}
    for name in found:
        if re.fullmatch(SWAPPED, name):
            found[name] = torch.cat(found[name].chunk(2)[::-1])
    return {start + name: tensor for name, tensor in found.items()}


PREFIX = "model.diffusion_model."
LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {
    "z_image": z_image,
    "qwen_image": dict,
    "flux": partial(original, FLUX, PREFIX),
    "sd3": partial(original, SD3, PREFIX),
}


@pytest.fixture(autouse=True)
def width_of_flux(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's conversion knows the width of FLUX.1 alone, which is a number in its code: here it is ours."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    convert = SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]["checkpoint_mapping_fn"]
    assert isinstance(convert, FunctionType)
    assert TRUE_WIDTH in convert.__code__.co_consts
    ours = tuple(WIDTH if c == TRUE_WIDTH else c for c in convert.__code__.co_consts)
    if "as_it_is" not in request.node.name:
        monkeypatch.setattr(convert, "__code__", convert.__code__.replace(co_consts=ours))


@pytest.fixture(params=[*LAYOUTS])
def apart(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A whole model; its transformer in a file; all the rest of it."""
    return taken_apart(request.param, LAYOUTS[request.param], tmp_path)


def taken_apart(family: str, layout: Callable[[Tensors], Tensors], folder: Path) -> tuple[Path, Path, Path]:
    """See ``apart``."""
    whole = CHECKPOINTS[family](folder / "whole")
    rest = Path(shutil.copytree(whole, folder / "rest"))
    (rest / "transformer" / WEIGHTS).unlink()
    file = folder / "transformer.safetensors"
    save_file(layout(load_file(whole / "transformer" / WEIGHTS)), file)
    return whole, file, rest


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        ("flux", partial(original, FLUX, "")), ("sd3", partial(original, SD3, "")),
        *((name, dict) for name in ("flux", "sd3", "z_image")),
    ],
    ids=["flux without prefix", "sd3 without prefix", "flux of diffusers", "sd3 of diffusers", "z_image of diffusers"],
)  # fmt: skip
def test_other_layouts(family: str, layout: Callable[[Tensors], Tensors], tmp_path: Path) -> None:
    whole, file, rest = taken_apart(family, layout, tmp_path)
    assert load_model(str(whole), CPU).digest == load_model(str(file), CPU, config=str(rest)).digest


def test_a_width_that_the_library_does_not_know_as_it_is(tmp_path: Path) -> None:
    """Of FLUX.1 that somebody made narrower: a line, and no model with wrong weights."""
    _, file, rest = taken_apart("flux", LAYOUTS["flux"], tmp_path)
    with pytest.raises(CheckpointError, match=r"does not fit .*config.json and cannot be used"):
        load_model(str(file), CPU, config=str(rest))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scaled", [False, True])
def test_eight_bits(
    apart: tuple[Path, Path, Path], kind: torch.dtype, scaled: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every weight is what the file says: the number in 8 bits times ComfyUI's scale of its matrix, in bf16."""
    whole, file, rest = apart
    tensors, written, read = load_file(file), Tensors(), Tensors()
    for number, (name, tensor) in enumerate(tensors.items()):
        matrix = tensor.ndim == 2 and name.endswith(".weight")
        scale = torch.tensor(0.25 + 0.01 * number) if scaled and matrix else torch.tensor(1.0)
        written[name] = (tensor / scale).to(kind) if matrix or not scaled else tensor.bfloat16()
        read[name] = (written[name].float() * scale).bfloat16()
        if scaled and matrix:
            layer = name.removesuffix(".weight")
            written |= {f"{layer}.scale_weight": scale, f"{layer}.scale_input": torch.tensor([3.0])}
    marks = {"scaled_fp8": torch.empty(0, dtype=kind)} if scaled else {}
    forget_what_was_said()
    save_file({**written, **marks}, file)
    found = load_model(str(file), CPU, config=str(rest)).denoiser
    said = capsys.readouterr().err
    assert "has weights in 8 bits: they are read as bf16, times their scales" in said
    assert "also holds" not in said
    save_file(read, file)
    expected = load_model(str(file), CPU, config=str(rest)).denoiser
    before = load_model(str(whole), CPU).denoiser.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
        assert (tensor - before[name]).norm() < 0.2 * before[name].norm() + 1e-6, name


def test_eight_bits_with_scales_of_parts(tmp_path: Path) -> None:
    _, file, rest = taken_apart("qwen_image", dict, tmp_path)
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(file).items()}
    layer = next(name for name, tensor in tensors.items() if tensor.ndim == 2).removesuffix(".weight")
    save_file({**tensors, f"{layer}.scale_weight": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match=rf"{layer}.weight has 2 scales, known is one"):
        load_model(str(file), CPU, config=str(rest))


@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_eight_bits_with_scales_by_another_name(name: str, tmp_path: Path) -> None:
    """Read without them, every weight would be wrong."""
    _, file, rest = taken_apart("qwen_image", dict, tmp_path)
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(file).items()}
    layer = next(name for name, tensor in tensors.items() if tensor.ndim == 2).removesuffix(".weight")
    save_file({**tensors, f"{layer}.{name}": torch.tensor(3.0)}, file)
    with pytest.raises(CheckpointError, match=rf"{layer}.{name}"):
        load_model(str(file), CPU, config=str(rest))


def test_it_is_the_same_model(apart: tuple[Path, Path, Path]) -> None:
    whole, file, rest = apart
    one, other = load_model(str(whole), CPU), load_model(str(file), CPU, config=str(rest))
    assert one.digest == other.digest
    assert all(map(torch.equal, one.denoiser.state_dict().values(), other.denoiser.state_dict().values()))
    assert usual_guidance(str(file)) == 1.0


def test_it_is_trained_and_audited(apart: tuple[Path, Path, Path], image_folder: Path, tmp_path: Path) -> None:
    _, file, rest = apart
    base = {"pretrained_model_name_or_path": str(file), "model_config": str(rest), "resolution": 32}
    run = train(short_config(image_folder, tmp_path / "run", max_train_steps=1, **base), progress=False)
    assert load_subject(str(run), None, "cpu").model.family in LAYOUTS


def test_what_is_wrong_with_a_file(
    apart: tuple[Path, Path, Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not read is said, what is missing refused, and the way out is named."""
    _, file, rest = apart
    tensors = load_file(file)
    forget_what_was_said()
    save_file({**tensors, "text_encoders.big": torch.ones(1000)}, tmp_path / "more.safetensors")
    load_model(str(tmp_path / "more.safetensors"), CPU, config=str(rest))
    assert "also holds 1,000 numbers that are not the transformer's, which are not used" in capsys.readouterr().err
    save_file(dict([*tensors.items()][1:]), tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"less.safetensors', which lacks weights that"):
        load_model(str(tmp_path / "less.safetensors"), CPU, config=str(rest))
    bytewise = {name: tensor.to(torch.int8) for name, tensor in tensors.items()}
    save_file(bytewise, tmp_path / "int8.safetensors")
    with pytest.raises(CheckpointError, match="has I8 numbers; take the file in bf16, fp16, fp32 or fp8"):
        load_model(str(tmp_path / "int8.safetensors"), CPU, config=str(rest))
    save_file({"nothing.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other.safetensors', which lacks weights that .*config.json"):
        load_model(str(tmp_path / "other.safetensors"), CPU, config=str(rest))
    words = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--aux_size", "10"]
    assert main(["train", *words, "--pretrained_model_name_or_path", str(file)]) == 2
    assert "--model_config names the diffusers folder with all its other parts" in capsys.readouterr().err
    other = json.loads((rest / "transformer" / "config.json").read_text())
    wider = "num_attention_heads" if "num_attention_heads" in other else "n_heads"
    layers = "num_layers" if "num_layers" in other else "n_layers"
    assert wider in other
    (rest / "transformer" / "config.json").write_text(json.dumps({**other, layers: other[layers] + 1}))
    wrong = r"lacks weights that|does not fit .*config.json and"  # SD 3's last block is of another shape
    with pytest.raises(CheckpointError, match=rf"transformer.safetensors', which ({wrong})"):
        load_model(str(file), CPU, config=str(rest))
