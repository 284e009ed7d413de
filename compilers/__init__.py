"""Backends: one file each. See ``docs/adding-a-backend.md``."""
