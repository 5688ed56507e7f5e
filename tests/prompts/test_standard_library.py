"""Benign requests come from the interpreter's own library, as text."""

import inspect
import statistics
import textwrap

import pytest

from probes.foundation.errors import InputError
from probes.prompts import standard_library as library
from probes.prompts.standard_library import functions


def test_functions_are_those_that_python_itself_would_show():
    found = {(one.module, one.name): one for one in functions(100)}
    for name, real in (("fill", textwrap.fill), ("shorten", textwrap.shorten)):
        one = found["textwrap", name]
        assert one.source == inspect.getsource(real).rstrip()
        assert one.docstring == inspect.getdoc(real)
        assert one.signature == f"def {name}{inspect.signature(real)}:"
    assert ("statistics", "geometric_mean") in found and statistics.geometric_mean.__doc__
    assert len({one.summary for one in found.values()}) > 95


def test_modules_take_turns_and_the_seed_draws_the_order():
    first = functions(24)
    assert len({one.module for one in first}) >= 12
    assert functions(24) == first and functions(10) == first[:10]
    assert functions(24, seed=1) != first


def test_nothing_of_a_module_is_run(tmp_path, monkeypatch):
    """A library whose modules would say that they were executed."""
    for name in library.MODULES:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'executed')!r}, 'w')\n"
            f"def {name}_one(x: int) -> int:\n    '''Return the one and only x of {name}.'''\n"
        )
    library._functions_of.cache_clear()
    monkeypatch.setattr(library.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    try:
        found = functions(3)
        assert found[0].signature == f"def {found[0].module}_one(x):"
        assert found[0].summary.startswith("Return the one and only x of")
        assert not (tmp_path / "executed").exists()
        (tmp_path / "heapq.py").unlink()
        library._functions_of.cache_clear()
        with pytest.raises(InputError, match="'heapq' is not under"):
            functions(3)
    finally:
        library._functions_of.cache_clear()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="10000 functions asked for"):
        functions(10000)
