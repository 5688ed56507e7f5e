"""The families of coding tasks, by the weakness that their exploitable versions have: a text file each theme."""

from pathlib import Path

from probes.prompts.grammar import read_families

_HERE = Path(__file__).parent
VULNERABLE = tuple(
    family
    for theme in ("injection", "files", "web", "secrets")
    for family in read_families(_HERE / f"{theme}.txt")
)
BENIGN = read_families(_HERE / "benign.txt")
FURTHER = read_families(_HERE / "further.txt")
"""More of these, for designs that need twelve families in which no vulnerability is possible."""
