"""One figure kind per file, each a function of `(ax, rows)` that returns the numbers it drew."""
