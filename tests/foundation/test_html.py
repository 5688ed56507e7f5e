"""No text that a file or a user brings becomes markup in a notebook, in any object's view."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import probes
from probes.detection.monitor import Watched
from probes.foundation.html import html_table, html_text
from probes.models.selftest import Check, SelfTest
from probes.patching.attribution import Agreement
from probes.patching.result import Effects
from probes.patching.sources import Plan

BAD = "<script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
TAGS = {"p", "b", "table", "thead", "tbody", "tr", "th", "td", "pre", "span", "caption"}
HOME = Path(probes.__file__).parent


class Hostile(str):
    """An object whose every attribute, item, call and text is hostile."""

    def __new__(cls) -> "Hostile":
        return super().__new__(cls, BAD)

    def __getattr__(self, name: str) -> "Hostile":
        return Hostile()

    def __call__(self, *_: object, **__: object) -> "Hostile":
        return Hostile()

    def __getitem__(self, _: object) -> "Hostile":
        return Hostile()

    def __iter__(self):
        return iter([Hostile(), Hostile()])

    def __format__(self, _: str) -> str:
        return BAD

    def __repr__(self) -> str:
        return BAD

    def __truediv__(self, _: object) -> float:
        return 1.0

    def _repr_html_(self) -> str:
        return ""  # of parts that are classes of their own


def grid(head: object = None) -> Effects:
    cells = {"site": BAD, "head": head, "column": 0, "label": BAD, "normalised": 0.5, "mean": 0.5}
    each = pd.DataFrame({"unpatched": [0.0], "other": [1.0]})
    return Effects(pd.DataFrame([cells]), each, BAD, BAD, BAD, Plan(), 1)


def agreement() -> Agreement:
    made = object.__new__(Agreement)
    rows = pd.DataFrame({"site": [BAD], BAD: [BAD], "exact": [1.0]})
    for name in Agreement.__dataclass_fields__:
        object.__setattr__(made, name, rows if name == "rows" else 1.0)
    return made


def watched() -> Watched:
    rows = pd.DataFrame({"prompt_id": [BAD], "score": [1.0], "alarm": [True]})
    tokens = np.array([0.5, 1.0])
    return Watched(rows, ((BAD, BAD),), (tokens,), 0.7, (np.array([True, False]),), BAD)


DRAWN = {Effects: grid, Watched: watched}
"""Views that colour cells or tokens and so write tags of their own."""
MADE = {
    **DRAWN,
    Agreement: agreement,
    SelfTest: lambda: SelfTest(BAD, BAD, (Check(BAD, None, None, 0.1, False, BAD),), BAD),
}
"""Views that need an object with numbers."""


def viewed() -> list[type]:
    """Every class of the package that says how it looks in a notebook."""
    found = []
    for file in sorted(HOME.rglob("*.py")):
        if "def _repr_html_" in (text := file.read_text()):
            name = ".".join(file.relative_to(HOME.parent).with_suffix("").parts)
            own = [k for k in vars(importlib.import_module(name)).values() if inspect.isclass(k)]
            views = [k for k in own if k.__module__ == name and "_repr_html_" in vars(k)]
            assert len(views) == text.count("def _repr_html_"), f"{file}: a view out of reach"
            found += views
    return found


def assert_harmless(view: str) -> None:
    assert "alert(1)" in view, "the hostile text is not shown at all: this proves nothing"
    seen = {tag.lower() for tag in re.findall(r"<\s*/?\s*([a-zA-Z!?]+)", view)}
    assert seen <= TAGS, f"markup out of a text: {seen - TAGS}"
    assert not re.search(r"<[^>]*\bon\w+\s*=", view)


@pytest.mark.parametrize("kind", viewed(), ids=lambda kind: kind.__qualname__)
def test_every_view_escapes_what_it_shows(kind):
    view = MADE[kind]()._repr_html_() if kind in MADE else kind._repr_html_(Hostile())
    assert_harmless(view if kind.__name__ not in COMPOSED else view + html_text(BAD))


COMPOSED = {"Attributed", "Circuits", "Demo", "Lenses", "Stopped"}
"""Views made of other views alone."""


def test_tables_are_made_in_one_place():
    """A view that writes tags, or a table of its own, escapes the test above: there are none but `DRAWN`."""
    for file in HOME.rglob("*.py"):
        if file == HOME / "foundation" / "html.py":
            continue
        tree = ast.parse(file.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        assert not [node for node in calls if node.attr == "to_html"], f"{file}: use html_table"
        for kind in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
            for view in [n for n in kind.body if getattr(n, "name", "") == "_repr_html_"]:
                texts = [n.value for n in ast.walk(view) if isinstance(n, ast.Constant)]
                tags = [one for one in texts if isinstance(one, str) and re.search(r"</?\w+", one)]
                assert not tags or kind.name in {one.__name__ for one in DRAWN}, (file, tags)


def test_tables_escape_cells_headings_index_names_and_texts():
    table = pd.DataFrame({BAD: [BAD, {BAD: [BAD]}, 1.23456]}, index=[BAD, BAD, BAD])
    table.columns.name = BAD
    for view in (
        html_table(table, BAD, strong=BAD, index=True),
        html_table({BAD: BAD, "n": 1234}, BAD),
        html_text(BAD, strong=BAD),
    ):
        assert_harmless(view)
    assert "1,234" in html_table({"n": 1234}) and ">1.235<" in html_table(table)
