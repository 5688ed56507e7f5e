"""Whole questions, composed of the stages, a folder each: a study reads like the README."""

PRESETS = ("default", "tiny")
"""Those that ship: of each study the one whose results are in the documentation, and a first try of minutes."""
