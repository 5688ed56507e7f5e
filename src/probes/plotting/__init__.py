"""Figures, each a function of `(ax, rows)` that returns the numbers it drew; a file for each kind of question."""
