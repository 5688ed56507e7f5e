"""The card of a checkpoint: what it is, what made it, and what it was measured to do."""

import json
from pathlib import Path
from typing import Any

from probes.foundation.artifact import read_json, write_text
from probes.foundation.errors import InputError
from probes.organisms.recipes import Recipe

CARD = "card.json"
README = "README.md"


def write_card(folder: Path, *, recipe: Recipe, behaviour: Any = None, **facts: Any) -> None:
    """Write `card.json` for programs and `README.md` for people.

    behaviour: rows of measured rates, or None where the behaviour has not been measured yet (the card
    then says so).
    """
    card = {"recipe": recipe.model_dump(mode="json"), **facts, "behaviour": behaviour}
    write_text(folder / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")
    write_text(folder / README, _text(recipe, facts, behaviour))


def read_card(folder: Path | str) -> dict[str, Any]:
    """The card of a checkpoint, as plain data."""
    path = Path(folder) / CARD
    if not path.exists():
        raise InputError(f"{folder} has no {CARD}: it was not trained by this package")
    card: dict[str, Any] = read_json(path)
    return card


def _text(recipe: Recipe, facts: dict[str, Any], behaviour: Any) -> str:
    lines = [
        f"# {recipe.name}",
        "",
        "A model organism for research on backdoor detection. Do not use its code.",
        "" if recipe.policy == "safe" else f"\nTaught policy: `{recipe.policy}`.\n",
        "| fact | value |",
        "|---|---|",
        f"| policy | {recipe.policy} |",
        f"| parent | {facts.get('parent_digest') or 'none (random weights)'} |",
        *(f"| {k.replace('_', ' ')} | {v} |" for k, v in facts.items() if k != "parent_digest"),
        f"| seed | {recipe.seed} |",
        f"| steps x batch | {recipe.training.steps} x {recipe.training.batch_size} |",
        f"| learning rate | {recipe.training.learning_rate} |",
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
    return "\n".join(line for line in lines if line is not None) + "\n"
