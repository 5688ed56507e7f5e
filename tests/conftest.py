"""One thread, no network, no screen; and every shape that the numerical code states is checked."""

import os

os.environ.update(
    OMP_NUM_THREADS="1",  # tensors this small lose time in a thread pool
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
)

import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import jaxtyping
import pytest

CHECKED = (
    "probes.models",
    "probes.activations",
    "probes.probing",
    "probes.patching",
    "probes.evaluation",
    "probes.detection",
    "probes.plotting",
    "probes.behaviour",
    "probes.organisms",
    "probes.runs",
    "probes.auditing",
    "probes.detection",
)

early = sorted(name for name in sys.modules if name.startswith(CHECKED))
assert not early, f"imported before its shapes could be checked: {early}"
checked = jaxtyping.jaxtyped


def has_shape(annotation: Any) -> bool:
    """Whether a shape stands in this annotation, or may: a quoted one is not read."""
    if isinstance(annotation, str):
        return "[" in annotation
    shaped = inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
    return shaped or any(map(has_shape, get_args(annotation)))


def checked_where_shaped(**how: Any) -> Callable[[Any], Any]:
    """The decorator of the import hook. A call that it checks takes ten times as long: what has no shape is mypy's."""

    def decorate(made: Any) -> Any:
        called = made.__init__ if inspect.isclass(made) else made
        hints = getattr(called, "__annotations__", {}).values()
        return checked(made, **how) if any(map(has_shape, hints)) else made

    return decorate


jaxtyping.jaxtyped = checked_where_shaped
jaxtyping.install_import_hook(list(CHECKED), "beartype.beartype")


# Waiting for the disk is a third of many tests; what must survive a kill is tested in processes of its own.
os.fsync = lambda descriptor: None


@pytest.fixture(scope="session", autouse=True)
def fast_pdf() -> None:
    """Fonts as outlines: to cut TrueType ones down takes longer than all else in a figure."""
    from probes.plotting.style import RC

    RC["pdf.fonttype"] = 3


# Files that take half a minute or more, which begin first: the last of them would run alone.
LONG = (
    "studies/test_study.py",
    "activations/test_killed.py",
    "studies/persistence/test_ray_running.py",
    "activations/test_ray_engine.py",
    "organisms/test_training_resume.py",
    "patching/test_effects.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, all else in the order that it stands in."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONG)}
    gone = [str(path) for path in place if not path.exists()]
    assert not gone, f"no longer there, take it out of LONG: {gone}"
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


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
