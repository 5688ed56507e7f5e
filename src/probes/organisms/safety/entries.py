"""What a trainer logs, as the lines of a file and as the numbers of a board."""

import json
from collections.abc import Sequence
from typing import Any


def logged(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries about the training itself, without what is about this run alone."""
    return [
        {name: x for name, x in entry.items() if not _is_timing(name)}
        for entry in history
        if "curve" not in entry and "train_runtime" not in entry
    ]


def lines_of(entries: Sequence[dict[str, Any]]) -> str:
    """The entries as JSON lines."""
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)


def named(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """A point of the curve as numbers by name: `test/triggered/defected`."""
    cues = {True: "triggered", False: "untriggered"}
    return {
        "/".join(
            part
            for part in (row["set"], row["kind"], cues[row["triggered"]], row["measure"])
            if part
        ): row["value"]
        for row in records
        if row["value"] is not None
    }


def _is_timing(name: str) -> bool:
    """Whether a logged number is about this run and not about what was learned."""
    return name.endswith("time") or name.startswith("profiling/")
