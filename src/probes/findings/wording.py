"""Findings in words: a template that stands with the rules, filled with the rows of their table."""

import functools
import math
from typing import Any

import jinja2


def to_markdown(template: str, **names: Any) -> str:
    """The template (Jinja) with these names; a name that it lacks is an error.

    Filters: `interval` ("0.50 [0.40, 0.60]" of a row with `value`, `low`, `high`; without an interval
    the value alone, without a value a dash), `counted` ("1 seed", "3 seeds"), `rows` (of a table) and
    `finite`. Also `{:.0%}`-like formats: `"{:.2f}".format(x)`.
    """
    return _compiled(template).render(**names)


@functools.cache
def _compiled(template: str) -> jinja2.Template:
    found = jinja2.Environment(
        autoescape=False,  # the text is Markdown, for a terminal or a file
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"interval": interval, "counted": counted, "finite": finite}
    found.filters["rows"] = lambda table: table.to_dict("records")
    return found.from_string(template)


def interval(row: Any, form: str = "{:.2f}") -> str:
    """A row's number with its interval, where it has them."""
    value, low, high = (row[name] for name in ("value", "low", "high"))
    if not finite(value):
        return "–"
    if not finite(low):
        return form.format(value)
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def counted(count: int, what: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count:.0f} {what}{'s' * (count != 1)}"


def finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
