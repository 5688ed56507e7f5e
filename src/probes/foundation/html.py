"""Views of objects in a notebook: one way to a table, in which no text of a file can become markup."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd


def html_text(text: object, *, strong: object = "") -> str:
    """A paragraph, escaped; `strong` stands before it in bold."""
    bold = f"<b>{html.escape(str(strong))}</b> " if str(strong) else ""
    return f"<p>{bold}{html.escape(str(text))}</p>"


def html_table(
    table: pd.DataFrame | Mapping[str, Any],
    text: object = "",
    *,
    strong: object = "",
    floats: str | Callable[[float], str] = "{:.3f}",
    index: bool = False,
    missing: str = "NaN",
) -> str:
    """A table, or facts as one row per name; every text is escaped, names and headings too.

    text, strong: a paragraph before it, see `html_text`. floats: how to write numbers. index: whether
    a table's index is shown. missing: for what is not there.
    """
    if isinstance(table, pd.DataFrame):
        shown = table.to_html(
            index=index,
            escape=True,
            float_format=floats.format if isinstance(floats, str) else floats,
            na_rep=missing,
        )
    else:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(name))}</th>"
            f"<td>{html.escape(_fact(value))}</td></tr>"
            for name, value in table.items()
        )
        shown = f"<table>{rows}</table>"
    return (html_text(text, strong=strong) if str(text) or str(strong) else "") + str(shown)


def _fact(value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if whole else str(value)
