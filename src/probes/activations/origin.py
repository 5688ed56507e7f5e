"""What decides the numbers of an activation store, whatever prompts and sites it holds so far."""

from collections.abc import Mapping
from typing import Any

from probes.activations.positions import MEAN, NEEDS_ANSWER, TOKENS, parse_positions, span_of
from probes.foundation.config import Config
from probes.foundation.digest import short
from probes.foundation.errors import InputError, unknown
from probes.foundation.patterns import Pattern
from probes.models.checkpoints import config_digest, template_digest
from probes.models.loading import DTYPES, Model
from probes.prompts.triggers import YEAR_CUE

SPANS = {"trigger": YEAR_CUE}


class Origin(Config):
    """The part of a store's key that never changes; more prompts and more sites may join it.

    weights_digest, config_digest, tokenizer_digest, template_digest: of the model (no template:
        null). Merged adapters are part of the weights' digest.
    positions: which tokens are kept. span: regular expression of the span that they name, or null.
    dtype: of the stored numbers; compute_dtype: of the forward pass; quantization: of the weights.
    sampling: how the completions were drawn, where the model wrote them itself; else null.
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
) -> Origin:
    """The origin of a collection, every setting checked before anything is computed."""
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
    )


def _check_span(name: str, pattern: str) -> None:
    if name in TOKENS or name.startswith(("-", MEAN)) or not name.strip():
        raise InputError(
            f"a span cannot be called {name!r}: {', '.join(TOKENS)}, negative numbers and "
            f"{MEAN}... have a meaning of their own"
        )
    Pattern(pattern, f"the span {name!r}")
