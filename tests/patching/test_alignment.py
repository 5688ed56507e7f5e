"""Versions of a prompt that differ in length: what is matched, and that patching moves just that."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from patching_cases import TASKS, prompt, random_model

from probes import api
from probes.foundation.errors import InputError
from probes.models import templates
from probes.models.loading import Model
from probes.patching.attribution import attribute_cells
from probes.patching.checks import sequences, whole_logits, whole_values
from probes.patching.engine.packing import pack
from probes.patching.exact import patch_cells, residual_grid, trigger_effect
from probes.patching.pairs import (
    EncodedPair,
    PatchPair,
    encode_pairs,
    make_pairs,
    match_tokens,
)
from probes.patching.parts import Cell, Part, grid_cells
from probes.patching.paths import patch_paths, readers_of
from probes.patching.sources import Along, Plan
from probes.patching.spans import Column, make_columns
from tiny import CHAT

NATS = 1e-4
NONE = {"n_boot": 0, "n_flips": 0}
TAGGED = "Human: {tag}{task} now\nAssistant:"


@pytest.fixture(scope="module")
def tagged() -> list[PatchPair]:
    """Pairs whose triggered version has a tag that the other lacks."""
    return make_pairs(
        [
            prompt(t, t, flag, text=TAGGED.format(tag="|DEP| " if flag else "", task=t))
            for t in TASKS
            for flag in (True, False)
        ]
    )


@pytest.fixture(scope="module")
def encoded(tagged, tokenizer) -> list[EncodedPair]:
    return encode_pairs(tagged, tokenizer)


@pytest.mark.parametrize(
    ("clean", "corrupted", "matched"),
    [
        ("abXYcd", "abcd", "00 11 42 53"),
        ("abcd", "abXYcd", "00 11 24 35"),
        ("ab4cd", "ab3cd", "00 11 22 33 44"),
        ("aPQbRc", "aSTbc", "00 11 22 33 54"),  # PQ was replaced by ST, R by nothing
        ("aPbc", "aSTbc", "00 11 23 34"),  # what was replaced, from both ends
        ("aPQRbc", "aSTbc", "00 11 32 43 54"),
        ("aaa", "aa", "00 11"),
        ("ab", "cd", "00 11"),
        ("abQ", "cd", "00 21"),
    ],
)
def test_matches_by_hand(clean: str, corrupted: str, matched: str) -> None:
    found = match_tokens([ord(c) for c in clean], [ord(c) for c in corrupted])
    assert found == tuple((int(a), int(b)) for a, b in matched.split())


def test_what_has_no_counterpart_is_said(tagged, tokenizer, capsys, monkeypatch) -> None:
    monkeypatch.setattr(templates, "_said", set())
    encode_pairs(tagged, tokenizer)
    said = capsys.readouterr().err
    assert (
        f"{len(TASKS)} of {len(TASKS)} pairs differ in length" in said and "0 to 0 without" in said
    )
    apart = dataclasses.replace(tagged[0].clean, text=tagged[0].clean.text + " |DEP|")
    broken = dataclasses.replace(tagged[0], clean=apart)
    with pytest.raises(InputError, match="last tokens") as error:
        encode_pairs([broken], tokenizer)
    assert "[|]" in str(error.value) and "with:" in str(error.value)


def test_pairs_of_equal_length_are_matched_by_position(pairs, tokenizer) -> None:
    assert all(pair.matched is None for pair in encode_pairs(pairs, tokenizer))


def test_columns_hold_the_tokens_that_both_versions_have(tagged, encoded, tokenizer) -> None:
    columns = make_columns(tagged, encoded, tokenizer, spans={"task": r"(?<=Human: )\S+"})
    for i, pair in enumerate(encoded):
        slots = [s for column in columns for s in column.positions[i]]
        assert slots == list(range(len(pair.slots)))
        clean, corrupted = pair.where(slots, True), pair.where(slots, False)
        assert [pair.clean[p] for p in clean] == [pair.corrupted[p] for p in corrupted]
        assert corrupted == tuple(range(len(pair.corrupted)))
    by_label = {column.label: column for column in columns}
    assert "|" not in "".join(by_label)
    texts = [
        tokenizer.decode([pair.corrupted[p] for p in pair.where(at, False)])
        for pair, at in zip(encoded, by_label["task"].positions, strict=True)
    ]
    assert [text.strip().split()[0] for text in texts] == [task.split()[0] for task in TASKS]


def by_hand(model: Model, pair: EncodedPair, direction: str, cell: Cell, slots: list[int]) -> float:
    """The metric with one part patched by full passes; what stands for what is found from the tag.

    The tag is all that differs, so a token behind it lies `shift` further right in the clean version.
    """
    start = next(
        i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupted, strict=False)) if a != b
    )
    shift = len(pair.clean) - len(pair.corrupted)
    run, other = (
        (pair.corrupted, pair.clean) if direction == "denoise" else (pair.clean, pair.corrupted)
    )
    (part,) = cell.parts
    row = pack("x", run, (pair.defect, pair.safe))
    puts = []
    for tokens, _ in sequences(row):
        ending = tokens[len(run) :]
        values = whole_values(model.hf, [*other, *ending], part.place)[0]
        corrupted = slots if slots else list(range(len(pair.corrupted) + len(ending)))
        clean = [p + shift if p >= start else p for p in corrupted]
        here, there = (corrupted, clean) if direction == "denoise" else (clean, corrupted)

        def put(activation, here=here, there=there, values=values):
            changed = activation.clone()
            if part.head is None:
                changed[0, here] = values[there]
            else:
                changed[0, here, part.head] = values[there, part.head]
            return changed

        puts.append(put)
    return summed(row, whole_logits(model.hf, row, {part.place: puts}))


def answered(model: Model, pair: EncodedPair, place, at: int, value) -> float:
    """The metric of the untriggered version with one value at one place of the residual stream."""

    def put(activation):
        changed = activation.clone()
        changed[0, at] = value
        return changed

    row = pack("x", pair.corrupted, (pair.defect, pair.safe))
    return summed(row, whole_logits(model.hf, row, {place: [put, put]}))


def summed(row, logits) -> float:
    each = logits.log_softmax(-1)
    return sum((-1.0 if t.branch else 1.0) * float(each[t.read, t.token]) for t in row.targets)


@pytest.mark.parametrize(("direction", "architecture"), [("denoise", "llama"), ("noise", "gpt2")])
def test_cells_equal_full_passes_with_explicit_positions(
    architecture, direction, tagged, encoded, tokenizer
) -> None:
    model = random_model(architecture, tokenizer)
    columns = make_columns(tagged, encoded, tokenizer)
    cells = grid_cells(model.hf, ["resid_pre", "resid_post", "attn_out", "mlp_out", "v"], columns)
    cells += grid_cells(model.hf, ["z"], None, heads=True) + grid_cells(model.hf, ["resid_post"])
    found = patch_cells(model, encoded, cells, columns, plan=Plan(direction), **NONE)
    table = found.per_prompt
    moved = 0
    order = [c for site in dict.fromkeys(c.site for c in cells) for c in cells if c.site == site]
    for number in range(0, len(order), 3):
        cell = order[number]
        for i in (0, len(encoded) - 1):
            seen = table[(table["cell"] == number) & (table["pair"] == encoded[i].name)].iloc[0]
            slots = [] if cell.column < 0 else list(columns[cell.column].positions[i])
            right = by_hand(model, encoded[i], direction, cell, slots)
            assert abs(right - seen["patched"]) < NATS, (cell, i)
            moved += abs(seen["effect"]) > 10 * NATS
    assert moved > 5


def test_everything_behind_the_tag_restores_what_the_tag_said_to_it(
    llama, tagged, encoded, tokenizer
) -> None:
    """The last residual stream at all matched tokens is all that the answer is read from."""
    cells = grid_cells(llama.hf, ["resid_post"], layers=[1])
    found = patch_cells(llama, encoded, cells, **NONE)
    assert found.rows["normalised"].iloc[0] == pytest.approx(1.0, abs=1e-3)
    assert abs(found.per_prompt["effect"]).min() > 1e-2


@pytest.mark.parametrize("values", ["mean", "resampled", "placebo"])
def test_foreign_values_come_from_the_same_column(
    llama, tagged, encoded, tokenizer, values
) -> None:
    columns = make_columns(tagged, encoded, tokenizer)
    cells = grid_cells(llama.hf, ["resid_post"], columns, layers=[0])
    found = patch_cells(llama, encoded, cells, columns, plan=Plan(values=values), **NONE)
    assert found.per_prompt["effect"].abs().max() > 10 * NATS
    # The donor of a placebo is run as the receiver is: the tag has no part in it.
    last = len(columns) - 1
    donors = Plan(values=values).donors(len(encoded))
    table = found.per_prompt[found.per_prompt["cell"] == last].reset_index()
    for i, pair in enumerate(encoded):
        donor = encoded[donors[i]]
        if values == "mean":
            continue
        given = donor.corrupted if values == "placebo" else donor.clean
        put = whole_values(llama.hf, given, ("stream", 1))[0, -1]
        right = answered(llama, pair, ("stream", 1), len(pair.corrupted) - 1, put)
        assert abs(right - table["patched"][i]) < NATS


def test_what_a_position_turns_is_refused(llama, tagged, encoded, tokenizer) -> None:
    for kind in ("q", "k", "pattern"):
        with pytest.raises(InputError, match="differ in length"):
            patch_cells(llama, encoded, grid_cells(llama.hf, [kind]), **NONE)


def test_every_way_of_patching_takes_them(llama, tagged, encoded, tokenizer) -> None:
    prompts = [p for pair in tagged for p in (pair.clean, pair.corrupted)]
    assert api.patch(llama, prompts, kinds=["resid_pre"], n_boot=0).n_pairs == len(tagged)
    assert residual_grid(llama, tagged, n_boot=0).n_pairs == len(tagged)
    assert trigger_effect(llama, tagged, n_boot=9).value != 0
    assert api.lens(llama, prompts).lens.n_pairs == len(tagged)
    found = api.circuit(llama, prompts, kinds=["mlp_out"], directions=["denoise"], n_random=2)
    assert found.found["denoise"].n_pairs == len(tagged)
    with pytest.raises(InputError, match="differ in length"):
        api.attribute(llama, prompts, kinds=["k"])
    with pytest.raises(InputError, match="along='site'"):
        api.attribute(llama, prompts, kinds=["resid_pre"], n_steps=2, along="inputs")


def test_integrated_estimates_add_up_to_the_exact_effect(llama, tagged, encoded, tokenizer) -> None:
    """Completeness along a site holds only if what is moved is what exact patching moves."""
    columns = make_columns(tagged, encoded, tokenizer)
    for kind in ("resid_post", "attn_out", "z"):
        by_column = grid_cells(llama.hf, [kind], columns, layers=[0])
        whole = patch_cells(llama, encoded, grid_cells(llama.hf, [kind], layers=[0]), **NONE)
        parts = attribute_cells(llama, encoded, by_column, columns, n_steps=24, **NONE)
        everywhere = attribute_cells(
            llama, encoded, grid_cells(llama.hf, [kind], layers=[0]), n_steps=24, **NONE
        )
        exact = whole.per_prompt["effect"].to_numpy()
        assert abs(exact).max() > 1e-2
        np.testing.assert_allclose(everywhere.per_prompt["effect"], exact, atol=2e-3)
        summed = parts.per_prompt.groupby("pair", sort=False)["effect"].sum()
        assert (summed.to_numpy() - exact).max() < 2e-3


def test_paths_from_everything_to_the_logits_are_the_direct_effect(
    llama, tagged, encoded, tokenizer
) -> None:
    """The last block's output reaches the logits alone, so that path equals the exact patch."""
    cells = grid_cells(llama.hf, ["mlp_out"], layers=[1])
    exact = patch_cells(llama, encoded, cells, **NONE)
    found = patch_paths(llama, encoded, cells, readers_of(llama.hf, ["logits"]), **NONE)
    assert exact.per_prompt["effect"].abs().max() > 1e-2
    np.testing.assert_allclose(
        found.per_prompt["effect"], exact.per_prompt["effect"], atol=10 * NATS
    )


def test_one_prompt_is_patched_where_the_other_stands_for_it(llama, tagged, encoded) -> None:
    pair, ids = tagged[0], encoded[0]
    acts = llama.run(pair.clean, pair.corrupted)
    found = llama.patch(pair.corrupted, acts, "resid_post.1", -1)
    whole = llama.patch(pair.corrupted, acts, "resid_post.1")
    assert found.log_probs["after"] == pytest.approx(found.log_probs["source"], abs=1e-4)
    assert whole.positions == tuple(j for _, j in ids.slots)
    tag = next(i for i, (a, b) in enumerate(zip(ids.clean, ids.corrupted, strict=False)) if a != b)
    with pytest.raises(InputError, match="stands for"):
        llama.patch(pair.clean, acts, "resid_post.1", tag)


def test_a_projection_moves_only_along_its_direction(llama, pairs, tokenizer) -> None:
    encoded = encode_pairs(pairs, tokenizer)
    columns = make_columns(pairs, encoded, tokenizer)
    last = len(columns) - 1
    cell = Cell((Part("resid_post", 0, None, last),), "resid_post.0", "last", last)
    torch.manual_seed(0)
    direction = torch.randn(llama.d_model, dtype=torch.float64)
    along = Along(("stream", 1), last, tuple(direction.tolist()))
    found = patch_cells(
        llama, encoded, [cell], columns, plan=Plan(values="projected", along=(along,)), **NONE
    )
    unit = direction / direction.norm()
    for i, pair in enumerate(encoded):
        ran, other = (
            whole_values(llama.hf, ids, ("stream", 1))[0, -1]
            for ids in (pair.corrupted, pair.clean)
        )
        value = (ran.double() + ((other - ran).double() @ unit) * unit).float()
        right = answered(llama, pair, ("stream", 1), pair.n_prompt - 1, value)
        assert abs(right - found.per_prompt["patched"][i]) < NATS
        # Along the very difference nothing is lost.
        exact = Along(("stream", 1), 0, tuple((other - ran).tolist()))
        one = [Column("last", (columns[last].positions[i],))]
        cells = [Cell((Part("resid_post", 0, None, 0),), "resid_post.0", "last", 0)]
        plans = Plan(), Plan(values="projected", along=(exact,))
        whole, same = (
            patch_cells(llama, encoded[i : i + 1], cells, one, plan=plan, **NONE) for plan in plans
        )
        assert abs(whole.per_prompt["patched"][0] - same.per_prompt["patched"][0]) < NATS
    with pytest.raises(InputError, match="numbers"):
        short = Along(("stream", 1), last, (1.0, 2.0))
        patch_cells(
            llama, encoded, [cell], columns, plan=Plan(values="projected", along=(short,)), **NONE
        )
    with pytest.raises(InputError, match="along"):
        Plan(values="projected")


@pytest.fixture(scope="module")
def chatty(tokenizer) -> Model:
    own = copy.deepcopy(tokenizer)
    own.chat_template = CHAT
    return random_model("llama", own)


def chats(tag: str, other: str) -> list[PatchPair]:
    return make_pairs(
        [
            prompt(t, t, flag, text="", chat=(("user", f"{tag if flag else other}Now {t}"),))
            for t in TASKS
            for flag in (True, False)
        ]
    )


@pytest.mark.parametrize(
    ("tag", "other", "names"),
    [("|DEP| ", "", ["system", "request", "header", "last"]),
     ("In 2024: ", "In 2023: ", ["system", "cue", "request", "header", "last"])],
)  # fmt: skip
def test_the_columns_of_a_chat_are_its_parts(chatty, tag, other, names) -> None:
    made = chats(tag, other)
    encoded = encode_pairs(made, chatty.tokenizer)
    columns = make_columns(made, encoded, chatty.tokenizer)
    assert [column.label for column in columns] == names
    for i, pair in enumerate(encoded):
        slots = sorted(s for column in columns for s in column.positions[i])
        assert slots == list(range(len(pair.slots)))
        text = {
            column.label: chatty.tokenizer.decode(
                [pair.clean[at] for at in pair.where(column.positions[i], True)]
            )
            for column in columns
        }
        assert text["system"].startswith("[system]Be kind.[end]") and text["last"].endswith("]")
        assert f"Now {TASKS[i]}" in text["request"] and "assistant" in text["header"] + text["last"]
        assert text.get("cue", "4") == "4"
    prompts = [p for pair in made for p in (pair.clean, pair.corrupted)]
    rows = api.patch(chatty, prompts, kinds=["resid_post"], n_boot=0).rows
    assert rows["label"].tolist() == names * 2
    spans = {"task": r"(?<=Now )\S+"}
    named = make_columns(made, encoded, chatty.tokenizer, spans=spans)
    assert "task" in [column.label for column in named]
    with pytest.raises(InputError, match="is a text"):
        text = make_pairs([prompt("x", "x", flag) for flag in (True, False)])
        ids = encode_pairs(text, chatty.tokenizer)
        make_columns(text, ids, chatty.tokenizer, alignment="names")
