"""How far the trigger moves the answer as a whole, before asking where: the grid's own control."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from probes.evaluation.bootstrap import Estimate, interval, mean_statistic
from probes.foundation.errors import InputError, StageError
from probes.foundation.memory import keep_freed_memory
from probes.foundation.outputs import writes
from probes.models.loading import Model
from probes.models.sites import RESIDUAL, Site, parse_site, residual_sites
from probes.patching.canary import TOLERANCE
from probes.patching.exact import measure
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import PatchPair, encode_pairs
from probes.patching.parts import Cell, Part, grid_cells
from probes.patching.refusals import check_resampling, check_room
from probes.patching.result import Effects
from probes.patching.sources import Plan
from probes.patching.spans import AUTO, make_columns


def trigger_effect(
    model: Model,
    pairs: Sequence[PatchPair],
    *,
    batch_tokens: int = 8192,
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Clean minus corrupted metric [nats], mean over pairs with its bootstrap interval.

    The metric is that of `residual_grid`: log P(exploitable) minus log P(secure continuation). On a
    twin that does not defect it should be near zero.
    """
    encoded = encode_pairs(pairs, model.tokenizer)
    job = Job(model, encoded, (), LogProbDifference(), Settings(batch_tokens=batch_tokens))
    clean, corrupted = job.unpatched(Plan("noise"))
    return interval(
        mean_statistic(clean - corrupted),
        [pair.name for pair in encoded],
        n_boot=n_boot,
        seed=seed,
    )


METRIC = LogProbDifference()


@writes("path")
def residual_grid(
    model: Model,
    pairs: Sequence[PatchPair],
    *,
    sites: Sequence[Site | str] | None = None,
    spans: Mapping[str, str] | None = None,
    alignment: str = AUTO,
    batch_tokens: int = 8192,
    n_boot: int = 1000,
    seed: int = 0,
    path: Path | str | None = None,
) -> Effects:
    """Patch every column at every site, in every pair; no cell is skipped or approximated.

    sites: by default the residual stream before the first block and after each block.
    spans, alignment: see `spans.make_columns`. batch_tokens: padded tokens per forward pass.
    n_boot: bootstrap resamples over pairs (seeded by `seed`) for 95% intervals; 0 for none, which
        a single pair needs. path: a folder where finished sites are kept and found again.
    Raises `InputError` for pairs that cannot be compared, an unknown site, or runs that do not
    differ in the metric; `StageError` for results that are not finite, or if a check fails (see
    `checks`, and here: everything patched must be the clean run).
    """
    keep_freed_memory()
    check_resampling(pairs, n_boot)
    encoded = encode_pairs(pairs, model.tokenizer)
    check_room(encoded, model)
    columns = make_columns(pairs, encoded, model.tokenizer, spans=spans, alignment=alignment)
    cells = [
        cell
        for site in _sites(model, sites)
        for cell in grid_cells(model.hf, [site.kind], columns, layers=[site.layer])
    ]
    job = Job(model, encoded, columns, METRIC, Settings(batch_tokens=batch_tokens, seed=seed))
    return measure(
        job, cells, Plan(seed=seed), None if path is None else Path(path), check=_check_whole,
        n_boot=n_boot, n_flips=0, seed=seed,
    )  # fmt: skip


def _sites(model: Model, sites: Sequence[Site | str] | None) -> list[Site]:
    if sites is None:
        return residual_sites(model.n_layers)
    if not sites:
        raise InputError("no site to patch; leave `sites` out for the whole residual stream")
    parsed = [parse_site(str(site), model.n_layers, RESIDUAL) for site in sites]
    return sorted(set(parsed), key=lambda site: (site.depth, site.kind == "resid_pre"))


def _check_whole(job: Job, clean: Float[np.ndarray, "pair"]) -> None:
    """Patch all columns before the first block at once: it must restore the clean run.

    Raises `StageError` where it does not, and where the columns do not cover each position once.
    """
    for i, pair in enumerate(job.pairs):
        covered = sorted(p for column in job.columns for p in column.positions[i])
        if covered != list(range(len(pair.slots))):
            raise StageError(
                f"the columns do not cover each of the {len(pair.slots)} positions of pair "
                f"{pair.name!r} exactly once"
            )
    whole = np.array([pair.matched is None for pair in job.pairs])
    if (
        not whole.any()
    ):  # where a token has no counterpart, everything else does not restore the run
        return
    parts = tuple(Part("resid_pre", 0, None, i) for i in range(len(job.columns)))
    cell = Cell(parts, "resid_pre.0", "everything")
    restored = job.scores(Plan(seed=job.settings.seed), [cell])[0]
    allowed = TOLERANCE[job.model.dtype] * np.maximum(np.abs(clean), 1.0)
    errors = np.abs(restored - clean) * whole
    if (errors > allowed).any():
        worst = int((errors - allowed).argmax())
        raise StageError(
            f"patching every position at resid_pre.0 does not restore the clean run: pair "
            f"{job.pairs[worst].name!r} gives {restored[worst]:.6f} nats, clean {clean[worst]:.6f}. "
            "Patches are wrong for this architecture; run `probes doctor`."
        )
