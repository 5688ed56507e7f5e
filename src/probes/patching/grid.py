"""Where the trigger's effect on the answer is carried: layer by position, exactly, with intervals.

Denoising: the corrupted prompt (without the trigger) is run, the clean run's residual stream (with
the trigger) is put in place at one site and one column, and the effect is how far that moves the
log-probability of the exploitable minus the secure continuation.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.models.forward import check_lengths
from probes.models.loading import Model
from probes.models.sites import RESIDUAL, Site, parse_site, residual_sites
from probes.patching.canary import check_difference, check_noise, check_whole
from probes.patching.cells import Runner
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import EncodedPair, PatchPair, digest_pairs, encode_pairs
from probes.patching.result import PatchGrid, summarise
from probes.patching.spans import Column, make_columns
from probes.patching.stored import row

METRIC = LogProbDifference()


def residual_grid(
    model: Model,
    pairs: Sequence[PatchPair],
    *,
    sites: Sequence[Site | str] | None = None,
    spans: Mapping[str, str] | None = None,
    alignment: str = "shared",
    batch_tokens: int = 8192,
    n_boot: int = 1000,
    seed: int = 0,
    path: Path | str | None = None,
) -> PatchGrid:
    """Patch every column at every site, in every pair; no cell is skipped or approximated.

    sites: by default the residual stream before the first block and after each block.
    spans, alignment: see `spans.make_columns`. batch_tokens: padded tokens per forward pass.
    n_boot: bootstrap resamples over pairs (seeded by `seed`) for 95% intervals; 0 for none, which
        a single pair needs. path: a folder where finished sites are kept and found again.
    Raises `InputError` for pairs that cannot be compared, an unknown site, or runs that do not
    differ in the metric; `StageError` for results that are not finite, or if a check fails (see
    `canary`): noise at each cell must move the output, everything patched must be the clean run.
    """
    if n_boot and len(pairs) < 2:
        raise InputError(
            f"an interval over pairs needs at least 2 pairs, not {len(pairs)}; n_boot=0 for none"
        )
    chosen = _sites(model, sites)
    encoded = encode_pairs(pairs, model.tokenizer)
    check_lengths([p.n_prompt + max(len(p.safe), len(p.defect)) for p in encoded], model.hf)
    columns = make_columns(pairs, encoded, model.tokenizer, spans=spans, alignment=alignment)
    runner = Runner(model.hf, model.pad_id, batch_tokens)
    settings = _settings(model, encoded, columns)
    place = None if path is None else Path(path)

    def unpatched() -> np.ndarray:
        clean, corrupted = (runner.unpatched(encoded, which) for which in ("clean", "corrupted"))
        check_difference(METRIC.name, model.name, clean, corrupted, model.dtype)
        check_whole(runner, encoded, columns, clean)
        return np.stack([clean, corrupted])

    def patched(site: Site) -> np.ndarray:
        own = runner.residuals(encoded[:1], "corrupted", site)[0]
        check_noise(runner, encoded[0], site, [c.positions[0] for c in columns], own, seed)
        values = runner.residuals(encoded, "clean", site)
        return runner.patched(encoded, site, [column.positions for column in columns], values)

    clean, corrupted = row(place, "unpatched", settings, unpatched)
    effects = [
        row(place, str(site), {**settings, "site": str(site)}, partial(patched, site))
        for site in chosen
    ]
    return summarise(
        model=model.name,
        weights_digest=model.weights_digest,
        names=[pair.name for pair in encoded],
        sites=chosen,
        columns=columns,
        clean=clean,
        corrupted=corrupted,
        patched=np.stack(effects),
        n_boot=n_boot,
        seed=seed,
    )


def _sites(model: Model, sites: Sequence[Site | str] | None) -> list[Site]:
    if sites is None:
        return residual_sites(model.n_layers)
    if not sites:
        raise InputError("no site to patch; leave `sites` out for the whole residual stream")
    parsed = [parse_site(str(site), model.n_layers, RESIDUAL) for site in sites]
    return sorted(set(parsed), key=lambda site: (site.depth, site.kind == "resid_pre"))


def _settings(
    model: Model, encoded: Sequence[EncodedPair], columns: Sequence[Column]
) -> dict[str, Any]:
    return {
        "weights": model.weights_digest,
        "tokenizer": model.tokenizer_digest,
        "dtype": str(model.dtype),
        "pairs": digest_pairs(encoded),
        "columns": digest_json([[c.label, c.positions] for c in columns]),
        "metric": METRIC.name,
    }
