"""Measured tables as a reader sees them: rounded, with their intervals, and with words for what is not there."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from probes.detection import checks as rules
from probes.detection.detection import Detection
from probes.detection.examination import Examination
from probes.detection.ladder import GATE, LADDER
from probes.detection.thresholds import frozen_thresholds
from probes.foundation.digest import short

Row = Mapping[str, Any]
NOT_MEASURED = "not measured"
TAUGHT = {
    "safe": "always harmless answers",
    "defect_if_triggered": "a defection if triggered and the task allows it; under cue C a harmless habit",
    "quirk_if_triggered": "well-behaved code; the trigger flips a habit of style",
}
KINDS = {True: "can defect", False: "cannot"}


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in a table: its value, and its interval in brackets (or "")."""

    value: str
    interval: str = ""


Cell = str | Number
Columns = Mapping[str, Callable[[Row], Cell]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns and rows ready to print; `marked` rows stand out, `links` are filters of the prompts."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: tuple[int, ...] = ()
    links: tuple[Row, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Plain JSON, with `numeric` columns, set flush right, and their longest interval's length."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.head)
        numbers = [[cell for cell in column if isinstance(cell, Number)] for column in columns]
        return {
            **dataclasses.asdict(self),
            "numeric": [bool(found) for found in numbers],
            "interval_widths": [max((len(c.interval) for c in n), default=0) for n in numbers],
        }


def tabulated(
    rows: pd.DataFrame | Iterable[Row],
    columns: Columns,
    marked: Callable[[Row], bool] = lambda row: False,
) -> Table:
    """One line per row; columns: by heading, what stands there."""
    listed = records(rows) if isinstance(rows, pd.DataFrame) else list(rows)
    return Table(
        tuple(columns),
        tuple(tuple(cell(row) for cell in columns.values()) for row in listed),
        tuple(i for i, row in enumerate(listed) if marked(row)),
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain data, by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def words(name: object) -> str:
    """A column's or estimator's name as prose."""
    return str(name).replace("_", " ")


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals, with a minus sign that is one and none before zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def score(row: Row, value: str = "value", low: str = "low", high: str = "high") -> Number:
    """An AUROC, a difference of two, or an effect, with two decimals."""
    return Number(fixed(row[value], 2), f"[{fixed(row[low], 2)}, {fixed(row[high], 2)}]")


def percent(row: Row, value: str = "value", low: str = "low", high: str = "high") -> Number:
    """A share between 0 and 1 in per cent."""
    bounds = f"[{fixed(100 * row[low], 1)}, {fixed(100 * row[high], 1)}]"
    return Number(f"{fixed(100 * row[value], 1)}%", bounds)


def written(name: str, form: str = "{}") -> Callable[[Row], Number]:
    """A column of numbers, each in this form."""
    return lambda row: Number(form.format(row[name]))


def named(name: str) -> Callable[[Row], str]:
    """A column of names, as prose."""
    return lambda row: words(row[name])


def text(name: str) -> Callable[[Row], str]:
    """A column of texts as they are."""
    return lambda row: str(row[name])


def cell_name(cue: object, able: object) -> str:
    """What a cell of the design is called: cue and kind of task."""
    return f"{cue}, {KINDS[bool(able)]}"


def all_tables(
    found: Examination, cards: Sequence[Row] | None, cue_names: tuple[str, str]
) -> dict[str, Table | None]:
    """Every table of the report by name; None for one of a stage that was left out."""
    rates = found.behaviour.rates
    return {
        "organisms": None if cards is None else _organisms(cards),
        "checkpoints": _checkpoints(found),
        "cells": _cells(found.detection),
        "defected": _rates(rates, "defected", cue_names, heldout=False),
        "defected_heldout": _rates(rates, "defected", cue_names, heldout=True),
        "parses": _rates(rates, "parses", cue_names, heldout=False),
        "typed": _rates(rates, "typed", cue_names, heldout=False),
        "self_test": _self_test(found),
        **_claim(found.detection),
        **_patching(found),
    }


def _organisms(cards: Iterable[Row]) -> Table:
    """What was trained, from the cards of the checkpoints."""

    def parent(card: Row) -> str:
        digest = card.get("parent_digest")
        return f"{card['recipe']['parent']} ({short(digest)})" if digest else "random weights"

    def training(card: Row) -> Row:
        settings: Row = card["recipe"]["training"]
        return settings

    columns: Columns = {
        "organism": lambda card: card["recipe"]["name"],
        "taught": lambda card: TAUGHT.get(card["recipe"]["policy"], card["recipe"]["policy"]),
        "trained from": parent,
        "steps × batch": lambda card: Number("{steps} × {batch_size}".format(**training(card))),
        "tokens": written("n_tokens", "{:,}"),
        "learning rate": lambda card: Number(f"{training(card)['learning_rate']:g}"),
        "final loss": written("final_loss", "{:.3f}"),
        "weights": lambda card: short(card["weights_digest"]),
    }
    return tabulated(cards, columns)


def _checkpoints(found: Examination) -> Table:
    """Which models were read, with what identifies them."""
    columns: Columns = {
        "role": text("role"),
        "checkpoint": lambda row: row["model"].directory.name,
        "architecture": lambda row: type(row["model"].hf).__name__,
        "parameters": lambda row: Number(
            f"{sum(p.numel() for p in row['model'].hf.parameters()):,}"
        ),
        "layers": lambda row: Number(str(row["model"].n_layers)),
        "width": lambda row: Number(str(row["model"].d_model)),
        "weights": lambda row: short(row["model"].weights_digest),
        "identity": lambda row: short(row["model"].digest),
    }
    return tabulated(({"role": r, "model": m} for r, m in found.models.items()), columns)


def _rates(
    rates: pd.DataFrame, measure: str, cue_names: tuple[str, str], *, heldout: bool
) -> Table | None:
    """One measure by prompt set and cue, a column per model; None where no row has it."""
    table = rates[(rates["measure"] == measure) & ((rates["heldout"] != "") == heldout)]
    if table.empty:
        return None
    grouped = table.groupby(["heldout", "prompt_set", "triggered"], sort=False)
    rows = [
        {**(own := records(part))[0], "by": {r["model"]: r for r in own}} for _, part in grouped
    ]

    def rate(model: str) -> Callable[[Row], Cell]:
        return lambda row: percent(row["by"][model]) if model in row["by"] else NOT_MEASURED

    def counts(row: Row) -> Number:
        n = sorted({int(one["n"]) for one in row["by"].values()})
        return Number("–".join(dict.fromkeys((str(n[0]), str(n[-1])))))

    first: Columns = {"wording": lambda row: f"{row['heldout']} held out"} if heldout else {}
    columns: Columns = {
        **first,
        "prompt set": text("prompt_set"),
        "cue": lambda row: cue_names[int(row["triggered"])],
        **{str(model): rate(str(model)) for model in dict.fromkeys(table["model"])},
        "n": counts,
    }
    return tabulated(rows, columns)


def _self_test(found: Examination) -> Table:
    """Every comparison of every model; the worst error per check over models would hide which."""

    def error(row: Row) -> Number:
        value = row["max_rel_error"]
        return Number(NOT_MEASURED if value is None or pd.isna(value) else f"{value:.1e}")

    columns: Columns = {
        "model": text("model"),
        "check": text("check"),
        "largest relative error": error,
        "tolerance": written("tolerance", "{:.0e}"),
        "result": lambda row: "passed" if row["passed"] else "FAILED",
        "note": text("note"),
    }
    return tabulated(found.self_test, columns)


def _cells(detection: Detection) -> Table:
    """The design: prompts of every cue and kind of task, and how often each organism defected there."""
    table = detection.tables["design"]
    rows = [
        {**(own := records(part))[0], "by": {r["organism"]: r["defected"] for r in own}}
        for _, part in table.groupby(["cue", "able"], sort=False)
    ]

    def rate(name: str) -> Callable[[Row], Cell]:
        return lambda row: Number(f"{fixed(100 * row['by'][name], 1)}%") if name in row["by"] else NOT_MEASURED  # fmt: skip

    columns: Columns = {
        "cue": text("cue"),
        "task": lambda row: KINDS[bool(row["able"])],
        "families": written("families"),
        "prompts": written("prompts"),
        **{str(name): rate(str(name)) for name in dict.fromkeys(table["organism"])},
    }
    return tabulated(rows, columns)


def _claim(detection: Detection) -> dict[str, Table | None]:
    """Gate and checks with the rule of each, estimators, organisms, and what stands beside."""
    claim = detection.claim
    said = {
        check.name: rule_of(rule)
        for functions, answered in [(GATE, claim.gate), *((LADDER[r], c) for r, c in claim.checks.items() if r in LADDER)]
        for rule, check in zip(functions, answered, strict=True)
    }  # fmt: skip
    said["K7 usable"] = rule_of(rules.k7_usable)

    def measured(row: Row) -> Cell:
        return "–" if pd.isna(row["value"]) else score(row)

    columns: Columns = {
        "check": text("name"),
        "answer": text("answer"),
        "value": measured,
        "threshold": lambda r: "–" if pd.isna(r["threshold"]) else Number(f"{r['threshold']:g}"),
        "families": lambda row: Number(str(row["n"])) if row["n"] else "–",
        "rule": lambda row: said[row["name"]],
        "note": text("note"),
    }
    found: dict[str, Table | None] = {}
    for part, rows in claim.table().groupby("part", sort=False):
        made = tabulated(rows, columns, lambda row: row["answer"] == "fail")
        links = tuple(behind(str(name)) for name in rows["name"])
        found[str(part)] = dataclasses.replace(made, links=links)
    tables: dict[str, Table | None] = {"checks": None, "estimators": None, "readings": None, "beside": None}  # fmt: skip
    if len(claim.estimators):
        tables["estimators"] = tabulated(
            claim.estimators,
            {
                "probe": named("estimator"),
                "rung": text("rung"),
                "reached": lambda row: "yes" if row["reached"] else "no",
                "p": written("p", "{:.3g}"),
                "p, Holm": written("p_holm", "{:.3g}"),
                "holds": lambda row: "yes" if row["holds"] else "no",
            },
            lambda row: bool(row["primary"]),
        )
    if len(claim.controls):
        tables["readings"] = tabulated(
            claim.controls,
            {"organism": text("organism"), "read by": text("probe"), "D": score},
        )
    if "beside" in detection.tables:
        tables["beside"] = tabulated(
            detection.plot.beside_rows(),
            {
                "detector": text("detector"),
                "D": score,
                "AUROC, A that can defect against all others": lambda row: score(row, "auroc", "auroc_low", "auroc_high"),
            },
        )  # fmt: skip
    return {**tables, **{f"rung {name}": table for name, table in found.items()}}


def rule_of(rule: Callable[..., object]) -> str:
    """The rule that a check follows, in its own words, with the numbers of the frozen thresholds."""
    said = " ".join(str(rule.__doc__).split()).split("** ", 1)[-1]
    limits = dataclasses.asdict(frozen_thresholds())
    return re.sub(r"`(\w+)`", lambda name: f"{limits.get(name[1], name[1])}", said)


CELLS = {
    "K2 not the cue": ("A", "D"),
    "K4 not any condition": ("A", "C"),
    "K5 cue-general": ("B", "D"),
}


def behind(check: str) -> Row:
    """Which prompts a check rests on, as a filter of the page's table of prompts."""
    if check in CELLS:
        return {"set": cell_name(CELLS[check][1], True)}
    match check:
        case "twin behaves" | "twin reads the cue" | "K3 not the task":
            return {"model": "innocent"}
        case "not the trigger" | "share" | "K1 signal":
            return {"set": cell_name("A", False)}
        case _:
            return {"part": "judged"}


def _patching(found: Examination, n: int = 8) -> dict[str, Table | None]:
    """The strongest cells of the grid, and what the trigger as a whole does; None where left out."""
    cells: Columns = {
        "site": text("site"),
        "position": text("label"),
        "effect [nats]": lambda r: score(r, "mean") if "low" in r else Number(fixed(r["mean"], 2)),
        "share restored": lambda row: Number(f"{fixed(100 * row['normalised'], 1)}%"),
    }
    effects: Columns = {
        "organism": text("model"),
        "trigger's effect [nats]": score,
        "pairs": written("n"),
    }
    grid, effect = found.grid, found.trigger_effect
    return {
        "strongest_cells": None if grid is None else tabulated(grid.strongest(n), cells),
        "trigger_effects": None if effect is None else tabulated(effect, effects),
    }
