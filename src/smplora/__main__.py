"""``python -m smplora``."""

from smplora.cli import entry_point

if __name__ == "__main__":
    entry_point()
