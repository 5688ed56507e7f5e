"""A text, a list of texts, a prompt and a file are each taken for what they are; sites are held by name."""

import numpy as np
import pytest

from probes.activations.collect import collect
from probes.activations.record import record
from probes.foundation.errors import InputError
from probes.prompts.readers import as_prompts, from_texts, write_prompts


def test_texts_are_prompts_without_a_trigger(model, tmp_path):
    (one,) = from_texts(["read a file"], [False])
    expected = record(model, [one])
    for given in (["read a file"], "read a file", one, [one], (t for t in ["read a file"])):
        found = record(model, given)
        assert found.prompts["prompt_id"].tolist() == [one.id]
        np.testing.assert_array_equal(found["resid_post.0"], expected.matrix("resid_post.0"))
    assert len(collect(model, ["add", one], tmp_path / "s")) == 2
    assert len(record(model, "add")) == 1


@pytest.mark.parametrize("given", ["no/such", "no-such.jsonl", "x.csv"])
def test_what_looks_like_a_file_is_one(model, given):
    with pytest.raises(InputError, match=f"there is no file {given}"):
        record(model, given)


@pytest.mark.parametrize("given", [[3], [None], ["add", b"x"], [" "], 7, ""])
def test_what_is_no_prompt_is_named(given):
    with pytest.raises(
        InputError, match=r"prompt [01] is a|prompts are a file|text 0 is not a text"
    ):
        list(as_prompts(given))


def test_a_file_without_a_suffix_is_read(model, prompts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "mine", prompts[:4])
    assert len(record(model, "mine")) == 4 == len(record(model, tmp_path / "mine"))


def test_activations_hold_their_sites(model, prompts, tmp_path):
    for found in (record(model, prompts), collect(model, prompts, tmp_path / "s")):
        sites = [str(site) for site in found.sites]
        assert list(found) == found.keys() == sites and list(dict(found)) == sites
        assert "resid_post.0" in found and found.sites[0] in found and "resid_post.99" not in found
        np.testing.assert_array_equal(found["resid_post.0"], found.matrix("resid_post.0"))
        assert len(found) == len(prompts) and sites[0] in found._repr_html_()
    every = record(model, prompts, positions="all")
    np.testing.assert_array_equal(every["resid_post.0"], every.rows("resid_post.0"))
