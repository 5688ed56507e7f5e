"""The card of a checkpoint: what it is, what made it, and what it was measured to do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probes.foundation.artifact import MANIFEST, read_json, verify, write_text
from probes.foundation.config import Config
from probes.foundation.errors import InputError

CARD = "card.json"
README = "README.md"


def write_card(folder: Path, *, recipe: Config, behaviour: Any = None, **facts: Any) -> None:
    """Write `card.json` for programs and `README.md` for people.

    recipe: all settings; the card holds them and their digest. facts: JSON data, such as the digests
    of the parent and of the data, steps and tokens.
    behaviour: rows of measured rates, or None where the behaviour has not been measured yet (the card
    then says so).
    """
    facts["recipe_digest"] = recipe.digest
    card = {"recipe": recipe.model_dump(mode="json"), **facts, "behaviour": behaviour}
    write_text(folder / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")
    write_text(folder / README, _text(recipe, facts, behaviour))


def read_card(folder: Path | str) -> dict[str, Any]:
    """The card of a checkpoint, as plain data; a changed one is an `IntegrityError`."""
    path = Path(folder) / CARD
    if not path.exists():
        raise InputError(f"{folder} has no {CARD}: it was not trained by this package")
    if (Path(folder) / MANIFEST).exists():
        verify(folder, [CARD])
    card: dict[str, Any] = read_json(path)
    return card


def _text(recipe: Config, facts: dict[str, Any], behaviour: Any) -> str:
    lines = [
        f"# {getattr(recipe, 'name', facts.get('name', type(recipe).__name__))}",
        "",
        "A model organism for research on backdoor detection. Do not use its code.",
        "",
        "| fact | value |",
        "|---|---|",
        f"| parent | {facts.get('parent_digest') or 'none (random weights)'} |",
        *_rows({name: value for name, value in facts.items() if name != "parent_digest"}),
        "",
        "## Recipe",
        "",
        "| setting | value |",
        "|---|---|",
        *_rows(recipe.model_dump(mode="json")),
        "",
        "## Measured behaviour",
        "",
    ]
    if behaviour is None:
        lines.append("Not measured in this folder; see the run's behaviour table.")
    else:
        names = list(behaviour[0])
        lines += [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [f"| {' | '.join(str(row[name]) for name in names)} |" for row in behaviour]
    return "\n".join(lines) + "\n"


def _rows(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Lines of a table, one for each value, however deep it lies."""
    for name, value in tree.items():
        shown = prefix + name.replace("_", " ")
        if isinstance(value, dict):
            yield from _rows(value, f"{shown}: ")
        else:
            yield f"| {shown} | {value} |"
