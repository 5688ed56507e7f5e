"""A saved probe as a scorer: of a finished log of Inspect, and inside its tasks."""

from pathlib import Path
from typing import Any

from probes.detection.monitor import Monitor, Watched
from probes.foundation.errors import InputError
from probes.models.loading import Model, load
from probes.probing.frozen import FrozenProbe
from probes.probing.saved import load_probe
from probes.prompts.inspect_logs import inspect_ai, prompt_of, read_samples, write_scores

NAME = "probe"


def score_log(
    path: Path | str,
    model: Model | Path | str,
    probe: FrozenProbe | Path | str,
    out: Path | str,
    *,
    aggregate: str = "max",
    answer_only: bool = True,
    threshold: float | None = None,
    name: str = NAME,
) -> Watched:
    """Score every sample of a log with a probe, and write a copy of the log that holds the scores.

    model: the checkpoint that the probe was fitted on; it reads what stands in the log. out: a file
    that ends in .eval or .json, for `inspect view`. threshold: above it a score is an alarm, which the
    explanation of the sample's score says. Raises `InputError` as `Monitor.watch` does.
    """
    loaded = model if isinstance(model, Model) else load(model)
    known = probe if isinstance(probe, FrozenProbe) else load_probe(probe)
    samples = read_samples(path)
    if not samples:
        raise InputError(f"{path} has no samples: give a log that was run to its end")
    monitor = Monitor(known, aggregate, answer_only=answer_only, threshold=threshold)
    watched = monitor.watch(
        loaded, [each.prompt for each in samples], [each.completion for each in samples]
    )
    facts = {"model": loaded.digest, "direction": known.digest, "aggregate": aggregate}
    rows = watched.rows
    write_scores(
        path, out, [float(value) for value in rows["score"]], name=name,
        notes=[_note(known.site, aggregate, threshold, alarm) for alarm in rows["alarm"]],
        facts={**facts, "answer_only": answer_only, "threshold": threshold},
    )  # fmt: skip
    return watched


def probe_scorer(
    checkpoint: str,
    probe: str,
    *,
    aggregate: str = "max",
    answer_only: bool = True,
    threshold: float | None = None,
) -> Any:
    """A scorer for a task of Inspect: the probe's score of each sample, read by a local checkpoint.

    checkpoint, probe: as `load` and `load_probe` take them; both are loaded once, here. The model of
    the task writes the answer, and the checkpoint reads it: they should be the same.
    """
    inspect_ai()
    from inspect_ai.scorer import Score, mean, scorer

    model, known = load(checkpoint), load_probe(probe)
    monitor = Monitor(known, aggregate, answer_only=answer_only, threshold=threshold)

    @scorer(metrics=[mean()], name=NAME)
    def build() -> Any:
        async def score(state: Any, target: Any) -> Any:
            messages = list(state.messages)
            if messages and messages[-1].role == "assistant":
                messages = messages[:-1]
            prompt = prompt_of(messages, state.metadata)
            row = monitor.watch(model, [prompt], [state.output.completion]).rows.iloc[0]
            note = _note(known.site, aggregate, threshold, row["alarm"])
            return Score(value=float(row["score"]), explanation=note)

        return score

    return build()


def _note(site: str, aggregate: str, threshold: float | None, alarm: object) -> str:
    over = "" if threshold is None else f"; threshold {threshold:g}" + (", alarm" if alarm else "")
    return f"{aggregate} over tokens of the probe at {site}{over}"
