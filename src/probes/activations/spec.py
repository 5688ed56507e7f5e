"""What decides the bytes of an activation store, so that two stores can be told apart."""

from collections.abc import Iterable, Sequence

import pydantic

from probes.foundation.config import Config
from probes.foundation.errors import InputError, unknown
from probes.models.checkpoints import template_digest
from probes.models.loading import DTYPES, Model
from probes.models.sites import Site, parse_site, residual_sites
from probes.prompts.records import Prompt, digest_prompts

Positions = str | int
POSITIONS = ("last", "all", "-1", "-2", "...")


class Spec(Config):
    """What is collected from what; its digest is the key of the store.

    weights_digest, tokenizer_digest, template_digest: of the model (no template: null).
    prompts_digest: over the ids of the prompts, in order.
    sites: names, in order of depth. positions: "last", "all", or a negative index from the end.
    dtype: of the stored numbers; compute_dtype: of the forward pass.
    token_budget: padded tokens per forward pass; other budgets give other rounding.
    shard_prompts: prompts per shard.
    """

    weights_digest: str
    tokenizer_digest: str
    template_digest: str | None
    prompts_digest: str
    sites: tuple[str, ...]
    positions: Positions
    dtype: str
    compute_dtype: str
    token_budget: int = pydantic.Field(ge=1)
    shard_prompts: int = pydantic.Field(ge=1)


def specify(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    sites: Iterable[Site | str] | None,
    positions: Positions,
    token_budget: int,
    dtype: str,
    shard_prompts: int,
) -> Spec:
    """The spec of a collection, every setting checked before anything is computed."""
    if not prompts:
        raise InputError("no prompts to collect activations for")
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    for name, value in (("token_budget", token_budget), ("shard_prompts", shard_prompts)):
        if value < 1:
            raise InputError(f"{name} is a positive number, not {value}")
    return Spec(
        weights_digest=model.weights_digest,
        tokenizer_digest=model.tokenizer_digest,
        template_digest=template_digest(model.tokenizer),
        prompts_digest=digest_prompts(prompts),
        sites=tuple(str(site) for site in order_sites(sites, model.n_layers)),
        positions=check_positions(positions),
        dtype=dtype,
        compute_dtype=str(model.dtype).removeprefix("torch."),
        token_budget=token_budget,
        shard_prompts=shard_prompts,
    )


def order_sites(sites: Iterable[Site | str] | None, n_layers: int) -> list[Site]:
    """Sites by depth, each once; None means the residual stream at every layer."""
    if sites is None:
        return residual_sites(n_layers)
    chosen = {parse_site(str(site), n_layers) for site in sites}
    if not chosen:
        raise InputError(
            "no sites to collect; leave `sites` out for the residual stream everywhere"
        )
    return sorted(chosen, key=lambda site: (site.depth, site.kind))


def check_positions(positions: Positions) -> Positions:
    """Positions as stored: "last", "all" or a negative index; -1 is the same as "last"."""
    if positions in ("last", -1):
        return "last"
    if positions == "all" or (type(positions) is int and positions < 0):
        return positions
    raise unknown("positions", positions, POSITIONS)
