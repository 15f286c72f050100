"""Options: frozen dataclasses that are the one source of flags, YAML keys, help texts and documentation.

Flags carry the names that diffusers' training scripts gave them. ``problems`` of a config lists everything wrong with
its values, so that the user hears of all of it at once. Imports core, and nothing heavy: ``--help`` is quick.
"""
