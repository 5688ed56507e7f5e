"""A Ray that is started here is reachable from here alone."""

import os
import subprocess
import sys

import pytest

psutil = pytest.importorskip("psutil")

LISTENING = """
import os, time
import psutil
from probes.foundation.cluster import connected
with connected(n_cpus=1):
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    time.sleep(2)
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                print(one.laddr.ip, one.laddr.port, process.name())
"""


@pytest.mark.slow
def test_nothing_listens_on_other_interfaces() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "RAY_raylet_start_wait_time_s": "150"},
    )
    lines = done.stdout.splitlines()
    assert lines, "nothing listens at all: the test looks in the wrong place"
    assert not [line for line in lines if not line.split()[0].endswith(("127.0.0.1", "::1"))]
