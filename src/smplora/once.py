"""Train, audit and evaluate only what was not done yet, for this very adapter, split and settings."""

from __future__ import annotations
