"""Every way of reading gives the rows that plain safetensors and the index give."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from probes.activations import files as taking
from probes.activations.collect import collect
from probes.activations.index import Index, find
from probes.activations.reading import Activations
from probes.activations.record import Recorded, record
from probes.activations.sequences import id_array
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError, IntegrityError
from probes.models.identity import Identity

SITES = ["resid_pre.0", "z.1", "resid_post.1"]


@pytest.fixture(scope="module")
def path(model, prompts, tmp_path_factory) -> Path:
    """Two parts, several groups, two shards in some of them."""
    path = tmp_path_factory.mktemp("reading") / "s"
    collect(model, prompts[:7], path, positions="all", sites=SITES[:1], shard_tokens=90)
    collect(model, prompts, path, positions="all", sites=SITES, shard_tokens=90)
    return path


@pytest.fixture
def store(path) -> ActivationStore:
    return ActivationStore.open(path)


def plainly(path: Path, site: str) -> list[np.ndarray]:
    """Rows of each sequence, with no more than JSON and safetensors."""
    manifest = json.loads((path / "manifest.json").read_text())
    found = []
    for part in manifest["parts"]:
        index = load_file(path / part["index"]["file"])
        for group, first, n in zip(
            index["group"], index["first_row"], index["n_rows"], strict=True
        ):
            shards = part["groups"][group]["shards"]
            file = next(shard["file"] for shard in shards if site in shard["sites"])
            found.append(load_file(path / file)[site][first : first + n])
    return found


def test_rows_tokens_and_matrix_are_what_plain_safetensors_reads(path, store):
    assert len(store.manifest.parts) == 2
    assert len(store.manifest.groups) > 4
    assert any(len(group.shards) == 2 for group in store.manifest.groups)
    for site in SITES:
        expected = plainly(path, site)
        np.testing.assert_array_equal(store.rows(site), np.concatenate(expected))
        for i, rows in enumerate(expected):
            np.testing.assert_array_equal(store.tokens(site, i), rows)
        last = np.stack([rows[-1] for rows in expected])
        np.testing.assert_array_equal(store.matrix(site, position=-1), last)
        np.testing.assert_array_equal(
            store.matrix(site, position=3), np.stack([rows[3] for rows in expected])
        )
    named = store.rows("blocks.1.hook_resid_post")
    np.testing.assert_array_equal(named, store.rows("resid_post.-2"))
    assert store.n_rows == sum(len(rows) for rows in expected)


def test_long_pieces_are_read_to_their_place_and_checked(path, store, monkeypatch, tmp_path):
    """As rows of large models are; these are too short for it by themselves."""
    monkeypatch.setattr(taking, "WORTH_ITS_OWN_READ", 1)
    for site in SITES:
        np.testing.assert_array_equal(store.rows(site), np.concatenate(plainly(path, site)))
    order = np.random.default_rng(0).permutation(len(store))
    expected = plainly(path, "resid_post.1")
    np.testing.assert_array_equal(
        store.where(order).rows("resid_post.1"), np.concatenate([expected[i] for i in order])
    )
    copied = ActivationStore.open(shutil.copytree(path, tmp_path / "s"))
    shard = copied.manifest.groups[0].shards[0]
    data = bytearray((copied.path / shard.file).read_bytes())
    data[shard.starts[0] + 5] ^= 1
    (copied.path / shard.file).write_bytes(data)
    with pytest.raises(IntegrityError, match=shard.file):
        copied.rows(shard.sites[0])


def test_a_part_in_any_order_and_repeated(path, store):
    expected = plainly(path, "z.1")
    for chosen in ([11, 0, 5], [2], [3, 3, 1], list(range(12))[::-1]):
        view = store.where(np.array(chosen))
        assert len(view) == len(chosen)
        rows = np.concatenate([expected[i] for i in chosen])
        np.testing.assert_array_equal(view.rows("z.1"), rows)
        assert view.prompts["prompt_id"].tolist() == store.prompts["prompt_id"][chosen].tolist()
        again = view.where([len(chosen) - 1])
        np.testing.assert_array_equal(again.tokens("z.1", 0), expected[chosen[-1]])
    triggered = store.prompts["triggered"].to_numpy()
    view = store.where(triggered)
    assert view.prompts["triggered"].all()
    np.testing.assert_array_equal(
        view.rows("z.1"), np.concatenate([expected[i] for i in np.flatnonzero(triggered)])
    )


def both(model, prompts, store) -> list[Activations]:
    return [store, record(model, prompts, positions="all", sites=SITES)]


def test_a_part_of_nothing_is_empty(model, prompts, store):
    for whole in both(model, prompts, store):
        for none in ([], np.zeros(12, dtype=bool)):
            view = whole.where(none)
            assert len(view) == view.n_rows == 0
            assert view.rows("z.1").shape == (0, 32)
            assert view.matrix("z.1", position=-1).shape == (0, 32)
            assert len(view.to_pandas("z.1")) == len(view.row_index) == 0


def test_one_head(path, store):
    expected = plainly(path, "z.1")
    for head in range(4):
        columns = slice(8 * head, 8 * head + 8)
        np.testing.assert_array_equal(
            store.rows("z.1", head=head), np.concatenate(expected)[:, columns]
        )
        np.testing.assert_array_equal(store.tokens("z.1", 2, head=head), expected[2][:, columns])
        assert store.matrix("z.1", -1, head=head).shape == (12, 8)
    with pytest.raises(InputError, match="has heads 0 to 3"):
        store.rows("z.1", head=4)
    with pytest.raises(InputError, match="no heads"):
        store.rows("resid_pre.0", head=0)


def test_to_torch_keeps_the_stored_dtype(model, prompts, tmp_path):
    store = collect(model, prompts, tmp_path / "s", dtype="bfloat16", sites=["z.0"])
    shards = [shard.file for group in store.manifest.groups for shard in group.shards]
    stored = torch.cat([load_torch(tmp_path / "s" / file)["z.0"] for file in shards])
    values = store.to_torch("z.0")
    assert values.dtype == stored.dtype == torch.bfloat16
    assert torch.equal(values.sort(0).values, stored.sort(0).values)
    assert torch.equal(store.to_torch("z.0", np.array([4, 1])), values[[4, 1]])


def test_row_index_says_what_each_row_is(model, prompts, path, store):
    table = store.row_index
    ids = [model.tokenizer(prompt.text)["input_ids"] for prompt in prompts]
    assert table["token"].tolist() == [token for own in ids for token in own]
    assert table["position"].tolist() == [i for own in ids for i in range(len(own))]
    assert table["prompt_index"].tolist() == [n for n, own in enumerate(ids) for _ in own]


def test_to_pandas_and_to_xarray_carry_labels(model, prompts, store):
    xarray = pytest.importorskip("xarray")
    for data in both(model, prompts, store):
        table = data.to_pandas("z.1")
        assert table["triggered"].dtype == bool
        assert table["prompt_id"].tolist() == [
            prompts[i].id for i in data.row_index["prompt_index"]
        ]
        np.testing.assert_array_equal(table[[f"z.1[{i}]" for i in range(32)]], data.rows("z.1"))
        array = data.to_xarray(["z.1", "resid_pre.0"])
        assert isinstance(array, xarray.DataArray)
        assert array.dims == ("site", "row", "feature")
        np.testing.assert_array_equal(array.sel(site="z.1"), data.rows("z.1"))
        chosen = array.sel(site="z.1")[array.triggered.values]
        kept = data.where(data.prompts["triggered"].to_numpy())
        np.testing.assert_array_equal(chosen, kept.rows("z.1"))


def test_a_record_and_a_store_are_labelled_alike(model, prompts, store):
    stored, recorded = both(model, prompts, store)
    assert isinstance(recorded, Recorded)
    pd.testing.assert_frame_equal(stored.prompts, recorded.prompts)
    pd.testing.assert_frame_equal(stored.row_index, recorded.row_index)


def test_questions_that_cannot_be_answered_list_what_can(model, prompts, store):
    for data in both(model, prompts, store):
        for ask, said in (
            (lambda data: data.rows("resid_post.9"), "layers 0 to 2"),
            (lambda data: data.rows("resid_pre.2"), r"one of: resid_pre\.0, z\.1, resid_post\.1"),
            (lambda data: data.tokens("z.1", 12), "0 to 11"),
            (lambda data: data.matrix("z.1"), "position=-1"),
            (lambda data: data.matrix("z.1", position=900), "12 prompts have no token at"),
            (lambda data: data.where([12]), "sequences are 0 to 11"),
            (lambda data: data.where([True]), r"mask of shape \(1,\) for 12"),
            (lambda data: data.where([0.5]), "boolean mask or with integers"),
        ):
            with pytest.raises(InputError, match=said):
                ask(data)
    with pytest.raises(InputError, match="one position per prompt"):
        record(model, prompts).matrix("resid_post.0", position=0)


def test_places_of_more_rows_than_32_bits_count():
    """A store of hundreds of millions of long sequences: arithmetic only, on made-up places."""
    n = 4
    many = np.full(n, 2**30, dtype=np.int32)
    index = Index(
        sequence_id=np.zeros((n, 32), dtype=np.uint8),
        group=np.array([0, 1, 0, 1], dtype=np.int32),
        first_row=np.array([0, 2**33, 2**31, 5], dtype=np.int64),
        n_rows=many,
        n_tokens=many,
        n_prompt_tokens=many,
    )
    data = Recorded(
        index=index,
        model="m",
        identity=Identity(weights_digest="0" * 64),
        n_layers=1,
        widths={},
        positions="all",
        values={},
        labels=pd.DataFrame(),
        origins=pd.DataFrame(),
    )
    assert data.n_rows == 2**32
    rows = data._row_of_each(-1)
    assert rows.tolist() == [2**30 - 1, 2**31 - 1, 3 * 2**30 - 1, 2**32 - 1]


def test_ids_are_told_apart_to_the_last_byte():
    """Also where they end in zeros, which numpy takes for padding."""
    ids = [bytes([i]) + bytes(31) for i in range(5)] + [bytes(31) + bytes([i]) for i in (1, 2)]
    known = id_array(b"".join(ids))
    order = [6, 3, 0, 5]
    asked = id_array(b"".join(ids[i] for i in order) + b"\1" * 32)
    assert find(known, asked).tolist() == [*order, -1]
    assert find(id_array(b""), asked).tolist() == [-1] * 5


def test_shards_open_in_any_reader_of_safetensors(path, store):
    for group in store.manifest.groups:
        for shard in group.shards:
            with safe_open(path / shard.file, framework="np") as file:
                assert tuple(file.keys()) == tuple(sorted(shard.sites))
