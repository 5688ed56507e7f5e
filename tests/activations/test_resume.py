"""A collection killed at any moment goes on from what was finished and ends in the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from probes.activations.collect import collect

SCRIPT = """
import hashlib, json, os, signal, sys
from pathlib import Path

import torch

torch.set_num_threads(1)  # no thread pool, so that a fork is safe; and the same sums everywhere
sys.path.insert(0, sys.argv[1])
from random_llama import make_prompts

from probes.activations import collect as engine
from probes.models.loading import load

model, prompts, out = load(sys.argv[2]), make_prompts(), Path(sys.argv[3])
fsync, compute, computed, steps = os.fsync, engine.compute, [], 0


def collect(path):
    return engine.collect(model, prompts, path, positions="all", shard_prompts=4, token_budget=60)


def counted(*arguments):
    computed.append(1)
    return compute(*arguments)


def content(path):
    files = (file for file in path.iterdir() if file.name != "provenance.json")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def die_at(point):
    def stepping(descriptor):
        global steps
        steps += 1
        if steps == point:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = stepping


engine.compute = counted
collect(out / "whole")
report = {"whole": content(out / "whole"), "runs": []}
for point in range(1, 100):
    path = out / f"killed-{point}"
    child = os.fork()
    if child == 0:
        die_at(point)
        collect(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    left = sorted(file.name for file in path.iterdir())
    computed.clear()
    collect(path)
    report["runs"].append({"left": left, "computed": len(computed), "content": content(path)})
print(json.dumps(report))
"""
N_SHARDS = 3


@pytest.fixture(scope="module")
def report(checkpoint, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("resume")
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT, here, str(checkpoint), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_at_every_sync_and_resumed_gives_the_same_bytes(report):
    # Spec, then shard and sidecar three times, prompts, provenance, manifest; two syncs for each.
    assert len(report["runs"]) == 2 * (1 + 2 * N_SHARDS + 3)
    for run in report["runs"]:
        assert run["content"] == report["whole"]


def test_finished_shards_are_not_computed_again_and_half_written_ones_are(report):
    computed = [run["computed"] for run in report["runs"]]
    assert computed[0] == N_SHARDS
    assert computed[-1] == 0
    assert computed == sorted(computed, reverse=True)
    assert set(computed) == set(range(N_SHARDS + 1))
    for run in report["runs"]:
        n_finished = sum(name.endswith(".finished.json") and name[0] != "." for name in run["left"])
        assert run["computed"] == N_SHARDS - n_finished


def test_the_kills_left_half_written_files_behind(report):
    """Otherwise the tests above would not have tested anything."""
    left = [name for run in report["runs"] for name in run["left"]]
    assert any(name.startswith(".tmp-shard") for name in left)


def test_a_shard_whose_bytes_are_not_the_recorded_ones_is_made_again(model, prompts, tmp_path):
    whole = collect(model, prompts, tmp_path / "whole", shard_prompts=5)
    spoiled = tmp_path / "spoiled"
    interrupt_after_shards(model, prompts, spoiled)
    shard = spoiled / "shard-00001.safetensors"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    collect(model, prompts, spoiled, shard_prompts=5)
    assert shard.read_bytes() == (whole.path / shard.name).read_bytes()


def test_a_shard_made_by_other_library_versions_is_made_again(
    model, prompts, tmp_path, monkeypatch
):
    from probes.activations import collect as engine

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_versions", lambda: dict.fromkeys(engine.VERSIONED, "0.0"))
        interrupt_after_shards(model, prompts, tmp_path / "s")
    n_computed = 0
    compute = engine.compute

    def counted(*arguments):
        nonlocal n_computed
        n_computed += 1
        return compute(*arguments)

    monkeypatch.setattr(engine, "compute", counted)
    collect(model, prompts, tmp_path / "s", shard_prompts=5)
    assert n_computed == 3


def interrupt_after_shards(model, prompts, path):
    """Collect, and stop as Ctrl-C would when every shard but no manifest is there."""
    from probes.activations import collect as engine

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(model, prompts, path, shard_prompts=5)
    assert len(list(path.glob("shard-*.safetensors"))) == 3
