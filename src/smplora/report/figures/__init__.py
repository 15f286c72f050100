"""Figures as SVG, drawn from plain numbers. Imports results, statistics, core."""
