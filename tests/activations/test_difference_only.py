"""What a store has is never computed again; what it lacks, and only that, is added to it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from plain_forward import relative_error
from random_llama import make_checkpoint, make_prompts, own_prompts

from probes.activations.collect import collect
from probes.activations.compute import compute
from probes.activations.record import record
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError
from probes.models.loading import load

SITES = ["resid_pre.0", "resid_post.1"]


class Counted:
    """The plain engine, with a list of what it was asked to do."""

    def __init__(self) -> None:
        self.tasks = []

    def __call__(self, model, tasks, maker):
        for task in tasks:
            self.tasks.append(task)
            yield task, compute(model, task.job())


@pytest.fixture
def engine() -> Counted:
    return Counted()


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_asking_again_computes_and_writes_nothing(model, prompts, tmp_path, passes):
    first = collect(model, prompts, tmp_path / "s", shard_tokens=90)
    before = contents(tmp_path / "s")
    passes.clear()
    for budget, shards in ((8192, 90), (50, 10**6)):
        again = collect(
            model, iter(prompts), tmp_path / "s", token_budget=budget, shard_tokens=shards
        )
        assert again.key == first.key
        assert again.manifest == first.manifest
    assert passes == []
    assert contents(tmp_path / "s") == before


def test_more_sites_compute_only_these(model, prompts, tmp_path, engine):
    collect(model, prompts, tmp_path / "s", sites=SITES, shard_tokens=90)
    before = contents(tmp_path / "s")
    more = ["resid_pre.0", "z.1", "resid_post.1", "mlp_out.0"]
    store = collect(model, prompts, tmp_path / "s", sites=more, engine=engine)
    n_groups = len(store.manifest.groups)
    assert n_groups > 3
    assert [task.sites for task in engine.tasks] == [("mlp_out.0", "z.1")] * n_groups
    after = contents(tmp_path / "s")
    assert set(before) < set(after)
    assert {name for name in before if before[name] != after[name]} == {
        "manifest.json",
        "provenance.json",
    }
    at_once = collect(model, prompts, tmp_path / "at once", sites=more)
    assert list(store.widths) == list(at_once.widths)
    assert store.key == at_once.key
    for site in more:
        assert relative_error(store.matrix(site), at_once.matrix(site)) < 1e-5
    everything = ActivationStore.open(tmp_path / "s").verify()
    assert [str(s) for s in everything.sites] == ["resid_pre.0", "mlp_out.0", "z.1", "resid_post.1"]


def test_more_prompts_compute_only_these(model, prompts, tmp_path, passes):
    old, new = prompts[:5], prompts[5:]
    collect(model, old, tmp_path / "s", sites=SITES, positions="all")
    before = contents(tmp_path / "s")
    passes.clear()
    mixed = [new[0], *old[::-1], *new[1:]]
    store = collect(model, mixed, tmp_path / "s", sites=SITES, positions="all")
    assert sum(passes) == len(new)
    assert store.prompts["prompt_id"].tolist() == [prompt.id for prompt in mixed]
    plain = record(model, mixed, sites=SITES, positions="all")
    for site in SITES:
        assert relative_error(store.rows(site), plain.rows(site)) < 1e-5
    assert store.row_index["token"].tolist() == plain.row_index["token"].tolist()
    after = contents(tmp_path / "s")
    for name in before.keys() - {"manifest.json", "provenance.json"}:
        assert after[name] == before[name], name
    whole = ActivationStore.open(tmp_path / "s").verify()
    assert whole.prompts["prompt_id"].tolist() == [p.id for p in [*old, new[0], *new[1:]]]
    assert len(whole.manifest.parts) == 2


def test_other_completions_of_a_known_prompt_are_other_sequences(model, prompts, tmp_path, passes):
    first = ["a"] * len(prompts)
    second = ["a"] * 6 + ["b"] * (len(prompts) - 6)
    kept = {"sites": SITES, "positions": "last_answer"}
    collect(model, prompts, tmp_path / "s", completions=first, **kept)
    passes.clear()
    store = collect(model, prompts, tmp_path / "s", completions=iter(second), **kept)
    assert sum(passes) == len(prompts) - 6
    assert store.prompts["completion"].tolist() == second
    assert len(ActivationStore.open(tmp_path / "s")) == len(prompts) + 6
    plain = record(model, prompts, completions=second, **kept)
    assert relative_error(store.matrix(SITES[1]), plain.matrix(SITES[1])) < 1e-5


def test_a_subset_in_any_order_is_served_from_what_is_there(model, prompts, tmp_path, passes):
    whole = collect(model, prompts, tmp_path / "s", positions="all", shard_tokens=90)
    passes.clear()
    order = [7, 2, 11, 0]
    view = collect(
        model, [prompts[i] for i in order], tmp_path / "s", positions="all", sites=SITES[1:]
    )
    assert passes == []
    assert [str(site) for site in view.sites] == SITES[1:]
    assert view.prompts["prompt_id"].tolist() == [prompts[i].id for i in order]
    assert view.n_rows == view.prompts["n_tokens"].sum()
    for place, i in enumerate(order):
        np.testing.assert_array_equal(view.tokens(SITES[1], place), whole.tokens(SITES[1], i))
    with pytest.raises(InputError, match=r"Choose one of: resid_post\.1"):
        view.rows(SITES[0])


def test_a_site_that_only_some_sequences_have_is_refused_for_the_others(model, prompts, tmp_path):
    path = tmp_path / "s"
    collect(model, prompts, path, sites=SITES, shard_tokens=1)
    collect(model, prompts[3:6], path, sites=["mlp_out.2"])
    store = ActivationStore.open(path)
    assert [str(site) for site in store.sites] == SITES
    n_without = len(prompts) - 3
    said = f"{n_without} groups of these sequences have no mlp_out.2: collect it for all of them"
    with pytest.raises(InputError, match=said):
        store.matrix("mlp_out.2")
    part = store.where([5, 3])
    assert [str(site) for site in part.sites] == [*SITES, "mlp_out.2"]
    plain = record(model, [prompts[5], prompts[3]], sites=["mlp_out.2"])
    assert relative_error(part.matrix("mlp_out.2"), plain.matrix("mlp_out.2")) < 1e-5
    with pytest.raises(InputError, match="1 groups of these sequences have no"):
        store.where([5, 0]).matrix("mlp_out.2")
    filled = collect(model, prompts, path, sites=["mlp_out.2"])
    assert filled.matrix("mlp_out.2").shape == (len(prompts), 32)


def test_other_weights_at_the_same_path_never_return_old_activations(checkpoint, prompts, tmp_path):
    """The trap of caches keyed by name: same path, same label, new weights."""
    path = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    store = collect(load(path), prompts, tmp_path / "s")
    make_checkpoint(path, seed=1)
    resaved = load(path)
    before = contents(tmp_path / "s")
    for asked in (prompts, prompts[:1], make_prompts(7)):
        with pytest.raises(InputError, match="weights_digest: there"):
            collect(resaved, asked, tmp_path / "s")
    with pytest.raises(InputError, match="of another model"):
        ActivationStore.open(store.path, resaved.identity)
    assert contents(tmp_path / "s") == before


def test_the_same_weights_computing_something_else_never_return_old_activations(
    checkpoint, prompts, tmp_path
):
    path = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    collect(load(path), prompts, tmp_path / "s")
    file = path / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "transformers_version": "9"}))
    assert len(collect(load(path), prompts, tmp_path / "s")) == len(prompts)
    file.write_text(json.dumps({**settings, "rms_norm_eps": 1e-3}))
    with pytest.raises(InputError, match="config_digest: there"):
        collect(load(path), prompts, tmp_path / "s")


def test_sequences_without_rows_have_every_site_and_stay_as_they_are(model, prompts, tmp_path):
    path = tmp_path / "s"
    settings = {"positions": "trigger", "allow_missing": True}
    mixed = [*prompts[:3], *own_prompts(["no cue here"])]
    collect(model, mixed, path, sites=["z.0"], shard_tokens=1, **settings)
    without = collect(model, mixed[3:], path, sites=["mlp_out.1"], **settings)
    assert without.rows("mlp_out.1").shape == (0, 32)
    before = contents(path)
    assert len(collect(model, mixed[3:], path, sites=["mlp_out.1"], **settings)) == 1
    assert contents(path) == before
    alone = tmp_path / "alone"
    collect(model, mixed[3:], alone, **settings)
    before = contents(alone)
    collect(model, mixed[3:], alone, **settings)
    assert contents(alone) == before


def test_a_damaged_history_does_not_keep_a_store_from_growing(model, prompts, tmp_path):
    collect(model, prompts[:3], tmp_path / "s")
    (tmp_path / "s" / "provenance.json").write_text("{")
    assert len(collect(model, prompts, tmp_path / "s").verify()) == len(prompts)
