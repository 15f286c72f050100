"""Options of adapters that learn from images drawn by a private teacher. docs/training.md is their guide."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Optional

from smplora.config.checks import at_least, at_most, existing_file
from smplora.config.dreambooth import CAPTION

SYNTHETIC = "synth_lora"
TRAINING, RECOMBINED = "training", "recombined"  # captions that are drawn; anything else is a file
OF_TEACHERS = ("lora", "mp_lora", "smp_lora", "dp_lora", "distill_lora")
MOST_DPM_STEPS = 100  # with many more diffusers does not begin at pure noise
IN_TURN, TOGETHER = "in_turn", "together"  # how several teachers draw
BALANCED = "balanced"  # of --drop_nearest
IMAGES_PER_IMAGE = 5  # drawn by default for each training image


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    num_synthetic_images: Optional[int] = None
    """With --objective synth_lora: images that the teacher draws and the adapter learns from; fewer give away less. Default: five for each training image."""
    synthetic_teachers: int = 1
    """With --objective synth_lora: teachers. Of several, each learns from its own part of the training images."""
    teachers_draw: Literal["in_turn", "together"] = "in_turn"
    """With several teachers: each draws its share of the images, or all draw each image together, by the mean of their predictions."""
    teacher_objective: Literal["lora", "mp_lora", "smp_lora", "dp_lora", "distill_lora"] = "lora"
    """With --objective synth_lora: what teachers minimise. With dp_lora the adapter keeps their guarantee, whatever its own steps."""
    synthetic_captions: str = TRAINING
    """With --objective synth_lora: what is drawn. 'training' (their captions in turn), 'recombined' (their tags, mixed) or a text file, a caption a line."""
    synthetic_guidance_scale: Optional[float] = None
    """With --objective synth_lora: classifier-free guidance of the drawn images; 1 is none. Default: 7.5; 1 for the bundled model and flow matching."""
    synthetic_inference_steps: int = 25
    """With --objective synth_lora: sampling steps of a drawn image."""
    synthetic_sampler: Literal["ddim", "dpmsolver++", "euler"] = "ddim"
    """With --objective synth_lora: what draws; all three are deterministic, and dpmsolver++ needs fewest steps."""
    drop_nearest: float | Literal["balanced"] = 0.0
    """With --objective synth_lora: share of the drawn images to leave out, those nearest to a training image; 'balanced': until held-out images lie as near."""


def synthetic_problems(options: Any) -> list[str]:
    """What is wrong, one line each."""
    if options.objective != SYNTHETIC:
        changed = [f.name for f in fields(SyntheticOptions) if getattr(options, f.name) != f.default]
        return [f"--{name} is of --objective {SYNTHETIC}; leave it out with {options.objective}" for name in changed]
    captions = options.synthetic_captions
    own_file = captions not in (TRAINING, RECOMBINED)
    problems = [
        *at_least(options, ("num_synthetic_images",), 2),
        *at_least(options, ("synthetic_teachers", "synthetic_guidance_scale", "synthetic_inference_steps"), 1),
        *(existing_file(captions, "synthetic_captions", f"'{TRAINING}', '{RECOMBINED}' or a text file") * own_file),
    ]
    if options.teachers_draw == TOGETHER and options.synthetic_teachers < 2:
        problems.append(
            f"--teachers_draw {TOGETHER} needs several teachers; give --synthetic_teachers 2 or more, or leave it out"
        )
    if options.drop_nearest != BALANCED:
        problems += [*at_least(options, ("drop_nearest",), 0), *at_most(options, ("drop_nearest",), 0.9)]
    if options.synthetic_sampler == "dpmsolver++" and options.synthetic_inference_steps > MOST_DPM_STEPS:
        problems.append(
            f"--synthetic_inference_steps got {options.synthetic_inference_steps}; allowed with --synthetic_sampler "
            f"dpmsolver++: {MOST_DPM_STEPS} or less (25 do)"
        )
    if captions != TRAINING and CAPTION not in options.wording:
        problems.append(
            f"--synthetic_captions got '{captions}', but --instance_prompt '{options.wording}' has no place for a caption: "
            "put {caption} into it"
        )
    if options.hessian_steps:
        problems.append(f"--objective {SYNTHETIC} needs --hessian_steps 0: curvature is measured of the loss on images")
    if options.teacher_objective != "dp_lora":
        return problems
    wanted = {  # what else would tell of the images without noise
        "--synthetic_captions FILE: those of the training images are not covered by the guarantee": not own_file,
        "--synthetic_teachers 1: with one image more, all others could change their part": (
            options.synthetic_teachers != 1
        ),
        "--drop_nearest 0: what is dropped depends on the training images": options.drop_nearest,
        "--num_synthetic_images: the usual number tells how many training images there are": (
            options.num_synthetic_images is None
        ),
    }
    return problems + [f"--teacher_objective dp_lora needs {what}" for what, wrong in wanted.items() if wrong]
