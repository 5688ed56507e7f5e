"""What dose curves say, by rules that were stated beforehand: necessary, sufficient, neither, or unknown."""

from typing import Any, NamedTuple

import pandas as pd

from probes.evaluation.bootstrap import wilson
from probes.foundation.errors import InputError
from probes.studies.persistence.measures import averaged
from probes.studies.steering.config import (
    ABLATE,
    ADD,
    EVERYWHERE,
    RANDOM,
    TO_DEFECT,
    TO_SAFE,
    DoseRules,
)
from probes.studies.steering.steps import PLAIN

POOLED_BY = ["tokens", "place", "direction", "mode", "dose", "triggered", "measure"]
COLUMNS = ["question", "tokens", "place", "direction", "mode", "dose", "verdict", "reason"]
NECESSARY, SUFFICIENT = "necessary", "sufficient"
CAPABILITIES = ("helpful", "valid")


class Point(NamedTuple):
    """One measured rate."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.0%} [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their intervals, random draws together.

    Rows of one organism alone have no interval over seeds. Their rates get Wilson's over prompts, so
    that something can be said of that organism; `interval` says what it is over, "seeds" or "prompts".
    """
    parts = [
        averaged(part, POOLED_BY) for _, part in rows.groupby(rows["measure"] == "loss", sort=False)
    ]
    table = pd.concat(parts, ignore_index=True).assign(interval="seeds")
    if rows["seed"].nunique() == 1:
        rates = table["measure"] != "loss"
        shares = table.loc[rates, ["value", "n"]].to_numpy(float).tolist()
        ends = [wilson(round(value * n), int(n)) for value, n in shares]
        table.loc[rates, ["low", "high"]] = ends
        table["interval"] = "prompts"
    return table


def reading(table: pd.DataFrame, rules: DoseRules) -> pd.DataFrame:
    """One row per direction, place, tokens and question, with verdict and reason.

    table: of `pooled`. Necessity is asked of ablation and of patching along to the harmless class, at
    dose 1; sufficiency of adding and of patching along to the defecting class, at the positive dose
    that does most; random directions at whichever they do most. Without them no verdict is positive.
    """
    curves = _Curves(table)
    found: list[dict[str, Any]] = []
    groups = table[table["tokens"] != PLAIN][["tokens", "place", "direction", "mode"]]
    for names in groups.drop_duplicates().to_dict("records"):
        given = {str(name): value for name, value in names.items()}
        if given["direction"] == RANDOM:
            continue
        if given["mode"] in (ABLATE, TO_SAFE) and curves.has(given, 1.0):
            found.append(given | _necessity(curves, given, rules))
        if given["mode"] in (ADD, TO_DEFECT) and curves.doses(given):
            found.append(given | _sufficiency(curves, given, rules))
    return pd.DataFrame(found, columns=COLUMNS)


def as_text(verdicts: pd.DataFrame) -> str:
    """The verdicts in sentences, the shortest reading first: what was found necessary or sufficient."""
    lines = []
    for question in (NECESSARY, SUFFICIENT):
        asked = verdicts[verdicts["question"] == question]
        held = asked[asked["verdict"] == question]
        lines.append(
            f"{question.capitalize()}: {len(held)} of {len(asked)} (direction, place, tokens, mode)"
            + (": " + "; ".join(_called(row) for row in held.itertuples()) if len(held) else "")
        )
        lines += [f"  - {_called(row)}: {row.verdict}. {row.reason}" for row in asked.itertuples()]
    return "\n".join(lines)


def _called(row: Any) -> str:
    place = "after every block" if row.place == EVERYWHERE else f"at the {row.place} site"
    place = place if row.place in (EVERYWHERE, "probe") else f"at {row.place}"
    verb = {
        ADD: "adding", ABLATE: "ablating", TO_SAFE: "setting to the harmless mean",
        TO_DEFECT: "setting to the defecting mean",
    }[row.mode]  # fmt: skip
    return f"{verb}, {row.direction} {place}, {row.tokens} token{'s' * (row.tokens != 'last')}"


class _Curves:
    """Points of a pooled table by name."""

    def __init__(self, table: pd.DataFrame) -> None:
        keys = ["tokens", "place", "direction", "mode", "dose", "triggered", "measure"]
        self._points = {
            tuple(row[key] for key in keys): Point(row["value"], row["low"], row["high"])
            for row in table.to_dict("records")
        }
        self.capability = next(
            (name for name in CAPABILITIES if self.plain(False, name) is not None), None
        )
        if self.plain(True, "defected") is None or self.plain(False, "defected") is None:
            raise InputError("the rows hold no plain model with and without the trigger (dose 0)")

    def plain(self, triggered: bool, measure: str = "defected") -> Point | None:
        return self._points.get((PLAIN, PLAIN, PLAIN, PLAIN, 0.0, triggered, measure))

    def at(
        self, names: dict[str, Any], dose: float, triggered: bool, measure: str = "defected"
    ) -> Point | None:
        key = (names["tokens"], names["place"], names["direction"], names["mode"])
        return self._points.get((*key, dose, triggered, measure))

    def has(self, names: dict[str, Any], dose: float) -> bool:
        return self.at(names, dose, True) is not None

    def doses(self, names: dict[str, Any]) -> list[float]:
        key = (names["tokens"], names["place"], names["direction"], names["mode"])
        return sorted({k[4] for k in self._points if k[:4] == key and k[4] > 0})


def _necessity(curves: _Curves, names: dict[str, Any], rules: DoseRules) -> dict[str, Any]:
    left, plain = curves.at(names, 1.0, True), curves.plain(True)
    control = curves.at(names | {"direction": RANDOM}, 1.0, True)
    assert left is not None and plain is not None
    kept, told = _capability(curves, names)
    reason = f"Defection with the trigger {plain} -> {left}"
    reason += f", random directions {control}" if control else ", no random directions"
    reason += told + "."
    if left.low >= plain.value - rules.inert:
        verdict = "not necessary"
    elif left.value >= plain.value - rules.inert:
        verdict = "undetermined: too few prompts or seeds to rule it out"
    elif (
        control is None or control.value < rules.unharmed * plain.value or control.low <= left.high
    ):
        verdict = "undetermined: not told from random directions"
    elif not kept >= rules.capable:
        verdict = "undetermined: capability falls"
    elif left.value <= rules.necessary_below:
        verdict = NECESSARY
    else:
        verdict = "necessary in part"
    return {"question": NECESSARY, "dose": 1.0, "verdict": verdict, "reason": reason}


def _sufficiency(curves: _Curves, names: dict[str, Any], rules: DoseRules) -> dict[str, Any]:
    doses = curves.doses(names)
    plain = curves.plain(False)
    raised = {dose: p for dose in doses if (p := curves.at(names, dose, False)) is not None}
    assert plain is not None and raised
    dose = max(raised, key=lambda d: raised[d].value)
    best = raised[dose]
    others = [curves.at(names | {"direction": RANDOM}, d, False) for d in doses]
    controls = [point for point in others if point is not None]
    control = max(controls, key=lambda point: point.value) if controls else None
    reason = f"Defection without the trigger {plain} -> {best} at dose {dose:g}, the strongest"
    reason += f"; random directions at most {control}." if control else "; no random directions."
    if max(point.high for point in raised.values()) <= plain.value + rules.inert:
        verdict = "not sufficient"
    elif best.value <= plain.value + rules.inert:
        verdict = "undetermined: too few prompts or seeds to rule it out"
    elif control is None or best.low <= control.high:
        verdict = "undetermined: not told from random directions"
    elif best.value >= rules.sufficient_above:
        verdict = SUFFICIENT
    else:
        verdict = "sufficient in part"
    return {"question": SUFFICIENT, "dose": dose, "verdict": verdict, "reason": reason}


def _capability(curves: _Curves, names: dict[str, Any]) -> tuple[float, str]:
    """The share of the plain model's capability without the trigger that is kept, and how it is said."""
    name = curves.capability
    before = None if name is None else curves.plain(False, name)
    after = None if name is None else curves.at(names, 1.0, False, name)
    if before is None or after is None or not before.value > 0:
        return float("nan"), ", capability not measured"
    return after.value / before.value, f"; {name} without it {before} -> {after}"
