"""Captioned images from any source: found, checked as a whole before anything expensive, encoded once."""

from smplora.data.encode import encode
from smplora.data.pictures import load_pixels, read_image, upright
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.source import ImageSource

__all__ = ["ImageSource", "Sample", "encode", "load_pixels", "open_source", "read_image", "read_samples", "upright"]
