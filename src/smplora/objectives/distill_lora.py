"""Distill-LoRA: plain LoRA on the predictions of teachers that never saw the image (SELENA, Tang et al. 2022, arXiv
2110.08324; for diffusion models DistillMD, arXiv 2410.16657)."""

from __future__ import annotations

from smplora.objectives.lora import LoRA


class DistillLoRA(LoRA):
    """L = mean over D_tr of || f_k(z_t, t, tau(y)) - f(z_t, t, tau(y)) ||^2, where teacher f_k was adapted to D_tr
    without the fold k that (x, y) is in: distillation.py."""
