"""Does the probe's direction lie where patching finds the effect, and does it carry that effect?

A mean-difference probe per site and column, fitted on pairs that are not patched and judged on others;
and the grid once more with only the part of the difference taken over that lies along its direction.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from probes.evaluation.auroc import auroc
from probes.foundation.progress import progress
from probes.foundation.seeds import stream
from probes.models.loading import Model
from probes.models.sinks import SinkRule
from probes.patching.engine.packing import pack
from probes.patching.engine.trunk import Place, Trunk
from probes.patching.exact import patch_cells
from probes.patching.jobs import Settings
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell, Part
from probes.patching.sources import Along, Plan
from probes.probing.estimators import MeanDifferenceProbe
from probes.studies.localisation.config import WhereConfig
from probes.studies.localisation.grids import Asked, sites_of, with_kinds
from probes.studies.localisation.questions import ANSWER, CUE

PROBE, RANDOM, WHOLE = "probe", "random", "whole"
AT_ONCE = 8  # pairs that are run together

# By site and column: mean activation of each pair, without and with the trigger.
Means = dict[tuple[str, int, int], Float[np.ndarray, "pair version d_model"]]
Directions = dict[tuple[str, int, int], Float[np.ndarray, "d_model"]]


def column_means(model: Model, asked: Asked) -> Means:
    """Means over each column's tokens, by site, for the untriggered and the triggered version."""
    trunk = Trunk(model.hf, model.pad_id)
    sites = [(kind, layer, Part(kind, layer).place) for kind, layer in sites_of(model)]
    found: dict[tuple[str, int, int], list[np.ndarray]] = {}
    starts = range(0, len(asked.pairs), AT_ONCE)
    for start in progress(starts, "activations", total=len(starts)):
        members = range(start, min(start + AT_ONCE, len(asked.pairs)))
        both = [
            _run(trunk, asked, members, clean, [s[2] for s in sites], model.sinks.rule)
            for clean in (False, True)
        ]
        for kind, layer, place in sites:
            for number in range(len(asked.columns)):
                means = np.stack([version[place, number] for version in both], axis=1)
                found.setdefault((kind, layer, number), []).append(means)
    return {key: np.concatenate(parts) for key, parts in found.items()}


def _run(
    trunk: Trunk,
    asked: Asked,
    members: range,
    clean: bool,
    places: list[Place],
    rule: SinkRule | None,
) -> dict[tuple[Place, int], Float[np.ndarray, "pair d_model"]]:
    pairs = [asked.pairs[i] for i in members]
    rows = [pack(p.name, p.clean if clean else p.corrupted, (p.defect, p.safe)) for p in pairs]
    with torch.no_grad():
        kept = trunk.record(rows, [place for place in places if place[0] != "stream"])
    sinks = kept.sinks(rule).tolist()
    return {
        (place, number): np.stack(
            [
                _mean(kept.at(place)[row], asked.pairs[i], column.positions[i], clean, sinks[row])
                for row, i in enumerate(members)
            ]
        )
        for place in places
        for number, column in enumerate(asked.columns)
    }


def _mean(
    values: torch.Tensor, pair: EncodedPair, slots: tuple[int, ...], clean: bool, sinks: list[bool]
) -> Float[np.ndarray, "d_model"]:
    """Over the tokens that are no attention sinks; of sinks alone, over these."""
    where = list(pair.where(slots, clean))
    kept = [i for i in where if not sinks[i]] or where
    found: np.ndarray = values[kept].double().mean(0).cpu().numpy()
    return found


def readings(fitted: Means, judged: Means, asked: Asked) -> tuple[pd.DataFrame, Directions]:
    """AUROC of the probe of every site and column on pairs that it was not fitted on; the directions.

    Columns: `kind`, `block`, `where`, `auroc`, `n` (judged prompts). Where nothing varies there is no
    direction, and the AUROC is that of a constant score, 0.5.
    """
    rows, directions = [], Directions()
    for (kind, layer, number), known in fitted.items():
        X, y = _labelled(known)
        probe = MeanDifferenceProbe().fit(X, y)
        if np.linalg.norm(probe.coef_[0]) > 0:
            directions[kind, layer, number] = probe.coef_[0]
        others, truth = _labelled(judged[kind, layer, number])
        rows.append(
            {
                "kind": kind,
                "block": layer,
                "where": asked.columns[number].label,
                "auroc": auroc(truth, probe.decision_function(others)),
                "n": len(truth),
            }
        )
    return pd.DataFrame(rows), directions


def _labelled(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return means.reshape(-1, means.shape[-1]), np.tile([False, True], len(means))


def carried(
    model: Model, asked: Asked, directions: Directions, config: WhereConfig
) -> pd.DataFrame:
    """What patching along the probe's direction alone restores, and along random ones [nats].

    Columns: `kind`, `block`, `where`, `along` ("probe", "random"), `draw`, `mean`, `low`, `high`;
    residual stream only, at the cue, the columns of the answer, and the answer as a whole.
    """
    cells = _stream_cells(model, asked, directions)
    if not cells:
        return pd.DataFrame()
    draws = stream(config.seed, "random directions")
    found = []
    for number in range(config.n_random + 1):
        along = tuple(
            Along(
                Part(kind, layer).place,
                column,
                tuple(float(x) for x in (draws.normal(size=len(one)) if number else one)),
            )
            for (kind, layer, column), one in directions.items()
            if kind in ("resid_pre", "resid_post")
        )
        effects = patch_cells(
            model, asked.pairs, cells, asked.columns,
            plan=Plan("denoise", "projected", config.seed, along), n_boot=config.n_boot, n_flips=0,
            settings=Settings(seed=config.seed), seed=config.seed,
        )  # fmt: skip
        name = RANDOM if number else PROBE
        found.append(with_kinds(effects.rows).assign(along=name, draw=number))
    return pd.concat(found, ignore_index=True).drop(columns=["head", "site"])


def _stream_cells(model: Model, asked: Asked, directions: Directions) -> list[Cell]:
    cue = asked.index(CUE)
    single = [i for i in (cue, *asked.answer) if i is not None]
    found = []
    for kind, layer in sites_of(model):
        if kind not in ("resid_pre", "resid_post"):
            continue
        known = [i for i in single if (kind, layer, i) in directions]
        for i in known:
            label = asked.columns[i].label
            found.append(Cell((Part(kind, layer, None, i),), f"{kind}.{layer}", label, i))
        parts = tuple(Part(kind, layer, None, i) for i in asked.answer if i in known)
        if parts:
            found.append(Cell(parts, f"{kind}.{layer}", ANSWER, len(asked.columns)))
    return found
