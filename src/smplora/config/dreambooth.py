"""Options of DreamBooth: a token in the captions, and images of the class that the model is to keep as they are. They
go with every adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from smplora.config.checks import at_least, existing_folder

CAPTION = "{caption}"


@dataclass(frozen=True, kw_only=True)
class DreamBoothOptions:
    instance_prompt: Optional[str] = None
    """The caption of every private image; {caption} stands for its own caption. Default: '{caption}'; for --adaptation dreambooth 'sks {caption}'."""
    with_prior_preservation: Optional[bool] = None
    """Train on images of --class_prompt too, drawn by the base model beforehand, so that the model keeps what it knows. Default: only for --adaptation dreambooth."""
    class_prompt: Optional[str] = None
    """With prior preservation: what the images show, without what is special about them, such as 'a photo of a dog'."""
    num_class_images: int = 100
    """With prior preservation: images of the class."""
    class_data_dir: Optional[str] = None
    """With prior preservation: where images of the class are; those that are missing are drawn and kept there. Default: class_images in the run folder."""
    prior_loss_weight: float = 1.0
    """With prior preservation: weight of these images' adaptation loss."""
    sample_batch_size: int = 4
    """With prior preservation or --objective synth_lora: images drawn at once."""


PRIOR_OPTIONS = ("class_prompt", "num_class_images", "class_data_dir", "prior_loss_weight", "sample_batch_size")


def dreambooth_problems(options: DreamBoothOptions, preserves: bool, draws: bool) -> list[str]:
    """What is wrong, one line each.

    Args:
        draws: whether images are drawn for other reasons too.
    """
    of_prior = [name for name in PRIOR_OPTIONS if not (draws and name == "sample_batch_size")]
    set_options = [f"--{name}" for name in of_prior if getattr(options, name) != getattr(DreamBoothOptions, name)]
    lonely = f"{', '.join(set_options)}: of --with_prior_preservation true; add it or leave them out"
    missing = (
        "--class_prompt is missing: give what the images show, such as 'a photo of a dog', or "
        "--with_prior_preservation false"
    )
    empty = options.instance_prompt is not None and not options.instance_prompt.strip()
    return [
        *([lonely] if set_options and not preserves else []),
        *([missing] if preserves and not (options.class_prompt or "").strip() else []),
        *([f"--instance_prompt got '{options.instance_prompt}'; give words, or leave it out"] if empty else []),
        *at_least(options, ("num_class_images",), 2),
        *at_least(options, ("sample_batch_size",), 1),
        *at_least(options, ("prior_loss_weight",), 0),
        *existing_folder(options.class_data_dir, "class_data_dir"),
    ]
