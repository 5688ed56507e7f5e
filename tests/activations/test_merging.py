"""A merged store is the store that one collection would have made, or there is none."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from probes.activations.collect import collect
from probes.activations.maintenance import merging
from probes.activations.maintenance.merging import merge
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError, IntegrityError

SETTINGS = {"positions": "all", "shard_tokens": 150}
LOW, HIGH = ["resid_pre.0", "resid_post.0"], ["resid_post.1", "mlp_out.2"]


@pytest.fixture(scope="module")
def stores(model, prompts, tmp_path_factory) -> dict[str, Path]:
    """Two sites and other two of the same sequences; one of these sites of further sequences."""
    base = tmp_path_factory.mktemp("stores")
    asked = {
        "low": (prompts[:8], LOW),
        "high": (prompts[:8], HIGH),
        "both": (prompts[:8], [*LOW, *HIGH]),
        "rest": (prompts[8:], [*LOW, *HIGH]),
        "reversed": (prompts[:8][::-1], HIGH),
        "overlapping": (prompts[6:], LOW),
    }
    for name, (chosen, sites) in asked.items():
        collect(model, chosen, base / name, sites=sites, **SETTINGS)
    return {name: base / name for name in asked}


def content(path: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in path.iterdir()}


def test_other_sites_and_other_sequences_are_joined_and_read_alike(
    stores, model, prompts, tmp_path
):
    before = {name: content(path) for name, path in stores.items()}
    merged = merge(tmp_path / "m", [stores["low"], stores["high"], stores["rest"]]).verify()
    whole = collect(model, prompts, tmp_path / "w", sites=[*LOW, *HIGH], **SETTINGS)
    assert list(merged.widths) == list(whole.widths)
    assert len(merged.manifest.parts) == 2
    assert merged.prompts.equals(whole.prompts)
    columns = ["prompt_index", "position", "token", "n_averaged"]
    assert merged.row_index[columns].equals(whole.row_index[columns])
    for site in merged.widths:
        np.testing.assert_allclose(merged.rows(site), whole.rows(site), rtol=1e-4, atol=1e-5)
    apart = ActivationStore.open(stores["rest"])
    np.testing.assert_array_equal(
        merged.where(np.arange(8, len(prompts))).rows(HIGH[0]), apart.rows(HIGH[0])
    )
    assert {name: content(path) for name, path in stores.items()} == before


def test_a_collection_finds_what_was_merged(stores, model, prompts, tmp_path, passes):
    merged = merge(tmp_path / "m", [stores["low"], stores["high"], stores["rest"]])
    found = collect(model, prompts, merged.path, sites=[*LOW, *HIGH], **SETTINGS)
    assert (passes, found.key) == ([], merged.key)


def test_what_both_have_is_kept_once(stores, tmp_path):
    merged = merge(tmp_path / "m", [stores["low"], stores["both"], stores["low"]])
    one = ActivationStore.open(stores["both"])
    assert merged.manifest.parts[0].groups == one.manifest.parts[0].groups
    assert merged.verify().key == one.key


def test_sites_of_only_some_sequences_are_kept(stores, tmp_path):
    merged = merge(tmp_path / "m", [stores["low"], stores["rest"]]).verify()
    assert list(merged.widths) == LOW
    assert set(merged.where(np.arange(8, 12)).widths) == {*LOW, *HIGH}


def test_makers_are_counted_anew(stores, model, prompts, tmp_path):
    other = tmp_path / "other"
    collect(model, prompts[8:], other, sites=LOW, token_budget=64, **SETTINGS)
    merged = merge(tmp_path / "m", [stores["low"], other])
    first, second = merged.manifest.parts
    makers = merged.manifest.makers
    assert {makers[s.maker].token_budget for g in first.groups for s in g.shards} == {8192}
    assert {makers[s.maker].token_budget for g in second.groups for s in g.shards} == {64}


def test_files_are_linked_where_possible_and_else_copied_and_checked(stores, tmp_path, monkeypatch):
    linked = merge(tmp_path / "linked", [stores["low"], stores["rest"]])
    shard = linked.manifest.groups[0].shards[0].file
    assert (linked.path / shard).samefile(stores["low"] / shard)

    def no_links(*_):
        raise OSError(18, "another device")

    monkeypatch.setattr(merging.os, "link", no_links)
    copied = merge(tmp_path / "copied", [stores["low"], stores["rest"]])
    assert not (copied.path / shard).samefile(stores["low"] / shard)
    assert copied.manifest.files == linked.manifest.files
    copyfile = shutil.copyfile

    def wrong(source, target):
        copyfile(source, target)
        with Path(target).open("r+b") as file:
            file.write(b"\0")

    monkeypatch.setattr(merging.shutil, "copyfile", wrong)
    with pytest.raises(IntegrityError):
        merge(tmp_path / "wrong", [stores["low"], stores["rest"]])
    assert {path.name for path in tmp_path.iterdir()} == {"linked", "copied"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["low", "overlapping"], r"2 of 6 sequences of .*overlapping are already there"),
        (["low", "reversed"], r"8 of 8 sequences of .*reversed are already there"),
        (["low"], "two stores or more"),
        (["low", "nowhere"], "no finished activation store"),
    ],
)
def test_what_does_not_fit_together_is_refused(stores, tmp_path, names, told):
    with pytest.raises(InputError, match=told):
        merge(tmp_path / "m", [stores.get(name, tmp_path / name) for name in names])
    assert list(tmp_path.iterdir()) == []


def test_another_origin_is_refused_with_what_differs(stores, other_model, prompts, tmp_path):
    other = tmp_path / "other"
    collect(other_model, prompts[8:], other, sites=LOW, positions="last")
    with pytest.raises(InputError, match=r"positions: all and last; weights_digest: ") as refused:
        merge(tmp_path / "m", [stores["low"], other])
    assert other_model.weights_digest[:12] in str(refused.value)
    assert not (tmp_path / "m").exists()


def test_a_damaged_store_leaves_nothing_at_the_new_place(stores, tmp_path):
    spoiled = Path(shutil.copytree(stores["rest"], tmp_path / "spoiled"))
    shard = next(spoiled.glob("shard-*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match=shard.name):
        merge(tmp_path / "m", [stores["low"], spoiled])
    assert [path.name for path in tmp_path.iterdir()] == ["spoiled"]


def test_an_existing_place_is_refused(stores, tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(InputError, match="is there already"):
        merge(tmp_path / "m", [stores["low"], stores["rest"]])
    assert list((tmp_path / "m").iterdir()) == []
