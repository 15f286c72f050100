"""Captioned images from any source: found, checked as a whole before anything expensive, encoded once."""

from smplora.data.encode import encode
from smplora.data.pictures import frame, load_pixels, read_image, upright
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.prepare import Preparation, preparation
from smplora.data.source import ImageSource

__all__ = [
    "ImageSource",
    "Preparation",
    "Sample",
    "encode",
    "frame",
    "load_pixels",
    "open_source",
    "preparation",
    "read_image",
    "read_samples",
    "upright",
]
