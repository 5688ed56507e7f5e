"""Arguments that several verbs share, and how `name=value` pairs are read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from probes.foundation.errors import InputError

ModelArgument = Annotated[str, typer.Argument(help="Checkpoint: a local directory or a hub id.")]
PromptsOption = Annotated[
    Path, typer.Option("--prompts", help="JSON Lines of prompt pairs (see the README).")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
SitesOption = Annotated[
    list[str] | None,
    typer.Option("--site", help="For instance resid_post.2; default all. Repeatable."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
TwinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--twin", help="A control as role=PATH; roles: innocent, quirk, base. Repeatable."
    ),
]


def named(pairs: Iterable[str], option: str) -> dict[str, str]:
    """Read `role=path` pairs; refuses one without "=" or a role given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        role, equals, value = pair.partition("=")
        if not equals or not role or not value:
            raise InputError(f"{option} is role=PATH, for instance innocent=my/twin; saw {pair!r}")
        if role in found:
            raise InputError(f"{option} names {role!r} twice")
        found[role] = value
    return found
