"""The presets that ship: the study whose results are in the README, and a first try of minutes."""

PRESETS = ("default", "tiny")
