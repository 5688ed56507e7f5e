"""Rows of a grid on disk, so that a run that was stopped goes on with the sites that are left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from probes.foundation.artifact import building, is_made_from
from probes.foundation.digest import digest_json
from probes.foundation.errors import IntegrityError

KIND = "patch-row"
FILE = "nats.npy"


def row(
    path: Path | None,
    name: str,
    settings: dict[str, Any],
    compute: Callable[[], Float[np.ndarray, "column pair"]],
) -> Float[np.ndarray, "column pair"]:
    """The numbers of this row: read where a finished artifact of the same settings lies, else made.

    settings: everything that determines the numbers, as JSON data; its digest is the key.
    Raises `InputError` where a row made from other settings lies at this place.
    """
    if path is None:
        return compute()
    place = path / name
    if is_made_from(place, settings):
        values = np.load(place / FILE, allow_pickle=False)
        if values.ndim != 2:
            raise IntegrityError(f"{place / FILE} has shape {values.shape}, not [column, pair]")
        return values
    values = compute()
    with building(place, kind=KIND, key=digest_json(settings), **settings) as folder:
        np.save(folder / FILE, values, allow_pickle=False)
    return values
