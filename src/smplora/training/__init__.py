"""Trains an adapter and leaves a run folder. Imports runs and everything below it; knows nothing of pages and cards."""
