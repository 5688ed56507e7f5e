"""What decides the numbers of an activation store, whatever prompts and sites it holds so far."""

from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from probes.activations.positions import MEAN, NEEDS_ANSWER, TOKENS, parse_positions, span_of
from probes.foundation.errors import InputError, unknown
from probes.foundation.patterns import Pattern
from probes.foundation.procedures import VERSIONS
from probes.models.identity import Identity
from probes.models.loading import DTYPES, Model
from probes.models.sinks import SinkRule
from probes.prompts.triggers import YEAR_CUE

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
