"""One thread, no network, no screen; and every shape that the numerical code states is checked."""

import os

os.environ.update(
    OMP_NUM_THREADS="1",  # tensors this small lose time in a thread pool
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
)

import sys

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
