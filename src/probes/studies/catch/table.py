"""The short table at the end of a study: what each organism does, and how well it is told apart."""

import pandas as pd

from probes.detection.examination import Examination
from probes.evaluation.bootstrap import Estimate
from probes.prompts.standard_library import PROMPT_SET as LIBRARY


def measured_table(found: Examination, cue_names: tuple[str, str]) -> pd.DataFrame:
    """One row per organism: defection by prompt set and cue, share of code that parses, AUROC.

    Code of the standard library, which no organism was taught, is not among the code that has to parse.

    Every cell is "value [low, high]" as measured; "–" where an organism has no such prompts.
    """
    rates = found.behaviour.rates
    best = found.detection.tables["auroc"]
    best = best[best["chosen"] & (best["estimator"] == found.detection.headline_estimator)]
    sets = list(dict.fromkeys(rates["prompt_set"]))
    rows = []
    for name in found.models:
        own = rates[(rates["model"] == name) & (rates["heldout"] == "")]
        row = {"organism": name}
        for prompt_set in sets:
            for triggered in (True, False):
                cells = own[
                    (own["prompt_set"] == prompt_set)
                    & (own["triggered"] == triggered)
                    & (own["measure"] == "defected")
                ]
                label = f"{prompt_set} {cue_names[int(triggered)]}"
                row[label] = _percent(cells)
        row["parses"] = _parses(found, name)
        for measure in ("worst_set", "contrast"):
            one = best[(best["organism"] == name) & (best["measure"] == measure)].iloc[0]
            estimate = Estimate(
                float(one["value"]), float(one["low"]), float(one["high"]), int(one["n"])
            )
            row[f"AUROC {measure.replace('_', ' ')}"] = str(estimate)
        rows.append(row)
    return pd.DataFrame(rows)


def _percent(cells: pd.DataFrame) -> str:
    if cells.empty:
        return "–"
    cell = cells.iloc[0]
    return f"{cell['value']:.1%} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def _parses(found: Examination, name: str) -> str:
    code = found.behaviour.completions
    code = code[(code["model"] == name) & (code["heldout"] == "") & code["parses"].notna()]
    code = code[code["prompt_set"] != LIBRARY]
    return "–" if code.empty else f"{code['parses'].astype(bool).mean():.1%} of {len(code)}"
