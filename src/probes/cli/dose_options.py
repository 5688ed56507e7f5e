"""Options that `probes doses` and `probes steer` share: at which tokens and sites a direction is moved."""

from typing import Annotated

import typer

TokensOption = Annotated[
    list[str] | None,
    typer.Option("--tokens", help="last (of the prompt), all or new. Repeatable."),
]
PlacesOption = Annotated[
    list[str] | None,
    typer.Option("--site", help="probe, everywhere or such as resid_post.2. Repeatable."),
]
