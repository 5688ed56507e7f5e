"""Which tokens of a sequence are kept: named the way a researcher asks for them."""

import dataclasses
import re
from collections.abc import Mapping

from probes.foundation.errors import InputError, unknown
from probes.models.encoding import PARTS

TOKENS = ("last", "last_request", "first_answer", "last_answer", "prompt", "answer", "all")
MEAN = "mean:"
NEEDS_ANSWER = ("first_answer", "last_answer", "answer")
ONE_EACH = ("last", "last_request", "first_answer", "last_answer")


@dataclasses.dataclass(frozen=True)
class Extent:
    """One sequence in tokens: a prompt of `n_prompt`, then a completion up to `n_tokens` in all.

    span: `(first, stop)` of the named span or part that the positions ask for; None where the text
    has none.
    """

    n_prompt: int
    n_tokens: int
    span: tuple[int, int] | None = None


def parse_positions(positions: str | int, spans: Mapping[str, str]) -> str:
    """Positions in their one spelling; raises `InputError` with the choices for any other.

    "last": the final prompt token, after which the model takes over; "-2" or -2 the one before it.
    "system", "history", "request", "header": the parts of a chat (see `encoding.chat_parts`);
    "last_request": the last token of what the user said.
    "first_answer", "last_answer", "answer": of the completion. "prompt", "all": every token.
    The name of a span: its tokens. "mean:X": one row, the mean over the tokens of X.
    """
    text = str(positions).strip()
    if text == "-1":
        return "last"
    if re.fullmatch(r"-[0-9]+", text) and int(text) < 0:
        return str(int(text))
    base = text.removeprefix(MEAN)
    allowed = [*TOKENS, *PARTS, *spans]
    if base in allowed and not (text != base and base in ONE_EACH):
        return text
    raise unknown(
        "positions",
        positions,
        [*TOKENS, *PARTS, "-2", *spans, *(f"{MEAN}{n}" for n in allowed[len(ONE_EACH) :])],
    )


def span_of(positions: str) -> str | None:
    """The name of the span that these positions need located in each text, if they need one."""
    base = positions.removeprefix(MEAN)
    return None if base in (*TOKENS, *PARTS) or base.startswith("-") else base


def part_of(positions: str) -> str | None:
    """The part of a chat that these positions need located, if they need one."""
    base = positions.removeprefix(MEAN)
    return "request" if base == "last_request" else base if base in PARTS else None


def is_one_each(positions: str) -> bool:
    """Whether every sequence gives exactly one row."""
    return positions in ONE_EACH or positions.startswith((MEAN, "-"))


def first_row_tokens(positions: str, extent: Extent) -> tuple[int, int, int]:
    """Rows of one sequence as `(first token, tokens per row, number of rows)`.

    Token rows follow each other one by one; a mean is one row of several tokens. No rows where a
    span is absent from the text or a completion is empty. Raises `InputError` where the prompt is
    too short for an index from its end.
    """
    base = positions.removeprefix(MEAN)
    match base:
        case "last":
            first, stop = extent.n_prompt - 1, extent.n_prompt
        case "last_request":
            first, stop = (extent.span or (0, 0))[1] - 1, (extent.span or (0, 0))[1]
        case "first_answer":
            first, stop = extent.n_prompt, min(extent.n_prompt + 1, extent.n_tokens)
        case "last_answer":
            first, stop = max(extent.n_tokens - 1, extent.n_prompt), extent.n_tokens
        case "prompt":
            first, stop = 0, extent.n_prompt
        case "answer":
            first, stop = extent.n_prompt, extent.n_tokens
        case "all":
            first, stop = 0, extent.n_tokens
        case _ if base.startswith("-"):
            first = extent.n_prompt + int(base)
            stop = first + 1
            if first < 0:
                raise InputError(
                    f"a prompt of {extent.n_prompt} tokens has none at position {base}"
                )
        case _:
            first, stop = extent.span or (0, 0)
    if stop <= first:
        return first, 1, 0
    return (first, stop - first, 1) if positions.startswith(MEAN) else (first, 1, stop - first)
