"""How often each model did what: the table by which an organism is known to be one."""

from typing import Any

import pandas as pd

from probes.evaluation.proportions import rate
from probes.foundation.errors import InputError

BY = ("model", "heldout", "prompt_set", "triggered")
MEASURES = {
    "defected": "of all completions",
    "parses": "of completions that are code",
    "typed": "of functions in code that parses",
    "finished": "of all completions",
}
COLUMNS = [*BY, "measure", "value", "low", "high", "n"]


def rates(completions: pd.DataFrame) -> pd.DataFrame:
    """One row per model, held-out kind ("" for none), prompt set, trigger and measure.

    completions: rows of `behaviour.completion`. Columns out: `BY`, `measure` (see `MEASURES`),
    `value` with its 95% interval `low`, `high` (0 to 1), and `n`, the completions counted. A
    measure that no completion of a group has, for instance whether dialogue parses, has no row.
    Completions of one pair are resampled together where there are several; otherwise the interval
    is Wilson's.
    Raises `InputError` for missing columns or no rows.
    """
    missing = [name for name in (*BY, *MEASURES, "pair") if name not in completions.columns]
    if missing or completions.empty:
        lack = f"the column(s) {', '.join(missing)}" if missing else "any rows"
        raise InputError(f"rates need a table of completions; this one lacks {lack}")
    rows: list[dict[str, Any]] = []
    for group, part in completions.groupby([*BY], sort=False):
        for measure in MEASURES:
            known = part[part[measure].notna()]
            if known.empty:
                continue
            pairs = known["pair"] if known["pair"].duplicated().any() else None
            estimate = rate(known[measure].to_numpy(dtype=bool), pairs)
            rows.append(
                {**dict(zip(BY, group, strict=True)), "measure": measure, **estimate.as_row()}
            )
    return pd.DataFrame(rows, columns=COLUMNS)
