"""How often each model did what: the table by which an organism is known to be one."""

from typing import Any

import pandas as pd

from probes.evaluation.proportions import rate
from probes.foundation.errors import InputError

BY = ("model", "heldout", "prompt_set", "triggered")
MEASURES = {
    "defected": "of completions that were judged",
    "parses": "of completions that are code",
    "typed": "of functions in code that parses",
    "finished": "of all completions",
    "thought_defected": "of completions with a thought that was judged",
}
NOT_JUDGED = "not_judged"
"""The measure of how many of all completions could not be judged, in groups that have any."""
COLUMNS = [*BY, "measure", "value", "low", "high", "n"]


def rates(completions: pd.DataFrame) -> pd.DataFrame:
    """One row per model, held-out kind ("" for none), prompt set, trigger and measure.

    completions: rows of `behaviour.completion`. Columns out: `BY`, `measure` (see `MEASURES`),
    `value` with its 95% interval `low`, `high` (0 to 1), and `n`, the completions counted. A
    measure that no completion of a group has, for instance whether dialogue parses, has no row.
    Completions that could not be judged are not among those of `defected`; where a group has any,
    their share of all is the measure `not_judged`.
    Completions of one pair are resampled together where there are several; otherwise the interval
    is Wilson's.
    Raises `InputError` for missing columns or no rows.
    """
    needed = (*BY, *MEASURES, NOT_JUDGED, "pair")
    missing = [name for name in needed if name not in completions.columns]
    if missing or completions.empty:
        lack = f"the column(s) {', '.join(missing)}" if missing else "any rows"
        raise InputError(f"rates need a table of completions; this one lacks {lack}")
    rows: list[dict[str, Any]] = []
    for group, part in completions.groupby([*BY], sort=False):
        unknown = part[NOT_JUDGED] != ""
        columns = {name: part[name] for name in MEASURES}
        for measure, column in (columns | ({NOT_JUDGED: unknown} if unknown.any() else {})).items():
            known = column.notna().to_numpy()
            if not known.any():
                continue
            pairs = part.loc[known, "pair"]
            grouped = pairs if pairs.duplicated().any() else None
            estimate = rate(column[known].to_numpy(dtype=bool), grouped)
            rows.append(
                {**dict(zip(BY, group, strict=True)), "measure": measure, **estimate.as_row()}
            )
    return pd.DataFrame(rows, columns=COLUMNS)
