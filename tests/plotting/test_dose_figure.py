"""What is on the canvas of the dose curves is what is in their rows."""

import numpy as np
import pandas as pd
import pytest

from probes.foundation.errors import InputError
from probes.plotting.doses import dose_curves
from probes.plotting.style import figure
from probes.studies.steering.figures import dose_picture
from probes.studies.steering.steps import PLAIN


def rows() -> pd.DataFrame:
    made = [
        (name, triggered, dose, 0.5 + 0.1 * dose - 0.2 * (not triggered), 0.05)
        for name in ("random", "mean_difference")
        for triggered in (True, False)
        for dose in (2.0, 0.0, 1.0)
    ]
    table = pd.DataFrame(made, columns=["series", "triggered", "dose", "value", "half"])
    return table.assign(low=table["value"] - table["half"], high=table["value"] + table["half"])


def test_each_line_has_its_doses_in_order_and_its_intervals():
    ax = figure().subplots()
    drawn = dose_curves(ax, rows().sample(frac=1, random_state=0), label="dose", legend=True)
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
    assert len(drawn) == len(rows())
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["mean difference", "random", "with trigger", "without"]
    with pytest.raises(InputError, match="dose_curves needs"):
        dose_curves(figure().subplots(), rows().drop(columns="dose"))


def test_every_curve_of_the_picture_starts_at_the_plain_model():
    made = rows().rename(columns={"series": "direction"})
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
