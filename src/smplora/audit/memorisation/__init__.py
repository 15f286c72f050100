"""Looks for copies of training images among images drawn from their captions. Imports what audit imports."""
