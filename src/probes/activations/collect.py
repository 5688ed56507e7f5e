"""Collect activations: each sequence once, only as deep as needed, nothing lost if interrupted."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from probes.activations.engine import Engine, engine_named
from probes.activations.format import Manifest
from probes.activations.origin import describe_origin
from probes.activations.place import clean, prepare
from probes.activations.planning import Intake, limits, plan_part, take_in
from probes.activations.publication import Request, fill, make_maker, positive
from probes.activations.store import ActivationStore
from probes.foundation.artifact import disk_errors
from probes.foundation.errors import InputError
from probes.foundation.outputs import writes
from probes.models.anatomy import width
from probes.models.loading import DTYPES, Model
from probes.models.sites import Site, parse_site, residual_sites
from probes.models.speed import TIMED_ROWS, announce
from probes.prompts.records import Prompt

TOKEN_BUDGET = 8192
# What an interruption costs at most. The size for a GPU is a guess: none was at hand.
SHARD_TOKENS = {"cpu": 1 << 16, "cuda": 1 << 20}
SHARD_BYTES = 1 << 29


@writes("path")
def collect(
    model: Model,
    prompts: Iterable[Prompt | str] | Prompt | Path | str,
    path: Path | str,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: str | int = "last",
    spans: Mapping[str, str] | None = None,
    completions: Iterable[str] | None = None,
    allow_missing: bool = False,
    dtype: str = "float32",
    token_budget: int = TOKEN_BUDGET,
    keep_sinks: bool = False,
    shard_tokens: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    engine: str | Engine = "process",
) -> ActivationStore:
    """Run the model over prompts and keep what it computes in a store at `path`.

    prompts: any iterable, or a file of JSON Lines; taken in a piece at a time, so that memory does
        not grow with their number. completions: a given continuation of each.
    sites: by default the residual stream at every layer. positions: see `parse_positions`; spans:
        further named spans as regular expressions. allow_missing: store no row where a span is
        absent, instead of refusing.
    dtype: of the stored numbers. token_budget: padded tokens per forward pass.
    keep_sinks: whether attention sinks count in means (see `Model.sinks`); they are left out.
    shard_tokens, shard_bytes: bounds of a shard, by default 65,536 tokens on a CPU and 1,048,576
        elsewhere, and 512 MiB; three shards at most are held in memory.
    engine: "process", or "ray" for the workers of a Ray cluster.

    Returns the store as asked for: these sequences in this order. What the store has is not computed
    again; what it lacks (sequences, sites) is added. After an interruption the same call goes on
    from the finished shards and ends in the same bytes. Raises `InputError` where something else
    lies at `path`, and `StageError` for NaN or infinite activations, a full or a read-only disk.
    """
    path = Path(path)
    origin = describe_origin(
        model, positions=positions, spans=spans, dtype=dtype, completions=completions is not None,
        keep_sinks=keep_sinks,
    )  # fmt: skip
    chosen = choose_sites(model, sites)
    request = Request(
        model=model,
        path=path,
        origin=origin,
        widths={str(site): width(model.hf, site) for site in chosen},
        maker=make_maker(model, token_budget),
        shard_tokens=positive(
            "shard_tokens",
            SHARD_TOKENS.get(model.device.type, SHARD_TOKENS["cuda"])
            if shard_tokens is None
            else shard_tokens,
        ),
        shard_bytes=positive("shard_bytes", shard_bytes),
        engine=engine_named(engine),
    )
    with disk_errors(path):
        there = prepare(path, origin)
        with take_in(model, origin, prompts, completions, there, path, allow_missing) as intake:
            asked = intake.asked
            few = [
                intake.spool[i].tokens.tolist() for i in range(min(len(intake.spool), TIMED_ROWS))
            ]
            announce(model, "collecting activations", float(intake.spool.lengths.sum()), few)
            manifest = fill(request, _plan(request, intake, there), asked)
        clean(path, manifest)
    return ActivationStore.open(path, model.identity).select_ids(asked, list(request.widths))


def choose_sites(model: Model, sites: Iterable[Site | str] | None) -> list[Site]:
    """Sites by depth, each once; None means the residual stream at every layer."""
    if sites is None:
        return residual_sites(model.n_layers)
    chosen = {parse_site(str(site), model.n_layers) for site in sites}
    if not chosen:
        raise InputError(
            "no sites to collect; leave `sites` out for the residual stream everywhere"
        )
    return sorted(chosen)


def _plan(request: Request, intake: Intake, there: Manifest | None) -> Manifest:
    """The manifest of the store as it will be, its new groups still without activations."""
    if there is not None and not len(intake.spool):
        return there.model_copy(update={"widths": {**there.widths, **request.widths}})
    parts = list(there.parts) if there else []
    row_bytes = request.model.d_model * DTYPES[request.origin.dtype].itemsize
    part = plan_part(
        request.path,
        intake.spool,
        intake.labels.finish(),
        request.origin.positions,
        sum(len(part.groups) for part in parts),
        limits(request.shard_tokens, request.shard_bytes, request.model.n_layers + 1, row_bytes),
    )
    return Manifest(
        key="",
        origin=request.origin,
        model=request.model.name,
        n_layers=request.model.n_layers,
        widths={**(there.widths if there else {}), **request.widths},
        makers=there.makers if there else (),
        parts=(*parts, part),
    )
