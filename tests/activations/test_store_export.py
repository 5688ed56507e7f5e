"""Exported activations are the store's, number for number, with what each row is of."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from probes.activations.collect import collect
from probes.activations.maintenance import export as selection
from probes.activations.maintenance.export import export
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError, IntegrityError

SITES = ["resid_post.0", "z.1"]
SITE = "resid_post.0"
COLUMNS = ["prompt_index", "position", "token", "n_averaged"]


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def store(request, model, prompts, tmp_path_factory) -> ActivationStore:
    path = tmp_path_factory.mktemp("store") / "s"
    return collect(
        model, prompts, path, sites=SITES, positions="all", shard_tokens=150, dtype=request.param
    )


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch) -> None:
    """Pieces of some dozen rows, so that every export takes several."""
    monkeypatch.setattr(selection, "PIECE_BYTES", 4000)


@pytest.fixture
def labelled(store) -> pd.DataFrame:
    return store.to_pandas()


def test_npy_is_the_matrix(store, tmp_path):
    np.testing.assert_array_equal(
        np.load(export(store, tmp_path / "x.npy", [SITE]), allow_pickle=False), store.rows(SITE)
    )
    last = np.load(export(store, tmp_path / "last.npy", [SITE], position=-1), allow_pickle=False)
    np.testing.assert_array_equal(last, store.matrix(SITE, position=-1))
    assert last.dtype == store.matrix(SITE, position=-1).dtype


def test_npz_has_labels_without_pickle_and_the_same_bytes_again(store, labelled, tmp_path):
    out = export(store, tmp_path / "x.npz", ["z.1"])
    with np.load(out, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["X"], store.rows("z.1"))
        for name in labelled.columns.drop("completion"):
            unset = labelled[name].isna()
            assert found[name].tolist() == labelled[name].mask(unset, "").tolist()
        assert str(found["store_key"]) == store.at(["z.1"]).key
        assert found.files[0] == "X"
        assert "completion" not in found.files
    again = export(store, tmp_path / "again.npz", ["z.1"])
    assert again.read_bytes() == out.read_bytes()


def test_parquet_is_a_table_in_row_groups(store, labelled, tmp_path):
    out = export(store, tmp_path / "x.parquet")
    file = pq.ParquetFile(out)
    assert file.num_row_groups > 3
    assert file.schema_arrow.field(SITE).type.list_size == 32
    stored_as = {"float16": "halffloat"}.get(store.manifest.origin.dtype, "float")
    assert str(file.schema_arrow.field(SITE).type.value_type) == stored_as
    table = file.read()
    for site in SITES:
        values = np.array(table[site].to_pylist(), dtype=np.float32)
        np.testing.assert_array_equal(values, store.rows(site).astype(np.float32))
    found = table.select(labelled.columns.to_list()).to_pandas()
    pd.testing.assert_frame_equal(found, labelled, check_dtype=False)
    metadata = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}
    assert json.loads(metadata["origin"])["weights_digest"] == store.identity.weights_digest


def test_safetensors_keep_the_stored_numbers(store, tmp_path):
    out = export(store, tmp_path / "x.safetensors")
    found = load_file(out)
    for site in SITES:
        assert found[site].dtype == store.to_torch(site).dtype
        assert torch.equal(found[site], store.to_torch(site))
    for name in COLUMNS:
        assert found[name].tolist() == store.row_index[name].tolist()
    assert found["triggered"].tolist() == store.prompts["triggered"].tolist()
    assert found["sequence_id"].numpy().tobytes() == store.index.sequence_id.tobytes()
    with safe_open(out, "numpy") as file:
        assert json.loads(file.metadata()["sites"]) == SITES


def test_csv_gives_every_digit(store, labelled, tmp_path):
    out = export(store, tmp_path / "x.csv", [SITE])
    table = pd.read_csv(out, keep_default_na=False)
    values = table[[f"{SITE}[{i}]" for i in range(32)]].to_numpy()
    exact = store.rows(SITE)
    np.testing.assert_array_equal(values.astype(exact.dtype), exact)
    assert table["prompt_id"].tolist() == labelled["prompt_id"].tolist()
    assert table["token"].tolist() == labelled["token"].tolist()
    with out.open(newline="") as file:
        assert len(list(csv.reader(file))) == store.n_rows + 1


def test_a_view_is_exported_as_it_is_seen(store, tmp_path):
    view = store.where([5, 1])
    out = export(view, tmp_path / "x.npz", [SITE], position=0)
    with np.load(out) as found:
        np.testing.assert_array_equal(found["X"], store.matrix(SITE, position=0)[[5, 1]])
        assert found["prompt_id"].tolist() == store.prompts["prompt_id"][[5, 1]].tolist()


def test_what_cannot_be_exported_leaves_no_file(store, tmp_path):
    for out, told, arguments in [
        ("x.mat", r"unknown suffix of an export '\.mat'.*\.npy, \.npz, \.parquet", {}),
        ("x.npy", "holds one site; choose one of: resid_post.0, z.1", {}),
        ("x.npy", "unknown site in this store", {"sites": ["mlp_out.0"]}),
        ("x.npy", "no token at position 900", {"sites": [SITE], "position": 900}),
    ]:
        with pytest.raises(InputError, match=told):
            export(store, tmp_path / out, **arguments)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.npy").write_text("mine")
    with pytest.raises(InputError, match=re.escape("x.npy is there already")):
        export(store, tmp_path / "x.npy", [SITE])
    assert (tmp_path / "x.npy").read_text() == "mine"


def test_damage_is_found_although_rows_are_read_singly(model, prompts, tmp_path):
    """A piece smaller than a quarter of a shard is read without its checksum."""
    collect(model, prompts, tmp_path / "s", sites=[SITE], positions="all")
    [shard] = (tmp_path / "s").glob("shard-*")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match=shard.name):
        export(ActivationStore.open(tmp_path / "s"), tmp_path / "x.npy")
    assert not list(Path(tmp_path).glob("*x.npy*"))
