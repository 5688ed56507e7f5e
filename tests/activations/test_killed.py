"""A collection killed at any moment goes on from what was finished and ends in the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killed_collections.py"


def run(checkpoint: Path, out: Path, n_kills: int) -> dict:
    done = subprocess.run(
        [sys.executable, SCRIPT, checkpoint, out, str(n_kills)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def reports(checkpoint, tmp_path_factory) -> dict:
    return run(checkpoint, tmp_path_factory.mktemp("killed"), n_kills=12)


@pytest.fixture(scope="module")
def at_syncs(reports) -> dict:
    return reports["syncs"]


@pytest.mark.slow
def test_killed_at_every_sync_and_resumed_gives_the_same_bytes(at_syncs):
    n_shards = at_syncs["n_shards"]
    assert n_shards == 3
    # What it will be, prompts, a layout and a shard per group, index, history, manifest; two each.
    assert len(at_syncs["runs"]) == 2 * (2 + 2 * n_shards + 3)
    for killed in at_syncs["runs"]:
        assert killed["content"] == at_syncs["whole"]


@pytest.mark.slow
def test_finished_shards_are_not_computed_again_and_half_written_ones_are(at_syncs):
    n_shards = at_syncs["n_shards"]
    computed = [killed["computed"] for killed in at_syncs["runs"]]
    assert computed[0] == n_shards
    assert computed[-1] == 0
    assert computed == sorted(computed, reverse=True)
    assert set(computed) == set(range(n_shards + 1))
    for killed in at_syncs["runs"]:
        has_manifest = "manifest.json" in killed["left"]
        n_finished = sum(name.endswith(".finished.json") for name in killed["left"])
        assert killed["computed"] == (0 if has_manifest else n_shards - n_finished)


@pytest.mark.slow
def test_the_kills_left_half_written_files_behind(at_syncs):
    """Otherwise the tests above would not have tested anything."""
    left = {name.split("-")[1] for k in at_syncs["runs"] for name in k["left"] if name[0] == "."}
    assert {"unfinished.json", "layout", "index", "shard", "provenance.json"} <= left


def assert_extended(report: dict, n_kills: int) -> None:
    """That the store can be read and verified after every kill is checked on the way."""
    assert report["kills"] == n_kills
    assert report["finished"]
    for finished in report["finished"]:
        assert finished == report["whole"]
    # The kills met the run at different stages.
    stages = {sum(name.startswith("shard-") for name in left) for left in report["left"]}
    assert len(stages) > 2
    kept = report["old"].items() - {("manifest.json", report["old"]["manifest.json"])}
    assert kept <= report["whole"].items()
    assert len(report["whole"]) > len(report["old"])


def test_an_extension_killed_at_random_moments_ends_in_the_same_bytes(reports):
    assert_extended(reports["extension"], 12)


@pytest.mark.slow
def test_an_extension_killed_sixty_times_ends_in_the_same_bytes(checkpoint, tmp_path):
    assert_extended(run(checkpoint, tmp_path, n_kills=60)["extension"], 60)
