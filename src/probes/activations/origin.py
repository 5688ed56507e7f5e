"""What decides the numbers of an activation store, whatever prompts and sites it holds so far."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from probes.activations.positions import MEAN, NEEDS_ANSWER, TOKENS, parse_positions, span_of
from probes.foundation.config import Config
from probes.foundation.digest import short
from probes.foundation.errors import InputError, unknown
from probes.models.checkpoints import config_digest, template_digest
from probes.models.loading import DTYPES, Model
from probes.models.sinks import SinkRule
from probes.prompts.triggers import YEAR_CUE

SPANS = {"trigger": YEAR_CUE}


class Origin(Config):
    """The part of a store's key that never changes; more prompts and more sites may join it.

    weights_digest, config_digest, tokenizer_digest, template_digest: of the model (no template:
        null). Merged adapters are part of the weights' digest.
    positions: which tokens are kept. span: regular expression of the span that they name, or null.
    dtype: of the stored numbers; compute_dtype: of the forward pass; quantization: of the weights.
    sampling: how the completions were drawn, where the model wrote them itself; else null.
    sinks: which tokens are left out of means (see `models.sinks`); absent where none are.
    """

    weights_digest: str
    config_digest: str
    tokenizer_digest: str
    template_digest: str | None
    positions: str
    span: str | None
    dtype: str
    compute_dtype: str
    quantization: str | None
    sampling: dict[str, Any] | None = None
    sinks: SinkRule | None = None

    @pydantic.model_serializer(mode="wrap")
    def _without_none(self, handler: Callable[[Any], Any]) -> dict[str, Any]:
        """Without the sinks where there are none: stores of models without them keep their keys."""
        found: dict[str, Any] = handler(self)
        if self.sinks is None:
            del found["sinks"]
        return found

    def told_apart(self, other: "Origin", form: str) -> str:
        """The fields in which two origins differ; `form` has a place for the value in each."""
        return "; ".join(
            f"{name}: {form.format(_shorten(mine), _shorten(theirs))}"
            for name, (mine, theirs) in self.differences(other).items()
        )


def _shorten(value: object) -> object:
    return short(value) if isinstance(value, str) and len(value) == 64 else value


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
    name = span_of(where)
    return Origin(
        weights_digest=model.weights_digest,
        config_digest=config_digest(model.directory),
        tokenizer_digest=model.tokenizer_digest,
        template_digest=template_digest(model.tokenizer),
        positions=where,
        span=None if name is None else patterns[name],
        dtype=dtype,
        compute_dtype=str(model.dtype).removeprefix("torch."),
        quantization=model.quantization,
        sampling=sampling,
        sinks=model.sinks.rule if where.startswith(MEAN) and not keep_sinks else None,
    )


def _check_span(name: str, pattern: str) -> None:
    if name in TOKENS or name.startswith(("-", MEAN)) or not name.strip():
        raise InputError(
            f"a span cannot be called {name!r}: {', '.join(TOKENS)}, negative numbers and "
            f"{MEAN}... have a meaning of their own"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"the span {name!r} is {pattern!r}, which is not a regular expression: {error}"
        ) from error
