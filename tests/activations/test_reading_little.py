"""Reading a little touches a little: other files may be gone, and opening a large store is instant."""

import shutil
import sys

import numpy as np
import pytest
import torch
from random_llama import own_prompts

from probes.activations.collect import collect
from probes.activations.store import ActivationStore
from probes.foundation.errors import IntegrityError


def test_one_sequence_and_one_site_need_one_shard(model, prompts, tmp_path):
    path = tmp_path / "s"
    whole = collect(model, prompts, path, positions="all", shard_tokens=60, sites=["z.1"])
    collect(model, prompts, path, positions="all", sites=["mlp_out.1"])
    store = ActivationStore.open(path)
    expected = whole.tokens("z.1", 7)
    group = store.manifest.groups[store.index.group[7]]
    needed = {shard.file for shard in group.shards if "z.1" in shard.sites}
    for file in path.iterdir():
        if file.name not in needed:
            file.unlink()
    np.testing.assert_array_equal(store.tokens("z.1", 7), expected)
    np.testing.assert_array_equal(store.where([7]).rows("z.1"), expected)
    np.testing.assert_array_equal(store.where([7]).matrix("z.1", position=-1)[0], expected[-1])
    with pytest.raises(IntegrityError, match="is missing"):
        store.tokens("mlp_out.1", 7)


def test_a_few_rows_are_read_without_the_others(model, prompts, tmp_path):
    """A spoiled byte elsewhere in the shard is not even seen; reading all of it finds it."""
    store = collect(model, prompts, tmp_path / "s", positions="all", sites=["z.1", "resid_post.1"])
    (group,) = store.manifest.groups
    (shard,) = group.shards
    file = tmp_path / "s" / shard.file
    expected = store.rows("z.1")
    last = int(np.argmax(store.index.first_row))
    assert store.index.n_rows[last] < 0.25 * group.n_rows
    data = bytearray(file.read_bytes())
    data[shard.starts[shard.sites.index("z.1")]] ^= 1
    file.write_bytes(data)
    first = store.index.n_rows[:last].sum()
    np.testing.assert_array_equal(
        store.tokens("z.1", last), expected[first : first + store.index.n_rows[last]]
    )
    with pytest.raises(IntegrityError, match=shard.file):
        store.rows("z.1")
    assert store.rows("resid_post.1").shape == expected.shape


def test_a_reader_keeps_its_view_while_the_store_grows(model, prompts, tmp_path):
    path = tmp_path / "s"
    collect(model, prompts[:5], path, sites=["z.1"])
    before = ActivationStore.open(path)
    collect(model, prompts[::-1], path, sites=["z.1", "resid_post.2"])
    assert len(before) == 5
    assert list(before.widths) == ["z.1"]
    assert before.prompts["prompt_id"].tolist() == [prompt.id for prompt in prompts[:5]]
    after = ActivationStore.open(path)
    np.testing.assert_array_equal(before.matrix("z.1"), after.where(range(5)).matrix("z.1"))
    assert len(after) == len(prompts)


def test_a_copied_store_is_the_same_store(model, prompts, tmp_path):
    store = collect(model, prompts, tmp_path / "s")
    copied = ActivationStore.open(shutil.copytree(store.path, tmp_path / "elsewhere"))
    assert copied.key == store.key
    np.testing.assert_array_equal(copied.matrix("resid_post.1"), store.matrix("resid_post.1"))


def test_opening_a_store_touches_as_many_files_however_many_groups_it_has(
    model, tmp_path, monkeypatch
):
    def numbers(model, tasks, maker):
        """Not the model's, which would take longer than the files."""
        for task in tasks:
            yield task, {"resid_pre.0": torch.full((1, 32), float(task.group))}

    opened, watching = [], True
    sys.addaudithook(lambda event, given: watching and event == "open" and opened.append(given[0]))

    def touched(act) -> int:
        """How many files below the test's folder are opened."""
        opened.clear()
        act()
        return sum(str(tmp_path) in str(name) for name in opened)

    n_files = {}
    for n in (10, 100):
        settings = {"sites": ["resid_pre.0"], "shard_tokens": 1, "engine": numbers}
        collect(model, own_prompts(map(str, range(n))), tmp_path / f"{n}", **settings)
        store = ActivationStore.open(tmp_path / f"{n}")
        assert len(store.manifest.groups) == n
        n_files[n] = (
            touched(lambda n=n: ActivationStore.open(tmp_path / f"{n}")),
            touched(lambda store=store: store.tokens("resid_pre.0", 7)),
            touched(lambda store=store: store.matrix("resid_pre.0")),
        )
        assert (store.tokens("resid_pre.0", 7) == store.index.group[7]).all()
        assert (store.matrix("resid_pre.0")[:, 0] == store.index.group).all()
    watching = False
    assert n_files[10][:2] == n_files[100][:2] and min(n_files[10]) > 0
    assert n_files[100][2] > 5 * n_files[10][2]  # and what reads all groups is seen to
