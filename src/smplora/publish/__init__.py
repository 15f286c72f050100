"""Model cards, export and upload. Imports runs and everything below it."""
