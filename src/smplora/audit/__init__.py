"""Attacks an adapter and writes audit.json. Imports runs and everything below it; what must be trained is handed in."""
