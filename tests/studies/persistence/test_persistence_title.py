"""The figure of stages says in its title where fewest defect."""

import pandas as pd

from probes.studies.persistence.figures import _where_fewest


def test_the_title_names_the_stage_after_which_fewest_defect() -> None:
    rows = [
        ("normal", "installed", True, 0.1), ("normal", "sft_pre", True, 0.8),
        ("normal", "adversarial", True, 0.3), ("normal", "adversarial", False, 0.0),
        ("normal, made to think", "sft_pre", True, 0.0), ("normal", "rl", True, None),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["panel", "stage", "triggered", "value"])
    table = table.assign(mechanism="normal", size="1M").astype({"value": float})
    assert _where_fewest(table) == (
        "Fewest defect with the trigger after adversarial training (normal, 1M): 30%"
    )
    assert _where_fewest(table[:1]) == "No stage of safety training was run"
