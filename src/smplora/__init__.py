"""smplora: adapt latent diffusion models to private images, and measure what the result gives away."""

__version__ = "0.1.0"
