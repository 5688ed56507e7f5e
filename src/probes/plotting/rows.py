"""Says at once which column a figure misses, instead of failing deep inside matplotlib."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from probes.foundation.errors import InputError


def need(
    rows: pd.DataFrame, figure: str, columns: Sequence[str], numbers: Sequence[str] = ()
) -> None:
    """Check that `rows` has these columns, is not empty, and is finite in the columns in `numbers`.

    Raises `InputError` naming the figure, what is missing and what was given.
    """
    missing = [name for name in (*columns, *numbers) if name not in rows.columns]
    if missing:
        raise InputError(
            f"{figure} needs the column(s) {', '.join(missing)}; "
            f"the rows have {', '.join(map(str, rows.columns)) or 'no columns'}"
        )
    if rows.empty:
        raise InputError(f"{figure} was given no rows: there is nothing to draw")
    for name in numbers:
        broken = int((~np.isfinite(rows[name].to_numpy(float))).sum())
        if broken:
            raise InputError(
                f"{figure}: {broken} of {len(rows)} values of {name!r} are not finite; "
                "leave such rows out and say so, or mend the stage that made them"
            )


def in_order(seen: Iterable[str], known: Iterable[str]) -> list[str]:
    """Names without repeats: known ones in their fixed order, then others as they first appear."""
    names = list(dict.fromkeys(seen))
    fixed = [name for name in known if name in names]
    return fixed + [name for name in names if name not in fixed]
