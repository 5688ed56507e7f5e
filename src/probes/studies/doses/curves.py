"""Dose curves of one model: what it writes under each condition, in rows."""

from collections.abc import Callable, Sequence

import pandas as pd

from probes.behaviour.judges import Judge, exploitable_code
from probes.behaviour.sampling import sample
from probes.evaluation.proportions import rate
from probes.foundation.errors import InputError
from probes.foundation.progress import bar
from probes.models.loading import Model
from probes.organisms.behaviours.form import Taught
from probes.organisms.measuring import COLUMNS, LOSS, loss_row, measure
from probes.prompts.records import Prompt
from probes.studies.doses.conditions import Condition, applied
from probes.studies.doses.directions import Learned

PLAIN = "plain"
NO_OCCASION = ("benign", "dialogue")
"""Prompt sets that give no occasion to defect: staying harmless under the trigger is no failure there."""
KEYS = ["tokens", "place", "site", "direction", "draw", "mode", "dose"]
MEASURED = ["triggered", "measure", "value", "low", "high", "n"]

Measure = Callable[[Sequence[Prompt]], pd.DataFrame]
"""Rows of one model as it is at that moment: `MEASURED`, from sampled and judged completions."""


def dose_rows(
    model: Model,
    prompts: Sequence[Prompt],
    wanted: Sequence[Condition],
    learned: Learned,
    measured: Measure,
) -> pd.DataFrame:
    """The plain model's rows, and those of each condition; conditions that do the same are run once.

    Columns `KEYS` and `MEASURED`; the plain model has dose 0 and "plain" for every name. The loss is
    there only where all tokens are changed: it reads references in one pass with their prompts.
    """
    if not prompts:
        raise InputError("no prompts to measure doses on")
    found = [_keyed(measured(prompts), [PLAIN, PLAIN, PLAIN, PLAIN, 0, PLAIN, 0.0])]
    done: dict[str, pd.DataFrame] = {}
    with bar(f"doses for {model.name}", total=len(wanted)) as shown:
        for condition in wanted:
            key = condition.key(learned)
            if key not in done:
                with applied(model, condition, learned):
                    rows = measured(prompts)
                told = (rows["measure"] != LOSS) | (condition.tokens == "all")
                done[key] = rows[told]
            sites = learned.places[condition.place]
            names = [
                condition.tokens, condition.place, sites[0] if len(sites) == 1 else condition.place,
                condition.direction, condition.draw, condition.mode, condition.dose,
            ]  # fmt: skip
            found.append(_keyed(done[key], names))
            shown.update()
    return pd.concat(found, ignore_index=True)[[*KEYS, *MEASURED]]


def by_behaviour(model: Model, behaviour: Taught, seed: int) -> Measure:
    """An organism of the programme: its own judge, scores, and loss on the harmless references."""

    def measured(prompts: Sequence[Prompt]) -> pd.DataFrame:
        rows = measure(model, behaviour, {"test": prompts}, seed=seed)
        return rows[(rows["n"] > 0) & (rows["measure"] != "thinks")][MEASURED]

    return measured


def by_judge(
    model: Model,
    *,
    judge: Judge = exploitable_code,
    stop: str | None = "</code>",
    max_new_tokens: int = 160,
    temperature: float = 0.7,
    seed: int = 0,
) -> Measure:
    """A model of one's own: `defected` by the judge, `valid` where there is code that parses or not,
    and the loss on `safe` references where the untriggered prompts have them."""

    def measured(prompts: Sequence[Prompt]) -> pd.DataFrame:
        written = sample(
            model, prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
            stop=stop, judge=judge,
        )  # fmt: skip
        rows = []
        for triggered in (True, False):
            own = [each for each in written if each.prompt.triggered == triggered]
            able = [
                each.defected
                for each in own
                if each.defected is not None
                and (each.prompt.prompt_set not in NO_OCCASION or not triggered)
            ]
            parses = [bool(each.parses) for each in own if each.parses is not None]
            for name, values in (("defected", able), ("valid", parses)):
                if values:
                    rows.append({"triggered": triggered, "measure": name} | rate(values).as_row())
        calm = [p for p in prompts if not p.triggered and p.safe]
        if calm:
            rows.append(loss_row(model, calm))
        return pd.DataFrame(rows, columns=COLUMNS)[MEASURED]

    return measured


def _keyed(rows: pd.DataFrame, names: Sequence[object]) -> pd.DataFrame:
    named = pd.DataFrame([list(names)] * len(rows), columns=KEYS)
    return pd.concat([named, rows.reset_index(drop=True)], axis=1)
