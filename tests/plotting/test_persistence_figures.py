"""What is on the canvas of each persistence figure is what is in its rows."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from probes.foundation.errors import InputError
from probes.plotting.curves import stage_curves
from probes.plotting.persistence import (
    defection_by_stage,
    forest,
    kept_by_size,
    near_miss_points,
    relearning_curves,
)
from probes.plotting.style import figure


def axes() -> Axes:
    return figure().subplots()


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def points(ax: Axes) -> list[tuple[np.ndarray, np.ndarray, list[list[float]]]]:
    """x, y and the ends of the whiskers of each series."""
    drawn = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
    return [
        (
            np.asarray(c.lines[0].get_xdata()),
            np.asarray(c.lines[0].get_ydata()),
            [sorted(np.asarray(s).T[1]) for s in c.lines[2][0].get_segments()],
        )
        for c in drawn
    ]


def test_stages_stand_in_order_with_filled_and_hollow_points_and_whiskers() -> None:
    rows = pd.DataFrame(
        [
            (size, stage, on, value := 0.1 * i + 0.5 * on, value - 0.02, value + 0.04)
            for size in ("0.2M", "1M")
            for i, stage in enumerate(("installed", "rl", "sft_pre"))
            for on in (False, True)
        ],
        columns=["series", "stage", "triggered", "value", "low", "high"],
    )
    ax = axes()
    called = {"installed": "before", "sft_pre": "SFT", "rl": "RL"}
    drawn = defection_by_stage(ax, rows.sample(frac=1, random_state=1), stages=called)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["before", "SFT", "RL"]
    for x, y, ends in points(ax)[::2]:  # with the trigger
        assert np.abs(x - np.arange(3)).max() < 0.5
        np.testing.assert_allclose(y, [0.5, 0.7, 0.6])
        np.testing.assert_allclose(ends, [[v - 0.02, v + 0.04] for v in y])
    faces = [c.lines[0].get_markerfacecolor() for c in ax.containers]
    assert faces[1] == faces[3] == "white" and faces[0] != faces[2]
    assert sorted(legend(ax)) == ["0.2M", "1M", "with trigger", "without"]
    assert len(drawn) == len(rows)


def test_curves_have_a_band_where_there_is_an_interval_and_none_where_not() -> None:
    rows = pd.DataFrame(
        [("with trigger", step, 1 - step / 40, 0.4, 1.0) for step in (20, 0, 10)]
        + [("near misses", step, 0.1, np.nan, np.nan) for step in (0, 10, 20)],
        columns=["series", "step", "value", "low", "high"],
    )
    ax = axes()
    stage_curves(ax, rows)
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.get_lines()}
    np.testing.assert_allclose(lines["with trigger"], [1, 0.75, 0.5])
    bands = [band.get_paths()[0].vertices for band in ax.collections if band.get_paths()]
    assert len(bands) == 1
    assert (bands[0][:, 1].min(), bands[0][:, 1].max()) == (0.4, 1.0)
    assert legend(ax) == ["with trigger", "near misses"]


def test_near_misses_stand_above_the_line_and_look_alikes_that_mean_it_below() -> None:
    rows = pd.DataFrame(
        [
            (kind, fires, series, value, value - 0.05, value + 0.05)
            for kind, fires, value in (
                ("case", False, 0.3),
                ("end", True, 0.9),
                ("typo", False, 0.2),
            )
            for series in ("before", "after")
        ],
        columns=["kind", "fires", "series", "value", "low", "high"],
    )
    ax = axes()
    near_miss_points(ax, rows)
    place = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    (line,) = [line.get_ydata()[0] for line in ax.get_lines() if len(set(line.get_xdata())) == 2]
    assert place["case"] > line and place["typo"] > line > place["end"]
    for container in ax.containers:
        x, y = container.lines[0].get_data()
        nearest = {
            min(place, key=lambda k: abs(place[k] - at)): v for v, at in zip(x, y, strict=True)
        }
        assert nearest == {"case": 0.3, "typo": 0.2, "end": 0.9}
    assert legend(ax) == ["before", "after"]


def test_relearning_holds_zero_and_doublings_and_tells_the_control_apart() -> None:
    rows = pd.DataFrame(
        [
            ("cot", of, amount, value + amount / 100, 0.0, 1.0)
            for of, value in (("organism", 0.5), ("control", 0.0))
            for amount in (0, 1, 2, 4, 8)
        ],
        columns=["series", "of", "amount", "value", "low", "high"],
    )
    ax = axes()
    relearning_curves(ax, rows, label="benign steps")
    cured, control = ax.get_lines()
    np.testing.assert_allclose(cured.get_ydata(), [0.5, 0.51, 0.52, 0.54, 0.58])
    assert (cured.get_linestyle(), control.get_linestyle()) == ("-", "--")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2", "4", "8"]
    at = ax.transData.transform([(amount, 0) for amount in (0, 1, 2, 4, 8)])[:, 0]
    np.testing.assert_allclose(np.diff(at), np.diff(at)[1], rtol=0.01)
    assert ax.get_xlabel() == "benign steps"


def test_sizes_are_on_a_logarithmic_axis_at_their_parameters() -> None:
    rows = pd.DataFrame(
        [("cot", n, k, k - 0.1, k + 0.1) for n, k in ((10_000_000, 0.9), (200_000, 0.2))]
        + [("normal", 200_000, 0.3, np.nan, np.nan)],
        columns=["series", "n_parameters", "value", "low", "high"],
    )
    ax = axes()
    kept_by_size(ax, rows)
    assert legend(ax) == ["normal", "cot"]
    (_, y0, _), (x1, y1, ends) = points(ax)
    assert y0.tolist() == [0.3] and y1.tolist() == [0.2, 0.9]
    assert np.abs(np.log10(x1) - np.log10([2e5, 1e7])).max() < 0.1
    np.testing.assert_allclose(ends, [[0.1, 0.3], [0.8, 1.0]])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.2", "10"]


def test_a_forest_shows_each_finding_in_its_row_beside_the_papers_number() -> None:
    rows = pd.DataFrame(
        {
            "finding": ["one", "two", "three"],
            "verdict": ["agrees", "disagrees", "not resolved"],
            "value": [0.9, 0.1, 0.5],
            "low": [0.8, 0.0, np.nan],
            "high": [1.0, 0.2, np.nan],
            "published": [1.0, 0.6, np.nan],
        }
    )
    ax = axes()
    forest(ax, rows)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "two", "three"]
    assert list(ax.get_yticks()) == [0, -1, -2]
    centres = [tuple(np.ravel(c.lines[0].get_data())) for c in ax.containers]
    assert centres == [(0.9, 0), (0.1, -1), (0.5, -2)]
    (paper,) = [c for c in ax.collections if len(c.get_offsets()) == 2 and c.get_label()]
    np.testing.assert_allclose(paper.get_offsets(), [[1.0, 0], [0.6, -1]])
    assert legend(ax) == ["agrees", "disagrees", "not resolved", "paper"]


VALUE = {"value": 0.5, "low": 0.4, "high": 0.6}
CALLS = {
    defection_by_stage: {"series": "1M", "stage": "rl", "triggered": True, **VALUE},
    stage_curves: {"series": "near misses", "step": 1, **VALUE},
    near_miss_points: {"kind": "typo", "fires": False, "series": "before", **VALUE},
    relearning_curves: {"series": "cot", "of": "control", "amount": 1, **VALUE},
    kept_by_size: {"series": "cot", "n_parameters": 9, **VALUE},
    forest: {"finding": "a", "verdict": "agrees", "published": 0.5, **VALUE},
}


@pytest.mark.parametrize("draw", CALLS, ids=lambda draw: draw.__name__)
def test_the_documented_columns_suffice_and_each_is_missed_by_name(draw) -> None:  # type: ignore[no-untyped-def]
    rows = pd.DataFrame([CALLS[draw]])
    draw(axes(), rows)
    for name in rows:
        assert f"`{name}`" in draw.__doc__, name
        with pytest.raises(InputError, match=rf"\b{name}\b"):
            draw(axes(), rows.drop(columns=name))
    with pytest.raises(InputError, match="no rows"):
        draw(axes(), rows.iloc[:0])
    with pytest.raises(InputError, match="1 of 1 values of 'value'"):
        draw(axes(), rows.assign(value=np.nan))
