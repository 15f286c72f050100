"""What the files of a base model's folder may say: checked before a library builds anything by them.

A field of a configuration has a type and bounds here if it decides what is built. What diffusers' constructors take
besides must have its default: a model that needs it is none that smplora knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from smplora.core.errors import CheckpointError, UserError, is_out_of_memory
from smplora.core.reading import Unreadable, read_json

LARGEST_NUMBER = 2**20
BOUNDS = {  # words in the names of numbers of a network -> the most that there may be
    "theta": 10**12,  # of places; Mistral has 10^9
    "layer|depth|ratio": 1000,
    "channel|hidden|intermediate|patch|image|heads|projection|dim": 2**15,
}
LARGEST_IMAGE = 4096  # pixels that an image encoder may ask for
OWN_CODE = ("auto_map", "custom_pipelines")
QUANTISED = "quantization_config"

Width = Annotated[int, Field(ge=1, le=2**14)]
Depth = Annotated[int, Field(ge=1, le=64)]
Blocks = Annotated[int, Field(ge=0, le=64)]
Bias = Annotated[float, Field(gt=0, lt=1)]
Flag = bool | None
Token = str | dict[str, Any] | None
Names = Annotated[list[str], Field(min_length=1, max_length=16)]


class Stated(BaseModel):
    """Base of all files. What a file lacks has the library's default."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow", protected_namespaces=())
    diffusers_version: str | None = Field(None, alias="_diffusers_version")
    transformers_version: str | None = None


class UNetSettings(Stated):
    """unet/config.json, diffusers' UNet2DConditionModel."""

    class_name: Literal["UNet2DConditionModel"] = Field("UNet2DConditionModel", alias="_class_name")
    sample_size: Annotated[int, Field(ge=1, le=4096)]
    in_channels: Width = 4
    out_channels: Width = 4
    center_input_sample: Flag = None
    flip_sin_to_cos: Flag = None
    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    down_block_types: Names = Field(default_factory=list)
    mid_block_type: str | None = None
    up_block_types: Names = Field(default_factory=list)
    only_cross_attention: bool | list[bool] | None = None
    block_out_channels: Annotated[list[Width], Field(min_length=1, max_length=16)] = Field(default_factory=list)
    layers_per_block: Depth | list[Depth] = 2
    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 1
    mid_block_scale_factor: Annotated[float, Field(gt=0, le=100)] = 1
    dropout: Annotated[float, Field(ge=0, le=1)] = 0
    act_fn: str = "silu"
    norm_num_groups: Width = 32
    norm_eps: Bias = 1e-5
    cross_attention_dim: Width | list[Width] = 1280
    transformer_layers_per_block: Depth | list[Blocks | list[Blocks]] = 1
    reverse_transformer_layers_per_block: list[Blocks | list[Blocks]] | None = None
    attention_head_dim: Width | list[Width] = 8
    num_attention_heads: Width | list[Width] | None = None
    use_linear_projection: Flag = None
    addition_embed_type: Literal["text_time"] | None = None
    addition_time_embed_dim: Width | None = None
    addition_embed_type_num_heads: Width | None = None
    projection_class_embeddings_input_dim: Width | None = None
    upcast_attention: Flag = None
    time_cond_proj_dim: Width | None = None  # of models distilled for few steps; they do without
    resnet_out_scale_factor: Annotated[float, Field(gt=0, le=100)] = 1


class VaeSettings(Stated):
    """vae/config.json, diffusers' AutoencoderKL."""

    class_name: Literal["AutoencoderKL"] = Field("AutoencoderKL", alias="_class_name")
    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: Annotated[int, Field(ge=1, le=64)] = 4
    down_block_types: Names = Field(default_factory=list)
    up_block_types: Names = Field(default_factory=list)
    block_out_channels: Annotated[list[Width], Field(min_length=1, max_length=8)] = Field(default_factory=list)
    layers_per_block: Depth = 1
    act_fn: str = "silu"
    norm_num_groups: Width = 32
    sample_size: Annotated[int, Field(ge=1, le=2**16)] = 32
    scaling_factor: Annotated[float, Field(gt=0, le=1e6)] = 0.18215
    force_upcast: Flag = None
    use_quant_conv: Flag = None
    use_post_quant_conv: Flag = None
    mid_block_add_attention: Flag = None


class TextSettings(Stated):
    """text_encoder/config.json, transformers' CLIPTextConfig."""

    model_type: Literal["clip_text_model", "clip"] = "clip_text_model"
    vocab_size: Annotated[int, Field(ge=1, le=LARGEST_NUMBER)] = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    projection_dim: Width | None = 512
    num_hidden_layers: Annotated[int, Field(ge=1, le=128)] = 12
    num_attention_heads: Width = 8
    max_position_embeddings: Annotated[int, Field(ge=3, le=4096)] = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Bias = 1e-5
    attention_dropout: Annotated[float, Field(ge=0, le=1)] = 0
    bos_token_id: int | None = None
    eos_token_id: Annotated[int, Field(ge=0, le=LARGEST_NUMBER)] | None = None
    pad_token_id: int | None = None
    initializer_range: float = 0.02
    initializer_factor: float = 1
    architectures: list[Literal["CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"]] | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    torch_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    return_dict: Literal[True] | None = None
    output_hidden_states: Flag = None
    output_attentions: Flag = None


class ScheduleSettings(Stated):
    """scheduler/scheduler_config.json of any scheduler that adds noise as Stable Diffusion's does."""

    class_name: str = Field("DDPMScheduler", alias="_class_name")
    num_train_timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    beta_start: Bias  # these three have no default: the library's are another model's
    beta_end: Bias
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    trained_betas: Annotated[list[Bias], Field(min_length=2, max_length=100_000)] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    steps_offset: Annotated[int, Field(ge=0, le=100)] = 0
    rescale_betas_zero_snr: Flag = None
    set_alpha_to_one: Flag = None
    clip_sample: Flag = None
    clip_sample_range: Annotated[float, Field(gt=0)] = 1
    thresholding: Literal[False] | None = None  # of pixels; wrong for latents
    dynamic_thresholding_ratio: Annotated[float, Field(ge=0, le=1)] = 0.995
    sample_max_value: Annotated[float, Field(gt=0)] = 1


class TokenizerSettings(Stated):
    """tokenizer/tokenizer_config.json."""

    model_max_length: Annotated[float, Field(ge=3)] = 77  # unset it is 10^30 in the library
    tokenizer_class: Literal["CLIPTokenizer", "CLIPTokenizerFast"] | None = None
    bos_token: Token = None
    eos_token: Token = None
    pad_token: Token = None
    unk_token: Token = None


def _beside(name: str) -> str:
    if Path(name).name != name or Path(name).suffix != ".safetensors" or not name.isprintable():
        raise ValueError("the names of .safetensors files beside it")
    return name


Shard = Annotated[str, AfterValidator(_beside)]


class ShardIndex(Stated):
    """Which file of a folder holds which weight; the files lie beside it."""

    metadata: dict[str, Any]
    weight_map: Annotated[dict[str, Shard], Field(min_length=1)]


class PipelineIndex(Stated):
    """model_index.json: library and class of each part."""

    class_name: str = Field(alias="_class_name")
    unet: tuple[Literal["diffusers"], Literal["UNet2DConditionModel"]]
    vae: tuple[Literal["diffusers"], Literal["AutoencoderKL"]]
    scheduler: tuple[Literal["diffusers"], str]
    text_encoder: tuple[Literal["transformers"], Literal["CLIPTextModel", "CLIPTextModelWithProjection"]]
    tokenizer: tuple[Literal["transformers"], Literal["CLIPTokenizer", "CLIPTokenizerFast"]]
    text_encoder_2: tuple[Literal["transformers"], Literal["CLIPTextModelWithProjection"]] | None = None
    tokenizer_2: tuple[Literal["transformers"], Literal["CLIPTokenizer", "CLIPTokenizerFast"]] | None = None
    force_zeros_for_empty_prompt: bool = False


Kind = TypeVar("Kind", bound=Stated)


def read_text_file(path: Path, whose: str) -> Any:
    """JSON from outside.

    Args:
        whose: "--option got 'x', whose unet/config.json", for the message.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it cannot be used; see ``core.reading``.
    """
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"it has no {whose.rpartition('whose ')[2]}") from error
    except (OSError, Unreadable) as error:
        raise CheckpointError(f"{whose} cannot be used ({first_line(error)})") from error


def checked(content: Any, kind: type[Kind], whose: str, built: Any = None) -> Kind:
    """What a file says, as ``kind`` states it.

    Args:
        whose: as for ``read_text_file``.
        built: the library's class that is built by it: what it takes and ``kind`` does not state must be its default.

    Raises:
        CheckpointError: a field of another type or out of bounds; something that smplora does not know.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"{whose} holds {_shown(content)} where an object of settings is expected")
    for name in (*OWN_CODE, QUANTISED):
        if content.get(name) is not None:
            what = "quantised weights" if name == QUANTISED else "code of its own, which is never run"
            raise CheckpointError(f"{whose} has {name}: smplora reads no model that needs {what}")
    try:
        found = kind.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"{whose} {_said(error, content)}") from error
    defaults = {name: p.default for name, p in signature(built.__init__).parameters.items()} if built else {}
    for name, value in (found.model_extra or {}).items():
        if name in defaults and not (value is None or value is False or value == defaults[name]):
            raise CheckpointError(f"{whose} has {name} {_shown(value)}; smplora knows {_shown(defaults[name])} only")
    return found


def check_network(folder: Path, given: str, part: str = "") -> None:
    """Check the files of a network of transformers, such as an image encoder.

    Args:
        given: "--option got 'x'".
        part: how messages call the folder, such as "text_encoder/".

    Raises:
        CheckpointError: one that is damaged, names code of its own, or has a number that no network has.
    """
    for path in sorted(folder.iterdir()):
        whose = f"{given}, whose {part}{path.name}"
        if not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{whose} is neither a file nor a folder")
        if path.suffix == ".json":
            content = read_text_file(path, whose)
            if path.name in ("config.json", "preprocessor_config.json"):
                checked(content, Stated, whose)
                check_sizes(content, whose)
            elif ".safetensors.index." in path.name:
                checked(content, ShardIndex, whose)


def check_sizes(content: Any, whose: str) -> None:
    """Bounds for settings of any network of transformers, whose fields are not stated here.

    Raises:
        CheckpointError: a number that is not finite, or so large that building by it would not end.
    """
    for name, value in _numbers(content):
        images = whose.endswith("preprocessor_config.json")
        free = images or name.endswith("_id")
        most = next((most for words, most in BOUNDS.items() if not free and re.search(words, name)), LARGEST_NUMBER)
        most = LARGEST_IMAGE if images and "size" in name.partition(".")[0] else most
        if not math.isfinite(value) or abs(value) > most:
            raise CheckpointError(f"{whose} has {name} {_shown(value)}; allowed: at most {most}")


def _numbers(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _numbers(value, f"{name}.{key}" if name else key)
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value, name)
    elif isinstance(content, (int, float)):
        yield name, content


def _said(error: ValidationError, content: dict[str, Any]) -> str:
    """What is wrong with the first field that is."""
    problems = error.errors(include_url=False)
    field = str(problems[0]["loc"][0])
    if problems[0]["type"] == "missing" and len(problems[0]["loc"]) == 1:
        return f"lacks {field}"
    messages = (p["msg"].removeprefix("Input should be ") for p in problems if p["loc"][0] == field)
    allowed = dict.fromkeys(message.removeprefix("Value error, ") for message in messages)
    return f"has {field} {_shown(content[field])}; allowed: {' or '.join(allowed)}"


def _shown(value: Any) -> str:
    text = repr([*value] if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else f"{text[:80]}..."


@contextmanager
def building(say: Callable[[Exception], UserError]) -> Iterator[None]:
    """Inside, libraries build by what a stranger wrote: whatever they raise is the files' fault.

    Args:
        say: makes our error of theirs.

    Raises:
        UserError: in place of every exception but ours and those of a memory that is full.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise say(error) from error


def unusable(whose: str) -> Callable[[Exception], CheckpointError]:
    """For ``building``: "--option got 'x', whose unet/ cannot be used (the cause)"."""
    return lambda error: CheckpointError(f"{whose} cannot be used ({first_line(error)})")


def first_line(error: BaseException) -> str:
    """Of an exception's text, with the next where it ends in a colon; its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
    return text.partition(". If you want")[0]  # to load it all the same, as diffusers goes on
