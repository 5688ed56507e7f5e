"""Ray's workers give the bytes of the plain engine, and what they lose is computed again, no more."""

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import ray
import torch
from random_llama import make_checkpoint, make_prompts
from safetensors.torch import load_file, save_file

from probes.activations.collect import collect
from probes.activations.compute import OutOfMemoryWarning
from probes.activations.engine import engine_named
from probes.activations.publication import make_maker
from probes.activations.ray_engine import ModelWorker, RayEngine
from probes.foundation import workers
from probes.foundation.cluster import USAGE
from probes.foundation.errors import InputError, StageError
from probes.foundation.workers import ATTEMPTS, IN_FLIGHT, Pool
from probes.models.loading import load

SETTINGS = {"positions": "all", "shard_tokens": 60, "token_budget": 60}
N_SHARDS = 10
PATIENCE_S = 180.0


def content(path):
    files = (file for file in path.iterdir() if file.name != "provenance.json")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def whole(model, prompts, tmp_path_factory):
    """What the plain engine makes."""
    path = tmp_path_factory.mktemp("plain") / "whole"
    collect(model, prompts, path, **SETTINGS)
    assert len(list(path.glob("shard-*.safetensors"))) == N_SHARDS
    return content(path)


@pytest.mark.slow
def test_with_nothing_configured_ray_comes_and_goes_and_bfloat16_stays_what_it_is(
    model, tmp_path, capfd, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(USAGE, raising=False)
    prompts = make_prompts(2)
    collect(model, prompts, tmp_path / "plain", dtype="bfloat16", **SETTINGS)
    engine = RayEngine(n_actors=1, cpus_per_actor=1)
    store = collect(model, prompts, tmp_path / "ray", dtype="bfloat16", engine=engine, **SETTINGS)
    assert store.to_torch("resid_post.1").dtype == torch.bfloat16
    assert content(tmp_path / "ray") == content(tmp_path / "plain")
    assert not ray.is_initialized()
    assert USAGE not in os.environ
    assert "ray" not in capfd.readouterr().out.lower()


@pytest.fixture
def folder(cluster, tmp_path, monkeypatch):
    """Where workers write down what they do, and find what to do.

    `begin` and `end` lines of `log` name a process and the first sequence of its shard. Where
    `slow` lies, a shard takes half a second; where `scarce` lies, memory holds one sequence only.
    """
    folder = tmp_path / "watched"
    folder.mkdir()

    class Watched(ModelWorker):
        def start(self):
            from probes.models import forward

            trunk = forward.trunk

            def scarce(hf, padded):
                if len(padded.tokens) > 1:
                    raise RuntimeError("out of memory")
                return trunk(hf, padded)

            if (folder / "scarce").exists():
                forward.trunk = scarce
            super().start()

        def compute(self, job):
            self.write("begin", job)
            if (folder / "slow").exists():
                time.sleep(0.5)
            found = super().compute(job)
            self.write("end", job)
            return found

        def write(self, word, job):
            first = job.layout.sequence_id[0].tobytes().hex()[:8]
            with (folder / "log").open("a") as log:
                log.write(f"{word} {os.getpid()} {first}\n")

    remote = ray.remote

    def watched(**options):
        return lambda cls: remote(**options)(Watched if cls is ModelWorker else cls)

    monkeypatch.setattr(ray, "remote", watched)
    return folder


def logged(folder, word):
    """`(process, shard)` of every such line."""
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    return [tuple(line.split()[1:]) for line in lines if line.startswith(f"{word} ")]


def kill_a_busy_worker(folder, seen):
    """Once some shards are done, end a process that has begun one and not ended it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ended = logged(folder, "end")
        busy = [each for each in logged(folder, "begin") if each not in ended]
        if len(ended) >= 2 and busy:
            seen += busy[-1:]
            os.kill(int(busy[-1][0]), signal.SIGKILL)
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_worker_killed_at_work_costs_the_shard_in_its_hands_and_not_a_byte(
    model, prompts, whole, folder, tmp_path
):
    (folder / "slow").touch()
    killed = []
    killer = threading.Thread(target=kill_a_busy_worker, args=(folder, killed))
    killer.start()
    collect(model, prompts, tmp_path / "s", engine=RayEngine(), **SETTINGS)
    killer.join()
    assert content(tmp_path / "s") == whole
    [(process, shard)] = killed
    times = Counter(first for _, first in logged(folder, "begin"))
    assert times.pop(shard) == 2
    assert len(times) == N_SHARDS - 1
    assert set(times.values()) == {1}
    assert len(logged(folder, "end")) == N_SHARDS
    assert (process, shard) not in logged(folder, "end")
    assert len({process for process, _ in logged(folder, "end")}) >= 2
    assert ray.is_initialized()


@pytest.mark.slow
def test_a_cluster_is_joined_through_the_environment_and_left_alive(
    checkpoint, whole, cluster, tmp_path
):
    script = """
import sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from random_llama import make_prompts
from probes.activations.collect import collect
from probes.activations.ray_engine import RayEngine
from probes.models.loading import load
collect(load(sys.argv[2], label="tiny"), make_prompts(), sys.argv[3], engine=RayEngine(n_actors=1),
        positions="all", shard_tokens=60, token_budget=60)
"""
    address = ray.get_runtime_context().gcs_address
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", script, here, str(checkpoint), str(tmp_path / "s")]
    subprocess.run(command, check=True, env={**os.environ, "RAY_ADDRESS": address})
    assert content(tmp_path / "s") == whole
    nodes = [node for node in ray.nodes() if node["Alive"]]
    assert len(nodes) == 1


def free_cpus():
    """CPUs that no actor holds, after time to let go of them."""
    deadline = time.monotonic() + PATIENCE_S
    while (free := ray.available_resources().get("CPU", 0.0)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    return free


@pytest.mark.slow
def test_an_error_of_the_computation_is_raised_as_itself_and_ends_the_workers(
    cluster, prompts, tmp_path
):
    broken = make_checkpoint(tmp_path / "model")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"infinite activations at resid_post\.1") as raised:
        collect(load(broken), prompts, tmp_path / "s", engine=RayEngine(n_actors=1), **SETTINGS)
    assert type(raised.value) is StageError
    assert not list((tmp_path / "s").glob("manifest.json"))
    assert free_cpus() == 2


def test_other_weights_at_the_place_of_the_model_are_refused(cluster, prompts, tmp_path):
    model = load(make_checkpoint(tmp_path / "model"))
    shutil.rmtree(tmp_path / "model")
    make_checkpoint(tmp_path / "model", seed=1)
    with pytest.raises(InputError, match=model.digest):
        collect(model, prompts, tmp_path / "s", engine=RayEngine(n_actors=1), **SETTINGS)


@pytest.mark.slow
def test_a_worker_out_of_memory_warns_here(model, folder, tmp_path):
    (folder / "scarce").touch()
    prompts = make_prompts(1)
    with pytest.warns(OutOfMemoryWarning, match="going on with 1"):
        store = collect(model, prompts, tmp_path / "s", engine=RayEngine(n_actors=1), **SETTINGS)
    assert len(store) == len(prompts)


def test_a_worker_that_would_round_differently_refuses_to_start(model):
    maker = make_maker(model, 60)
    ModelWorker(model.source, model.identity, maker).start()
    older = maker.model_copy(update={"versions": {**maker.versions, "torch": "1.13"}})
    with pytest.raises(InputError, match=r"versions\.torch: there 2\..*, here 1\.13\)"):
        ModelWorker(model.source, model.identity, older).start()


def toy_pool(make, n_actors, n_tasks, read=None):
    """A pool of tasks that are called as they are numbered; read: gets those handed out."""
    names = [f"shard-{i}" for i in range(n_tasks)]

    def job(number):
        if read is not None:
            read.append(names[number])
        return names[number]

    return Pool(make, n_actors, names, job, wants="1 CPU", advice="Rest.")


def make_actors(deadly=(), at_start=False, cpus=(1,)):
    """Makers of actors that compute nothing, and that die where they are told to.

    cpus: of each actor in turn, the last for all further ones.
    """

    class Toy:
        def start(self):
            if at_start:
                os.kill(os.getpid(), signal.SIGKILL)

        def compute(self, name):
            if name in deadly:
                time.sleep(0.3)  # or the answer before this one dies with the process
                os.kill(os.getpid(), signal.SIGKILL)
            return name

    made = []

    def make():
        made.append(None)
        wanted = cpus[min(len(made), len(cpus)) - 1]
        return ray.remote(num_cpus=wanted, max_restarts=0)(Toy).remote()

    return make, made


@pytest.mark.slow
def test_a_task_that_workers_die_of_is_named_and_its_neighbours_are_not_blamed(cluster):
    make, made = make_actors(deadly=["shard-2"])
    done = []
    with (
        toy_pool(make, 1, 6) as pool,
        pytest.raises(StageError, match=rf"{ATTEMPTS} Ray workers died .* shard-2; .*unexpectedly"),
    ):
        for _, name in pool.run():
            done.append(name)
    assert len(made) == ATTEMPTS
    assert done[:2] == ["shard-0", "shard-1"]
    assert "shard-2" not in done
    assert free_cpus() == 2


def test_workers_that_die_as_they_start_end_the_run(cluster):
    make, made = make_actors(at_start=True)
    with (
        toy_pool(make, 1, 2) as pool,
        pytest.raises(StageError, match="in a row died while they loaded the model"),
    ):
        list(pool.run())
    assert len(made) == ATTEMPTS


def test_workers_that_never_find_room_keep_no_task_from_the_others(cluster):
    make, made = make_actors(cpus=(1000, 1))
    with toy_pool(make, 2, 7) as pool:
        assert sorted(name for _, name in pool.run()) == [f"shard-{i}" for i in range(7)]
    assert len(made) == 2


def test_the_last_tasks_are_left_for_workers_that_have_none(cluster):
    make, _ = make_actors(cpus=(1, 1000))
    read = []
    with toy_pool(make, 2, 2, read) as pool:
        next(pool.run())
        assert read == ["shard-0"]


def test_a_wait_for_the_first_worker_is_announced_once(cluster, monkeypatch, capsys):
    monkeypatch.setattr(workers, "START_PATIENCE_S", 0.01)
    make, _ = make_actors()
    with toy_pool(make, 1, 1) as pool:
        list(pool.run())
    assert capsys.readouterr().err.count("no Ray worker has started") == 1


def test_only_a_few_tasks_are_read_ahead_of_the_driver(cluster):
    make, _ = make_actors()
    read = []
    with toy_pool(make, 2, 20, read) as pool:
        results = pool.run()
        next(results)
        time.sleep(0.5)
        assert len(read) <= 2 * IN_FLIGHT
        assert len(list(results)) == 19


def test_an_address_where_nobody_answers_is_refused_within_seconds(monkeypatch, model, tmp_path):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        collect(model, make_prompts(1), tmp_path / "s", engine="ray", **SETTINGS)


def test_a_cluster_without_a_machine_large_enough_is_refused(model, prompts, cluster, tmp_path):
    for engine in (RayEngine(cpus_per_actor=64), RayEngine(gpus_per_actor=1)):
        with pytest.raises(InputError, match="the largest have 2 CPUs and 0 GPUs"):
            collect(model, prompts, tmp_path / "s", engine=engine, **SETTINGS)


@pytest.mark.parametrize("name", ["n_actors", "cpus_per_actor", "gpus_per_actor"])
def test_a_share_of_nothing_is_refused(name):
    with pytest.raises(InputError, match=f"{name} is a positive number, not 0"):
        RayEngine(**{name: 0})


def test_a_model_made_by_hand_is_refused(model, prompts, tmp_path):
    by_hand = dataclasses.replace(model, source=None)
    with pytest.raises(InputError, match="tiny was made by hand"):
        collect(by_hand, prompts, tmp_path / "s", engine="ray", **SETTINGS)


def test_an_unknown_engine_is_answered_with_the_choices():
    with pytest.raises(InputError, match=r"Did you mean 'ray'.* process, ray"):
        engine_named("rays")


def test_without_ray_installed_the_command_that_installs_it_is_shown(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "probes\[ray\]"'):
        engine_named("ray")
