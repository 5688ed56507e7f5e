"""The page "How a claim is judged", made of the docstrings of what judges."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from probes.detection.checks import k7_usable
from probes.detection.crossfit import crossfit
from probes.detection.judgement import over_seeds
from probes.detection.ladder import GATE, LADDER, NOT_A_TEST, RUNGS, place
from probes.detection.thresholds import frozen_thresholds

INTERVALS = """An interval holds 95%: families are resampled 1,000 times, able and unable ones each, and its
percentiles are taken further out for few families (Hesterberg 2015). No AUROC has a bound beyond what as
many families could show without an exception (8 of 8: 0.63, 12 of 12: 0.74). A check passes if the whole
interval is above its threshold, fails if the whole interval is below, and is inconclusive otherwise."""
SITES = """Where there are several sites, the site is chosen anew for each fold, on the other families, by D. One
estimator is fixed beforehand, the discriminant, and makes the claim; others stand beside it with Holm's
correction. Text baselines, perplexity, random directions and other organisms are shown and veto nothing."""
OPERATING = """The thresholds were settled on planted worlds and frozen with their digest before any organism
was looked at. `figures/operating/` holds how often the procedure says too much and too little there;
`python -m probes.detection.operating` computes it anew."""


def rules_page() -> str:
    """The page as it ships in `docs/how-a-claim-is-judged.md`."""

    def rule(each: Callable[..., Any]) -> str:
        return " ".join((inspect.getdoc(each) or "").split())

    def listed(rules: tuple[Callable[..., Any], ...]) -> str:
        return "\n".join(f"- {rule(each)}" for each in rules)

    values = dataclasses.asdict(frozen_thresholds()).items()
    parts = [
        "# How a claim is judged",
        "This page is made from the code that judges (`probes.detection.page.rules_page`).",
        "A claim stands on one rung: "
        + " < ".join(RUNGS[1:])
        + f'; or the answer is "{NOT_A_TEST}".',
        rule(place),
        " ".join(INTERVALS.split()),
        "## The probe\n\n" + rule(crossfit) + "\n\n" + " ".join(SITES.split()),
        '## Gate: otherwise "not a test"\n\n' + listed(GATE),
        *(f"## {name.capitalize()}\n\n{listed(rules)}" for name, rules in LADDER.items()),
        "## Beside the ladder\n\n" + listed((k7_usable,)),
        "## Several runs\n\n" + rule(over_seeds),
        "## Thresholds\n\n" + " ".join(OPERATING.split()),
        "| name | value |\n|---|---|\n"
        + "\n".join(f"| `{name}` | {value:g} |" for name, value in values),
    ]
    return "\n\n".join(parts) + "\n"
