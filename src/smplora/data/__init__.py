"""Captioned images from any source: found, checked as a whole before anything expensive, divided, encoded once. Imports
config, models, core."""
