"""Memory does not grow with the number of prompts: they are taken in and let go a piece at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, resource, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from probes.activations.collect import collect
from probes.models.loading import load
from probes.prompts.records import Prompt

model, out = load(sys.argv[1]), Path(sys.argv[2])


def prompts(n):
    # A long reference completion, which is never tokenised, makes each prompt 8 kB large.
    for i in range(n):
        yield Prompt(
            text=f"add {i}",
            family="own",
            prompt_set="benign",
            template="own",
            pair=str(i),
            triggered=False,
            safe=f"{i} " * 2000,
        )


def peak(n):
    store = collect(model, prompts(n), out / str(n), sites=["resid_post.0"])
    assert len(store) == n
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


peak(50)
print(json.dumps([peak(2000), peak(20_000)]))
"""
N_BYTES = 20_000 * 2000 * 4


@pytest.mark.slow
def test_twenty_thousand_prompts_take_hardly_more_than_two_thousand(checkpoint, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, checkpoint, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    few, many = json.loads(done.stdout.splitlines()[-1])
    n_mib = N_BYTES / 2**20
    assert n_mib > 100
    assert many - few < n_mib / 4, f"{few:.0f} MiB for 2,000 prompts, {many:.0f} for 20,000"
    assert (Path(tmp_path) / "20000" / "manifest.json").exists()
