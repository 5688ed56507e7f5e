"""The activations of one group: every sequence once, only as deep as needed, kept as stored."""

import dataclasses
import warnings

import numpy as np
import torch
from torch import Tensor

from probes.activations.layout import OVERHEAD_TOKENS, Layout, batches
from probes.foundation.digest import short
from probes.foundation.errors import StageError
from probes.models import forward
from probes.models.anatomy import width
from probes.models.encoding import pad
from probes.models.hooks import recording
from probes.models.loading import DTYPES, Model
from probes.models.sinks import SinkRule, refuse_only_sinks, sink_masks
from probes.models.sites import Site, parse_site

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class OutOfMemoryWarning(UserWarning):
    """The batch was halved because the device's memory did not hold it."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One unit of work: these sites of this group. `dtype` is the stored one.

    sinks: which tokens are left out of means; None for none.
    """

    layout: Layout
    sites: tuple[str, ...]
    dtype: str
    token_budget: int
    sinks: SinkRule | None = None


def compute(model: Model, job: Job) -> dict[str, Tensor]:
    """Activations by site, `[n_rows, width]` in the stored dtype, contiguous, on the CPU.

    Right padding, so that no real token can attend to a pad. Out of memory halves the batch, with a
    warning, until a sequence alone does not fit: `StageError`. The same error for an activation that
    is NaN or infinite, with its site and token.
    """
    layout, stored = job.layout, DTYPES[job.dtype]
    sites = [parse_site(name, model.n_layers) for name in job.sites]
    values = {site: torch.empty(layout.n_rows, _flat(model, site), dtype=stored) for site in sites}
    overhead = OVERHEAD_TOKENS.get(model.device.type, OVERHEAD_TOKENS["cuda"])
    has_rows = np.flatnonzero(np.diff(layout.row_offsets))
    order = has_rows[np.argsort(-layout.lengths[has_rows], kind="stable")]
    cuts = batches(layout.lengths[order].tolist(), job.token_budget, overhead)
    pending = [order[cut] for cut in reversed(cuts)]
    while pending:
        members = pending.pop()
        try:
            _run(model, layout, members, values, job.sinks)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            pending += _halves(model, layout, members, error)
    return {str(site): value for site, value in values.items()}


def _run(
    model: Model,
    layout: Layout,
    members: np.ndarray,
    values: dict[Site, Tensor],
    sinks: SinkRule | None,
) -> None:
    """One forward pass over these sequences, longest first; their rows go into `values`."""
    padded = pad([layout.sequence(i).tolist() for i in members.tolist()], model.pad_id)
    rows, member = _rows_of(layout, members)
    counts = layout.n_averaged[rows].astype(np.int64)
    lines = _lines(layout.position[rows], member, counts, padded.tokens.shape[1])
    is_mean = bool((counts > 1).any())
    if sinks is not None:
        masks = sink_masks(model, [layout.sequence(i).tolist() for i in members.tolist()], sinks)
        lines, counts = _without_sinks(lines, counts, masks, padded.tokens.shape[1])
        if not counts.all():
            row = int(rows[int(np.flatnonzero(counts == 0)[0])])
            raise refuse_only_sinks(f"the mean of sequence {_sequence_of(layout, row)}")
    stored = next(iter(values.values())).dtype
    moved: dict[torch.device, Tensor] = {}

    def select(found: Tensor) -> Tensor:
        chosen = moved.get(found.device)
        if chosen is None:
            chosen = moved[found.device] = lines.to(found.device)
        kept = found.flatten(0, 1).index_select(0, chosen)
        if is_mean:
            kept = _means(kept, torch.from_numpy(counts))
        return kept.to(stored)

    with (
        torch.inference_mode(),
        recording(model.hf, list(values), select=select, stop=True) as seen,
    ):
        forward.trunk(model.hf, padded)
    place = torch.from_numpy(rows)
    for site, found in seen.items():
        kept = found.cpu()
        _refuse_not_finite(kept, site, layout, rows, model.dtype)
        values[site].index_copy_(0, place, kept)


def _rows_of(layout: Layout, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of these sequences in the group, and which of the batch's sequences each belongs to."""
    first = layout.row_offsets[members]
    counts = layout.row_offsets[members + 1] - first
    member = np.repeat(np.arange(len(members)), counts)
    within = np.arange(int(counts.sum())) - np.repeat(counts.cumsum() - counts, counts)
    return first[member] + within, member


def _lines(position: np.ndarray, member: np.ndarray, counts: np.ndarray, n_columns: int) -> Tensor:
    """Which lines of the flattened `[batch * pos]` make the rows, one row after the other."""
    start = member * n_columns + position.astype(np.int64)
    within = np.arange(int(counts.sum())) - np.repeat(counts.cumsum() - counts, counts)
    return torch.from_numpy(np.repeat(start, counts) + within)


def _without_sinks(
    lines: Tensor, counts: np.ndarray, masks: list[np.ndarray], n_columns: int
) -> tuple[Tensor, np.ndarray]:
    """The lines that are no sinks, and how many of them each row has left."""
    sink = np.zeros((len(masks), n_columns), dtype=bool)
    for row, mask in enumerate(masks):
        sink[row, : len(mask)] = mask
    kept = ~sink.ravel()[lines.numpy()]
    starts = counts.cumsum() - counts
    return lines[torch.from_numpy(kept)], np.add.reduceat(kept.astype(np.int64), starts)


def _means(tokens: Tensor, counts: Tensor) -> Tensor:
    """Means of runs of rows, summed in float32."""
    lengths = counts.to(tokens.device)
    return torch.segment_reduce(tokens.float(), "mean", lengths=lengths, axis=0)


def _refuse_not_finite(
    kept: Tensor, site: Site, layout: Layout, rows: np.ndarray, computed: torch.dtype
) -> None:
    """A sum is cheaper than a look at every number; only a sum that is not finite is looked into."""
    if kept.sum(dtype=torch.float32).isfinite():
        return
    finite = kept.isfinite().all(-1)
    if finite.all():
        return
    row = int(rows[int((~finite).nonzero()[0])])
    raise StageError(
        f"NaN or infinite activations at {site}, token {int(layout.position[row])} of the sequence "
        f"{_sequence_of(layout, row)}: "
        f"{forward.why_not_finite(computed, kept.dtype)}. Nothing of this shard was kept."
    )


def _sequence_of(layout: Layout, row: int) -> str:
    sequence = int((layout.row_offsets <= row).sum()) - 1
    return short(layout.sequence_id[sequence].tobytes().hex())


def _halves(
    model: Model, layout: Layout, members: np.ndarray, error: RuntimeError
) -> list[np.ndarray]:
    """The batch in two, in reverse order of work; raises where it is one sequence already."""
    longest = int(layout.lengths[members[0]])
    if len(members) == 1:
        raise StageError(
            f"out of memory with one sequence of {longest} tokens on {model.device}: use a "
            "smaller dtype, fewer sites, a device_map, or shorter prompts"
        ) from error
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    half = len(members) // 2
    warnings.warn(
        f"out of memory with {len(members)} sequences of up to {longest} tokens; going on with "
        f"{half}. A smaller token_budget avoids the failed passes.",
        OutOfMemoryWarning,
        stacklevel=3,
    )
    return [members[half:], members[:half]]


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in NO_MEMORY)


def _flat(model: Model, site: Site) -> int:
    return int(torch.Size(width(model.hf, site)).numel())
