"""Latent diffusion models: read from files, encode, noise, predict, generate; the proxy attack model; what is adapted.
Imports core. A base model knows no adapter: adapted.py holds both."""
