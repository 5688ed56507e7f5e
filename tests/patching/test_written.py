"""What the patched model writes: the other run's very words where everything is restored."""

import pytest

from probes.behaviour.judges import Judged
from probes.foundation.errors import InputError
from probes.models.loading import Model
from probes.patching.continuations import OTHER, UNPATCHED, Written, defection_when_patched
from probes.patching.pairs import encode_pairs
from probes.patching.parts import grid_cells
from probes.patching.spans import make_columns


def judge(prompt, text: str) -> Judged:
    return Judged(None, None, (), "e" in text)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_year_alone_before_the_first_block_writes_the_other_runs_words(
    llama: Model, pairs, direction: str
) -> None:
    encoded = encode_pairs(pairs, llama.tokenizer)
    columns = make_columns(pairs, encoded, llama.tokenizer)
    year = next(i for i, column in enumerate(columns) if column.label == "3→4")
    cells = [
        c for c in grid_cells(llama.hf, ["resid_pre", "z"], columns, layers=[0]) if c.column in (year, 3)
    ]  # fmt: skip
    cells += grid_cells(llama.hf, ["resid_post"], None)
    found = defection_when_patched(
        llama, pairs, encoded, cells, columns,
        direction=direction, n=2, max_new_tokens=12, stop=None, judge=judge,
    )  # fmt: skip
    assert isinstance(found, Written)
    assert found.rows["site"].tolist()[:2] == [UNPATCHED, OTHER]
    texts = found.texts.groupby("cell")["text"].apply(list).tolist()
    names = found.rows["site"] + " " + found.rows["label"]
    before = names.tolist().index("resid_pre.0 3→4")
    assert texts[0] != texts[1]
    assert texts[before] == texts[1]
    assert texts[names.tolist().index("resid_pre.0 " + columns[3].label)] == texts[0]
    assert texts[names.tolist().index("resid_post.1 everywhere")] != texts[0]
    shares = found.texts.groupby("cell")["defected"].mean().tolist()
    assert shares == pytest.approx(found.rows["defected"].tolist())
    assert found.texts["defected"].tolist() == ["e" in text for text in found.texts["text"]]
    assert (found.rows["low"] <= found.rows["defected"]).all() and set(found.rows["n"]) == {6}
    assert "resid_pre.0" in repr(found)


def test_texts_that_could_not_be_judged_are_not_counted_as_harmless(llama: Model, pairs) -> None:
    seen = iter(range(1000))

    def some(prompt, text: str) -> Judged:
        return Judged(None, None, (), None if next(seen) % 3 else True, not_judged="odd")

    encoded = encode_pairs(pairs, llama.tokenizer)
    found = defection_when_patched(llama, pairs, encoded, [], max_new_tokens=2, judge=some)
    assert found.rows["n"].tolist() == [1, 1] and found.rows["defected"].tolist() == [1, 1]
    assert found.texts["defected"].isna().sum() == 4
    none = defection_when_patched(
        llama,
        pairs,
        encoded,
        [],
        max_new_tokens=2,
        judge=lambda *_: some(*_)._replace(defected=None),
    )
    assert none.rows["n"].tolist() == [0, 0] and none.rows["defected"].isna().all()


def test_sites_that_writing_does_not_reach_are_refused(llama: Model, pairs) -> None:
    encoded = encode_pairs(pairs, llama.tokenizer)
    with pytest.raises(InputError, match="cannot be patched while the model writes"):
        defection_when_patched(llama, pairs, encoded, grid_cells(llama.hf, ["q"]), max_new_tokens=2)
