"""Figures as SVG, drawn from plain numbers. Imports core."""
