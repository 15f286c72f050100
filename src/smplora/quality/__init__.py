"""How good an adapter's images are: writes quality.json. Imports runs and everything below it."""
