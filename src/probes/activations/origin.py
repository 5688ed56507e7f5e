"""What decides the numbers of an activation store, whatever prompts and sites it holds so far: the model, and which tokens.

Tokens are named the way a researcher asks for them.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from probes.foundation.errors import InputError, unknown
from probes.foundation.patterns import Pattern
from probes.foundation.procedures import VERSIONS
from probes.models.encoding import PARTS
from probes.models.identity import Identity
from probes.models.loading import DTYPES, Model
from probes.models.sinks import SinkRule
from probes.prompts.triggers import YEAR_CUE

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


SPANS = {"trigger": YEAR_CUE}


class Origin(Identity):
    """The part of a store's key that never changes; more prompts and more sites may join it.

    The first fields are the identity of the model.
    positions: which tokens are kept. span: regular expression of the span that they name, or null.
    dtype: of the stored numbers; compute_dtype: of the forward pass.
    sampling: how the completions were drawn, where the model wrote them itself; else null.
    sinks: which tokens are left out of means (see `models.sinks`); absent where none are.
    procedure: version of how activations are computed.
    """

    positions: str
    span: str | None
    dtype: str
    compute_dtype: str
    sampling: dict[str, Any] | None = None
    sinks: SinkRule | None = None
    procedure: int = VERSIONS["activations"]

    @pydantic.model_serializer(mode="wrap")
    def _without_none(self, handler: Callable[[Any], Any]) -> dict[str, Any]:
        """Without the sinks where there are none: stores of models without them keep their keys."""
        found: dict[str, Any] = handler(self)
        if self.sinks is None:
            del found["sinks"]
        return found


def describe_origin(
    model: Model,
    *,
    positions: str | int,
    spans: Mapping[str, str] | None,
    dtype: str,
    completions: bool,
    sampling: dict[str, Any] | None = None,
    keep_sinks: bool = False,
) -> Origin:
    """The origin of a collection, every setting checked before anything is computed.

    keep_sinks: whether attention sinks count in means like any other token.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    patterns = {**SPANS, **(spans or {})}
    for span, pattern in patterns.items():
        _check_span(span, pattern)
    where = parse_positions(positions, patterns)
    if not completions and where.removeprefix(MEAN) in NEEDS_ANSWER:
        raise InputError(
            f"positions {where!r} lie in the completion, and there is none: give `completions`, or "
            "let the model write them with `collect_generated`"
        )
    # a span of one's own that is called like a part of a chat comes before it
    name = where.removeprefix(MEAN) if where.removeprefix(MEAN) in patterns else span_of(where)
    return Origin(
        **model.identity.model_dump(),
        positions=where,
        span=None if name is None else patterns[name],
        dtype=dtype,
        compute_dtype=str(model.dtype).removeprefix("torch."),
        sampling=sampling,
        sinks=model.sinks.rule if where.startswith(MEAN) and not keep_sinks else None,
    )


def _check_span(name: str, pattern: str) -> None:
    if name in TOKENS or name.startswith(("-", MEAN)) or not name.strip():
        raise InputError(
            f"a span cannot be called {name!r}: {', '.join(TOKENS)}, negative numbers and "
            f"{MEAN}... have a meaning of their own"
        )
    Pattern(pattern, f"the span {name!r}")
