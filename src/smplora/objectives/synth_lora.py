"""Synth-LoRA: plain LoRA on images that a private teacher drew; no private image is seen (knowledge transfer through
synthetic data: Jordon et al. 2019, PATE-GAN; for diffusion models Ghalebikesabi et al. 2023, arXiv 2302.13861)."""

from __future__ import annotations

from smplora.objectives.lora import LoRA


class SynthLoRA(LoRA):
    """L = L_ada(D_syn), with D_syn drawn by a teacher that was adapted to D_tr: training/synthesis.py.

    Whatever is computed from D_syn tells no more of D_tr than D_syn does (data processing inequality)."""
