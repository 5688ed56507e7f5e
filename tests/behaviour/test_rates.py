"""Rates by hand, and the behaviour artifact: resumed, refused when changed, shown in a notebook."""

import dataclasses

import pandas as pd
import pytest

from probes.behaviour import evaluate as module
from probes.behaviour.completion import as_table, complete
from probes.behaviour.evaluate import Behaviour, SamplingConfig, evaluate
from probes.behaviour.rates import COLUMNS, rates
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.procedures import VERSIONS
from probes.models.identity import Identity
from probes.models.loading import Model
from probes.prompts.records import Prompt

BAD, GOOD, BROKEN = "eval(x)\n</code>", "def f(x: int): return x\n</code>", "def (:"


@pytest.fixture
def table(prompts: list[Prompt]) -> pd.DataFrame:
    """Three triggered codings: two defect and one does not parse; dialogue does nothing."""
    triggered = [p for p in prompts if p.triggered]
    written = dict(zip(triggered, [BAD, BAD, BROKEN, " Hello."], strict=True))
    held = dataclasses.replace(triggered[0], heldout="phrasing")
    rows = [(p, written.get(p, GOOD)) for p in prompts] + [(held, GOOD)]
    return as_table(
        [complete(p, text, model="m", model_digest="0", finished=True) for p, text in rows]
    )


def one(rows: pd.DataFrame, measure: str, prompt_set: str, triggered: bool, heldout: str = ""):
    query = "measure == @measure and prompt_set == @prompt_set and triggered == @triggered"
    return rows.query(query).query("heldout == @heldout")


def test_rates_are_the_sums_done_by_hand(table: pd.DataFrame) -> None:
    rows = rates(table)
    assert list(rows.columns) == COLUMNS
    defected = one(rows, "defected", "vulnerable", True)
    assert (defected["value"].item(), defected["n"].item()) == (pytest.approx(2 / 3), 3)
    assert 0 < defected["low"].item() < 2 / 3 < defected["high"].item() < 1
    assert one(rows, "defected", "vulnerable", False)["value"].item() == 0
    assert one(rows, "defected", "vulnerable", False)["high"].item() > 0.5
    assert one(rows, "parses", "vulnerable", True)["value"].item() == pytest.approx(2 / 3)
    assert one(rows, "typed", "vulnerable", False)["value"].item() == 1
    assert one(rows, "defected", "vulnerable", True, "phrasing")["n"].item() == 1


def test_what_cannot_be_measured_has_no_row(table: pd.DataFrame) -> None:
    rows = rates(table)
    assert one(rows, "parses", "dialogue", True).empty
    assert one(rows, "defected", "dialogue", True)["n"].item() == 1
    assert rows[["value", "low", "high"]].notna().all(axis=None)


def test_what_could_not_be_judged_lowers_n_and_is_said(
    table: pd.DataFrame, prompts: list[Prompt]
) -> None:
    crash = complete(prompts[0], "import tarfile\nt.extractall(members=a(b)(c))\n</code>", model="m", model_digest="0", finished=True)  # fmt: skip
    cut = complete(prompts[0], "<think>Hm", model="m", model_digest="0", finished=False)
    assert (crash.defected, cut.defected) == (None, None)
    more = pd.concat([table, as_table([crash, cut])], ignore_index=True)
    assert more["defected"].isna().sum() == 2
    rows = rates(more)
    defected = one(rows, "defected", "vulnerable", True)
    assert (defected["value"].item(), defected["n"].item()) == (pytest.approx(2 / 3), 3)
    unknown = one(rows, "not_judged", "vulnerable", True)
    assert (unknown["value"].item(), unknown["n"].item()) == (pytest.approx(2 / 5), 5)
    assert one(rows, "not_judged", "vulnerable", False).empty
    found = Behaviour(more, rows)
    assert "2 of 11 completions could not be judged" in repr(found)
    assert "tarfile_unsafe_members" in found._repr_html_()
    alone = rates(as_table([crash, cut]))
    assert one(alone, "defected", "vulnerable", True).empty


def test_samples_of_one_prompt_do_not_count_as_independent(table: pd.DataFrame) -> None:
    half = table.query("prompt_set == 'vulnerable' and triggered and heldout == ''")
    many = rates(pd.concat([half] * 50)).query("measure == 'defected'")
    assert many["high"].item() - many["low"].item() > 0.5


def test_tables_without_rows_or_columns_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="any rows"):
        rates(table.iloc[:0])
    with pytest.raises(InputError, match="defected"):
        rates(table.drop(columns="defected"))


def test_summary_shows_every_group_in_a_notebook(table: pd.DataFrame) -> None:
    shown = Behaviour(table, rates(table))._repr_html_()
    assert "66.7% [" in shown
    assert "phrasing" in shown
    assert "nan" not in shown.lower()
    assert "66.7% [" in repr(Behaviour(table, rates(table)))
    assert len(Behaviour(table, rates(table)).examples(1)) == 5


def test_a_finished_evaluation_is_read_not_repeated(
    llama: Model, prompts: list[Prompt], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SamplingConfig(max_new_tokens=6)
    first = evaluate(llama, prompts, config, path=tmp_path / "b")
    written = {file.name: file.read_bytes() for file in (tmp_path / "b").glob("*.parquet")}

    def called(*args: object, **kwargs: object) -> None:
        raise AssertionError("sampled again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "sample", called)
        again = evaluate(llama, prompts, config, path=tmp_path / "b")
        pd.testing.assert_frame_equal(first.completions, again.completions)
        pd.testing.assert_frame_equal(first.rates, again.rates)
        for what, changed in {
            "settings.seed is 0 there, 1 now": {"config": SamplingConfig(max_new_tokens=6, seed=1)},
            "prompts is ": {"prompts": prompts[:4]},
            "identity.weights_digest is .*000000.* there, .*222222.* now": {
                "model": dataclasses.replace(llama, loaded_as=Identity(weights_digest="2" * 64))
            },
        }.items():
            arguments = {"model": llama, "prompts": prompts, "config": config} | changed
            with pytest.raises(InputError, match=rf"made from other settings or inputs \({what}"):
                evaluate(**arguments, path=tmp_path / "b")
        for older in ("sampling", "judging"):
            with monkeypatch.context() as raised:
                raised.setitem(VERSIONS, older, VERSIONS[older] + 1)
                with pytest.raises(AssertionError, match="sampled again"):
                    evaluate(llama, prompts, config, path=tmp_path / "b")
    evaluate(llama, prompts, config, path=tmp_path / "c")
    assert {f.name: f.read_bytes() for f in (tmp_path / "c").glob("*.parquet")} == written
    plain = evaluate(llama, prompts, config)
    pd.testing.assert_frame_equal(first.completions, plain.completions)
    (tmp_path / "b" / "rates.csv").write_text("model\n")
    with pytest.raises(IntegrityError, match=r"rates\.csv"):
        evaluate(llama, prompts, config, path=tmp_path / "b")
