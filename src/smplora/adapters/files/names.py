"""What the tensors of an adapter file are: module and part of each name, in every layout that is read.

kohya       ``lora_unet_<module>.lora_down.weight``, ``lora_te_``, ``lora_te1_``, ``lora_te2_``, ``lycoris_``; _ for .
peft        ``unet.<module>.lora_A.weight``, ``base_model.model.<module>..``, ``unet.base_model.model.<module>..``
diffusers   ``unet.<module>.lora.down.weight``, ``.processor.to_q_lora.down.weight``, ``.lora_linear_layer.up.weight``
OneTrainer  ``unet.<module>.lora_down.weight``, ``clip_l.<module>..``, ``clip_g.<module>..``
ComfyUI     ``diffusion_model.<module>.lora_A.weight``, ``text_encoders.clip_l.transformer.<module>..``

Modules of the U-Net have diffusers' names or those of the original checkpoint, in every layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from smplora.adapters.files.families import other_family
from smplora.adapters.files.kohya import PREFIXES, known_module, module_name

DOTTED = {  # how dotted names begin -> the component
    "unet.": "unet",
    "model.diffusion_model.": "unet",
    "diffusion_model.": "unet",
    **{f"{start}{clip}.{inner}": component for clip, component in
       (("clip_l", "text_encoder"), ("clip_h", "text_encoder"), ("clip_g", "text_encoder_2"))
       for start in ("text_encoders.", "") for inner in ("transformer.", "")},
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
}  # fmt: skip
TRANSFORMER = "transformer."
WRAPPER = "base_model.model."  # what peft puts before the names of a network that it wraps
PRODUCTS = (  # factors of LoHa and LoKr, see products.py
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
PARTS = {
    "lora_down.weight": "A",
    "lora_up.weight": "B",
    "lora_mid.weight": "mid",
    "alpha": "alpha",
    "dora_scale": "dora_scale",
    "diff": "weight",
    "w_norm": "weight",
    "diff_b": "bias",
    "b_norm": "bias",
}
FOREIGN = {  # parts of a name -> what the file holds that is not read
    r"\.lora_(A|B|up|down)(\.\w+)?\.bias$": "a bias beside the low-rank matrices",
    r"\.oft_|\.boft_": "OFT (orthogonal rotations)",
    r"\.on_input$|\.ia3_": "IA3",
    r"\.[ab][12m]\.weight$": "GLoRA",
    r"\.vera_": "VeRA",
    r"\.lora_embedding_": "a low-rank adapter of an embedding table",
    r"\.(bias_indices|bias_values|bias_size|scalar|rescale|lokr_t1|reshape_weight|set_weight)$": "a part of LyCORIS'",
    r"(^|\.)bundle_emb": "nameless embeddings",
}
_SIDES = {"down": "A", "up": "B"}
_CLIP = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_ADAPTER = r"(?:\.(?!bias$)\w+)?"  # the name that peft gives an adapter may follow its part's
_PART = re.compile(rf"(.+?)\.({'|'.join(re.escape(part) for part in PARTS)})")
_PRODUCT = re.compile(rf"(.+?)\.({'|'.join(PRODUCTS)}){_ADAPTER}")
_OLD = re.compile(r"(.+?)(?:\.processor)?\.(to_[qkv]|to_out)_lora\.(down|up)\.weight")
_DIFFUSERS = re.compile(r"(.+?)\.(?:lora|lora_linear_layer)\.(down|up)\.weight")
_PEFT = re.compile(rf"(.+?)\.lora_(?:(A|B){_ADAPTER}\.weight|(magnitude_vector){_ADAPTER}(?:\.weight)?)")
_EMBEDDING = re.compile(r"bundle_emb\.(.+)\.[^.]+")


@dataclass(frozen=True)
class Names:
    """What the tensors of a file are."""

    parts: dict[str, dict[str, str]]  # module -> part -> the file's name for the tensor
    layout: str  # "kohya", "diffusers" or "peft"
    embeddings: tuple[str, ...]  # words whose learned embeddings the file also holds (OneTrainer's bundles)


def understand(keys: Iterable[str], layers_per_block: int = 2, transformer: bool = False) -> Names:
    """Every tensor's module ("unet.<module>", "text_encoder.text_model.<module>") and part: "A", "B", "mid" (low-rank),
    ``PRODUCTS``, "weight" and "bias" (whole differences), "alpha", "dora_scale" or "magnitude_vector" (peft's).

    Args:
        layers_per_block: of the base model's U-Net; only names of the original checkpoint need it.
        transformer: it may be of a transformer, "transformer.<module>", whose modules are not looked at.

    Raises:
        ValueError: a name that is not understood, two names for one tensor, or nothing but embeddings.
    """
    keys = list(keys)
    parts: dict[str, dict[str, str]] = {}
    layouts, words = set(), dict[str, None]()
    for key in keys:
        if match := _EMBEDDING.fullmatch(key):
            words[match[1]] = None
            continue
        try:
            module, part, layout = _understood(key, layers_per_block, transformer)
        except ValueError as error:
            family = other_family(keys)
            if not family:
                raise
            raise ValueError(
                f"{key} is in no part of Stable Diffusion 1.x, 2.x or SDXL that smplora adapts: the file is of "
                f"{family}; give its base model"
            ) from error
        layouts.add(layout)
        own = parts.setdefault(module, {})
        if part in own:
            raise ValueError(f"{module} is in it twice, as {own[part]} and as {key}")
        own[part] = key
    if not parts:
        raise ValueError("it holds learned embeddings and no adapter" if words else "it holds no tensors")
    layout = next((name for name in ("kohya", "diffusers") if name in layouts), "peft")
    return Names(parts, layout, tuple(words))


def _understood(key: str, layers_per_block: int, transformer: bool) -> tuple[str, str, str]:
    """(module, part, layout) of one name.

    Raises:
        ValueError: none of the layouts.
    """
    kind = next((what for mark, what in FOREIGN.items() if re.search(mark, key)), None)
    if kind:
        raise ValueError(f"it holds {kind}, in {key} among others, which smplora does not read")
    flat = key.startswith(tuple(PREFIXES))

    def dotted(name: str) -> str:
        whole = transformer and name.startswith(TRANSFORMER)
        return name if whole else _dotted_module(name, layers_per_block)

    if match := _PART.fullmatch(key) or _PRODUCT.fullmatch(key):
        part = PARTS.get(match[2], match[2])
        if flat:
            return module_name(match[1], layers_per_block), part, "kohya"
        name = _old_module(match[1]) if part == "alpha" else match[1]
        layout = "peft" if match[2] in PRODUCTS else "diffusers"
        return dotted(name), part, layout
    if match := _OLD.fullmatch(key):
        return dotted(_old_module(f"{match[1]}.{match[2]}")), _SIDES[match[3]], "diffusers"
    if match := _DIFFUSERS.fullmatch(key):
        return dotted(_old_module(match[1])), _SIDES[match[2]], "diffusers"
    if match := _PEFT.fullmatch(key):
        if flat:
            return module_name(match[1], layers_per_block), match[2] or match[3], "kohya"
        return dotted(match[1]), match[2] or match[3], "peft"
    raise ValueError(f"{key} is in no layout that smplora knows (kohya, diffusers, peft)")


def is_part(key: str) -> bool:
    """Whether a tensor's name is one of an adapter's, of whatever model."""
    return any(pattern.fullmatch(key) for pattern in (_PART, _PRODUCT, _PEFT, _DIFFUSERS, _OLD))


def _old_module(module: str) -> str:
    """Today's name of a module in a file of 2023, whose layers were named after the attention processor's."""
    owner, _, layer = module.replace(".processor.", ".").removesuffix("_lora").rpartition(".")
    if owner.endswith("self_attn"):
        return f"{owner}.{_CLIP.get(layer, layer)}"
    return f"{owner}.{layer}.0" if layer == "to_out" else f"{owner}.{layer}"


def _dotted_module(name: str, layers_per_block: int) -> str:
    """The full name of a module in a layout that keeps the dots.

    Raises:
        ValueError: it is in no part of the models that smplora knows.
    """
    name = name.removeprefix(WRAPPER)
    start = next((p for p in DOTTED if name.startswith(p)), "")
    rest = name.removeprefix(start).removeprefix(WRAPPER)
    return known_module(f"{DOTTED[start]}.{rest}" if start else rest, layers_per_block)
