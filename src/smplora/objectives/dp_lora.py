"""DP-LoRA: plain LoRA by differentially private gradient descent (Abadi et al. 2016; arXiv 2406.01355)."""

from __future__ import annotations

from smplora.objectives.lora import LoRA


class DPLoRA(LoRA):
    """L = L_ada(D_tr). Its gradient is made of each image's own, clipped, and of noise: differential_privacy.py."""
