"""Two processes on one store wait for each other, and both get what they asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plain_forward import relative_error

from probes.activations.collect import collect
from probes.activations.record import record
from probes.activations.store import ActivationStore
from probes.foundation.outputs import claimed

SCRIPT = Path(__file__).parent / "sharing_collections.py"


@pytest.fixture(scope="module")
def shared(checkpoint, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("shared")
    done = subprocess.run(
        [sys.executable, SCRIPT, checkpoint, out],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout.splitlines()[-1])


def test_the_same_request_twice_is_computed_once(shared, model, prompts):
    out, report = shared
    one, two = report["same"]
    assert one["key"] == two["key"]
    n_groups = len(ActivationStore.open(out / "same").verify().manifest.groups)
    assert sorted([one["computed"], two["computed"]]) == [0, n_groups]
    alone = collect(model, prompts, out / "alone", positions="all", shard_tokens=90)
    assert alone.key == one["key"]


def test_different_requests_are_both_served_in_one_store(shared, model, prompts):
    out, report = shared
    store = ActivationStore.open(out / "different").verify()
    assert len(store) == len(prompts)
    one, two = report["different"]
    assert (one["n_sequences"], one["sites"]) == (8, ["resid_pre.0", "z.1"])
    assert (two["n_sequences"], two["sites"]) == (8, ["z.1", "resid_post.2"])
    ids = store.prompts["prompt_id"].tolist()
    for asked, sites in ((prompts[:8], one["sites"]), (prompts[4:], two["sites"])):
        part = store.where([ids.index(prompt.id) for prompt in asked])
        plain = record(model, asked, sites=sites, positions="all")
        for site in sites:
            assert relative_error(part.rows(site), plain.rows(site)) < 1e-5


def test_one_that_is_killed_while_it_waits_or_works_harms_nobody(shared):
    out, report = shared
    assert report["killed"]["statuses"] == ["killed", "killed", "done"]
    assert len(ActivationStore.open(out / "killed").verify()) == report["killed"]["n_sequences"]


def test_a_claim_is_given_back_when_the_work_fails(model, prompts, tmp_path):
    def broken(model, tasks, maker):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        collect(model, prompts, tmp_path / "s", engine=broken)
    with claimed(tmp_path / "s"):
        pass
    assert len(collect(model, prompts, tmp_path / "s")) == len(prompts)
