"""What depends on the base model and on the data is filled in: the split, and the options without a value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from smplora.config.budget import parse_budget
from smplora.config.checks import MOST_OF
from smplora.config.synthetic import IMAGES_PER_IMAGE, SYNTHETIC
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError, SplitError
from smplora.data.final import final_split
from smplora.data.pool import open_source, read_samples
from smplora.data.prepare import check_edges
from smplora.data.split import MANIFEST, Split, make_split, read_split
from smplora.models.diffusion import LatentDiffusion
from smplora.models.flow import FlowMatching
from smplora.models.load import usual_guidance
from smplora.runs.generate import check_inference_steps
from smplora.runs.rehearsal import kept_out
from smplora.training.monitor import with_intervals

LOOKS = 20  # at the leakage, with --privacy_budget


def load_split(config: TrainConfig, sealed: Path) -> Split:
    """The split that the run was started with, if it was; else that of ``--split_manifest``, or a new one.

    Raises:
        SplitError: images or captions changed since, or the manifest is another one.
    """
    samples = read_samples(open_source(config))
    if config.final and not sealed.exists():
        return final_split(read_split(Path(config.final) / MANIFEST, samples), kept_out(config))
    named = read_split(Path(config.split_manifest), samples) if config.split_manifest else None
    option = "num_canaries" if config.num_canaries else "canaries_dir"
    asked = getattr(config, option)
    if named and asked and not named.canaries:
        raise SplitError(
            f"--{option} got '{asked}', but --split_manifest '{config.split_manifest}' says who is who and has no "
            f"canaries; give --{option} to 'smplora split', or leave it out"
        )
    if not sealed.exists():
        return named or make_split(samples, config)
    started = read_split(sealed, samples)
    if named and named.seal != started.seal:
        raise SplitError(
            f"--split_manifest '{config.split_manifest}' is not the split that '{sealed.parent}' was started with"
        )
    return started


def flow_options(config: TrainConfig, model: LatentDiffusion) -> dict[str, Any]:
    """The options of flow matching that depend on the model.

    Raises:
        ConfigError: options of the other kind of model.
    """
    name = config.pretrained_model_name_or_path
    if not isinstance(model, FlowMatching):
        for option in ("weighting_scheme", "quantize"):
            if getattr(config, option) is not None:
                raise ConfigError(f"--{option} is of flow matching; '{name}' predicts {model.prediction_type}")
        return {}
    wrong = {
        "--snr_gamma": config.snr_gamma is not None,
        "--synthetic_sampler dpmsolver++": config.synthetic_sampler == "dpmsolver++",
        "--prediction_type": config.prediction_type is not None,
    }
    for option, given in wrong.items():
        if given:
            raise ConfigError(f"{option} is not of flow matching, which '{name}' is trained by: leave it out")
    missing = {
        f"--adaptation {config.adaptation}": config.adaptation == "textual_inversion",
        "--train_text_encoder true": config.train_text_encoder,
    }
    for option, given in missing.items():
        if given:
            raise ConfigError(
                f"{option} is not there yet for flow matching, which '{name}' is trained by; leave it out: the "
                "transformer can be trained"
            )
    return {"weighting_scheme": config.weighting_scheme or model.usual_weighting}


def resolved(config: TrainConfig, model: LatentDiffusion, split: Split, processes: int = 1) -> TrainConfig:
    """``config`` with every default that depends on model or data filled in, as the run folder records it.

    Raises:
        ConfigError: a resolution that the VAE cannot halve down to whole latents; more steps than anybody waits for, or
            more in drawing an image than the model has.
    """
    check_edges(config.resolution, config.bucket_reso_steps if config.enable_bucket else None, model.multiple)
    batch = config.train_batch_size * config.gradient_accumulation_steps * processes
    steps = -(-config.num_train_epochs * split.pass_length // batch)
    most = MOST_OF["max_train_steps"]
    if not config.max_train_steps and steps > most:
        raise ConfigError(
            f"--num_train_epochs got {config.num_train_epochs}, {steps} steps; allowed: {most} steps at most"
        )
    check_inference_steps(config.validation_inference_steps, "validation_inference_steps", model)
    own: dict[str, Any] = {}
    if config.privacy_budget and not config.measured_budget:  # promised instead
        epsilon = parse_budget(config.privacy_budget)
        own = {"target_epsilon": epsilon.limit if epsilon else None}
    if config.measured_budget and not config.budget_steps:
        own = {"budget_steps": max(1, (config.max_train_steps or steps) // LOOKS)}
    if config.objective == SYNTHETIC:
        check_inference_steps(config.synthetic_inference_steps, "synthetic_inference_steps", model)
        guidance = config.synthetic_guidance_scale or usual_guidance(
            config.pretrained_model_name_or_path, config.revision
        )
        drawn = config.num_synthetic_images or IMAGES_PER_IMAGE * len(split.train)
        own |= {"num_synthetic_images": drawn, "synthetic_guidance_scale": guidance}
    own |= flow_options(config, model)
    sizes: dict[str, Any] = {}
    if not config.split_manifest:
        cells = {"reference_size": "reference"}
        if config.split_protocol == "fixed":
            cells |= {"aux_size": "aux_member", "test_size": "test_member", "test_nonmember_size": "test_nonmember"}
        sizes = {option: getattr(config, option) for option in cells}
        sizes = {option: split.sizes[cells[option]] if size is None else size for option, size in sizes.items()}
    config = replace(
        config,
        lora_alpha=config.lora_alpha or (float(config.rank) if config.adaptation == "lora" else None),
        learning_rate=config.rate,
        resolution=config.resolution or model.resolution,
        max_train_steps=config.max_train_steps or steps,
        **sizes,
        **own,
    )
    return with_intervals(config, split)
