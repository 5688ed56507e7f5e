"""One thread, no network, no screen; and every shape that the numerical code states is checked."""

import os

os.environ.update(
    OMP_NUM_THREADS="1",  # tensors this small lose time in a thread pool
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
)

import logging
import sys
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

CHECKED = (
    "probes.models",
    "probes.activations",
    "probes.probing",
    "probes.patching",
    "probes.evaluation",
    "probes.plotting",
    "probes.behaviour",
    "probes.organisms",
)

early = sorted(name for name in sys.modules if name.startswith(CHECKED))
assert not early, f"imported before its shapes could be checked: {early}"
install_import_hook(list(CHECKED), "beartype.beartype")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray that the caller started, for the tests of one file."""
    import ray

    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
