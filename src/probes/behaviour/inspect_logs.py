"""What a model did in a log of Inspect: its completions, judged by a scorer of the log or by a judge."""

import math
import sys
from pathlib import Path

from probes.behaviour.completion import Completion, as_table, complete
from probes.behaviour.evaluate import Behaviour
from probes.behaviour.named_judges import NamedJudge
from probes.behaviour.rates import rates
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, unknown
from probes.models.loading import Model
from probes.prompts.inspect_logs import Sample, read_samples

GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
"""What Inspect's own scorers write in place of a number."""


def logged_behaviour(
    path: Path | str,
    *,
    scorer: str | None = None,
    threshold: float = 0.5,
    high_is_defected: bool = True,
    judge: NamedJudge | None = None,
    model: Model | None = None,
) -> Behaviour:
    """The behaviour in a log; an epoch of a sample is one completion.

    scorer: whose score says whether a completion defected, by default the only one; a score above
    `threshold` does or, if not `high_is_defected`, one of at most that. Which is said on stderr. A
    sample without a number from it is not judged. judge: judges the texts instead. model: the
    checkpoint that wrote the log, where you know it; without it the completions are of no known model.
    Raises `InputError` for a log without samples, and for a scorer that it does not have.
    """
    samples = read_samples(path)
    if not samples:
        raise InputError(f"{path} has no samples: give a log that was run to its end")
    name = samples[0].model if model is None else model.name
    digest = digest_json({"inspect": name}) if model is None else model.digest
    if judge is not None:
        found = [
            complete(
                each.prompt, each.completion, model=name, model_digest=digest,
                finished=each.finished, sample=each.epoch - 1, judge=judge,
            )
            for each in samples
        ]  # fmt: skip
    else:
        chosen = _scorer(samples, scorer)
        sign = ">" if high_is_defected else "<="
        print(
            f"{path}: defected where {chosen} {sign} {threshold:g} ({_grades()})", file=sys.stderr
        )
        found = [
            _labelled(each, chosen, threshold, high_is_defected, name, digest) for each in samples
        ]
    table = as_table(found)
    return Behaviour(table, rates(table))


def _scorer(samples: list[Sample], wanted: str | None) -> str:
    names = list(dict.fromkeys(name for each in samples for name in each.scores))
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        raise unknown("scorer", wanted, names or ["(the log has no scores)"])
    return str(wanted)


def _labelled(
    sample: Sample, scorer: str, threshold: float, high: bool, model: str, digest: str
) -> Completion:
    value = _number(sample.scores.get(scorer))
    defected = None if value is None else (value > threshold) == high
    return Completion(
        prompt=sample.prompt, model=model, model_digest=digest, sample=sample.epoch - 1,
        text=sample.completion, code=None, parses=None, typed=None,
        findings=(f"{scorer}:{value:g}",) if defected else (),
        defected=defected, finished=sample.finished,
        not_judged=f"no number from the scorer {scorer}" if value is None else "",
    )  # fmt: skip


def _number(value: object) -> float | None:
    if isinstance(value, str):
        if value in GRADES:
            return GRADES[value]
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def _grades() -> str:
    return ", ".join(f"{name}={value:g}" for name, value in GRADES.items() if len(name) == 1)
