"""Options of optimisation: precision, optimizer, schedule, weighting, averaging. docs/training.md is their guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from smplora.config.checks import at_least, at_most, below, positive

LARGEST_MODE_SCALE = 1.75  # above 2 / (pi - 2) places leave [0, 1]: Esser et al. 2024, section 3.1
DEFAULT_RATE = 1e-4  # of a LoRA; those of other adaptations: catalogue/adaptations.py


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions:
    train_batch_size: int = 1
    """Images per step (paper: 1)."""
    gradient_accumulation_steps: int = 1
    """Batches per step; the gradient is that of one batch of all of them."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    shard_base_model: bool = False
    """With several processes: split the frozen base model's weights over them (FSDP), for models too large for one GPU."""
    mixed_precision: Literal["no", "fp16", "bf16", "auto"] = "no"
    """Precision of the frozen base model; adapter, optimizer and losses stay fp32. fp16 scales the loss; 'auto' is bf16 where the device computes faster in it."""
    compile: bool = False
    """Compile the denoiser (torch.compile): faster steps on a GPU after minutes for the first. What cannot be compiled runs as it is; nothing on a CPU."""
    quantize: Optional[Literal["8bit", "4bit"]] = None
    """Round the linear layers of a frozen flow-matching transformer (needs smplora[bitsandbytes]); '4bit' is QLoRA's NF4. Trains an adapter in less memory."""
    allow_tf32: bool = False
    """Let fp32 matrix products on NVIDIA GPUs since Ampere round their factors to TF32: faster, three decimal digits."""
    optimizer: Literal["adamw", "adamw8bit", "prodigy"] = "adamw"
    """'adamw', 'adamw8bit' (needs smplora[bitsandbytes]; the paper's code) or 'prodigy' (needs smplora[prodigy]; finds the rate: give --learning_rate 1)."""
    learning_rate: Optional[float] = None
    """Learning rate of what is trained. Default (paper): 1e-4 for LoRA, 5e-6 for full fine-tuning and DreamBooth; 5e-4 for textual inversion (diffusers)."""
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = "constant"
    """How the learning rate goes on (paper: constant)."""
    lr_warmup_steps: int = 0
    """Steps in which the learning rate rises from 0; for all schedules but 'constant'."""
    lr_num_cycles: int = 1
    """Restarts of 'cosine_with_restarts'."""
    lr_power: float = 1.0
    """Exponent of 'polynomial'."""
    adam_beta1: float = 0.9
    """Decay of the mean of gradients, of every optimizer."""
    adam_beta2: float = 0.999
    """Decay of the mean of squared gradients, of every optimizer."""
    adam_weight_decay: float = 1e-2
    """Decoupled weight decay of the adapter."""
    adam_epsilon: float = 1e-8
    """Added to the root of the mean of squared gradients."""
    prodigy_beta3: Optional[float] = None
    """Decay of Prodigy's estimate of the learning rate. Default: the root of adam_beta2."""
    prodigy_use_bias_correction: bool = True
    """Adam's bias correction in Prodigy."""
    prodigy_safeguard_warmup: bool = True
    """Keep Prodigy's estimate from growing too much during a warm-up."""
    max_grad_norm: float = 1.0
    """The adapter's gradient is clipped to this L2 norm; 0: not clipped. With --objective dp_lora each image's own gradient is, before they are added."""
    gradient_normalisation: bool = False
    """Divide the adapter's gradient by its L2 norm instead of clipping it (paper, Table 10)."""
    snr_gamma: Optional[float] = None
    """Weight the adaptation loss by min-SNR-gamma; 5 is the recommended value. Default: no weighting (paper)."""
    weighting_scheme: Optional[Literal["none", "logit_normal", "mode", "sigma_sqrt", "cosmap"]] = None
    """Of flow matching: middle noise levels more often ('logit_normal', 'mode'), or losses weighted. Default: 'none'; 'logit_normal' for SD 3."""
    logit_mean: float = 0.0
    """With --weighting_scheme logit_normal: mean of the normal number behind a noise level."""
    logit_std: float = 1.0
    """With --weighting_scheme logit_normal: its standard deviation."""
    mode_scale: float = 1.29
    """With --weighting_scheme mode: how strongly."""
    noise_offset: float = 0.0
    """While training, shift each channel's noise by a normal number times this, for very dark and very bright images. 0.05 to 0.1 are usual (paper: 0)."""
    use_ema: bool = False
    """Publish the exponential moving average of the adapter instead of its last weights."""
    ema_decay: float = 0.9999
    """Largest decay of that average; step n has n / (n + 9) while that is less."""
    weight_noise: float = 0.0
    """Noise added to the weights that are published: its standard deviation, as a share of each tensor's root mean square. Its seed stays in the run folder."""


def optimization_problems(options: OptimizationOptions) -> list[str]:
    """What is wrong, one line each."""
    problems = [
        *at_least(options, ("train_batch_size", "gradient_accumulation_steps", "lr_num_cycles"), 1),
        *positive(options, ("learning_rate", "snr_gamma", "logit_std", "lr_power", "adam_epsilon")),
        *at_least(
            options, ("adam_weight_decay", "lr_warmup_steps", "noise_offset", "max_grad_norm", "weight_noise"), 0
        ),
        *(
            f"--{name} is of --weighting_scheme {scheme}; leave it out with {options.weighting_scheme or 'the default'}"
            for scheme, names in (("logit_normal", ("logit_mean", "logit_std")), ("mode", ("mode_scale",)))
            for name in names
            if options.weighting_scheme != scheme and getattr(options, name) != getattr(OptimizationOptions, name)
        ),
        *at_least(options, ("mode_scale",), -1),
        *at_most(options, ("mode_scale",), LARGEST_MODE_SCALE),
        *below(options, ("adam_beta1", "adam_beta2", "prodigy_beta3", "ema_decay"), 0, 1),
    ]
    rate = options.learning_rate or DEFAULT_RATE
    if options.optimizer == "prodigy" and 0 < rate < 0.1:
        problems.append(
            f"--learning_rate got {rate:g}; --optimizer prodigy finds the rate itself and multiplies it by this one: give "
            "--learning_rate 1 (allowed: 0.1 or more)"
        )
    if options.lr_scheduler == "polynomial" and 0 < rate <= 1e-7:
        problems.append(f"--learning_rate got {rate:g}; --lr_scheduler polynomial ends at 1e-07: give more")
    return problems
