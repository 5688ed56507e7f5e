"""The sweep finds a planted direction where it is, and nothing where nothing is."""

import numpy as np
import pytest
from planted_family import SITES, activations, corpus

from probes.foundation.errors import InputError
from probes.probing.random_directions import random_directions
from probes.probing.rows import checked_rows, grouped_folds, require_disjoint
from probes.probing.sweep import sweep

DATA = corpus()
KEPT = (DATA.prompt_set == "vulnerable") & ~DATA.evaluation


def fit_rows(feature, strength=6.0, seed=0):
    X = activations(DATA, feature, strength, seed)
    return {site: rows[KEPT] for site, rows in X.items()}


@pytest.mark.parametrize("estimator", ["mean_difference", "logistic"])
def test_a_planted_direction_is_found_at_its_depth(estimator):
    found = sweep(
        fit_rows(DATA.triggered), DATA.triggered[KEPT], DATA.template[KEPT], estimator=estimator
    )
    table = found.by_site.set_index("site")["auroc"]
    assert table["resid_post.2"] > 0.97 and abs(table["resid_pre.0"] - 0.5) < 0.2
    assert found.best_site in ("resid_post.1", "resid_post.2")
    assert found.best.site == found.best_site
    assert list(found.directions) == list(SITES)
    assert "best site" in str(found) and "<table" in found._repr_html_()


def test_every_row_is_scored_by_a_probe_that_saw_none_of_its_template():
    y, groups = DATA.triggered[KEPT], DATA.template[KEPT]
    found = sweep(fit_rows(DATA.triggered), y, groups, estimator="mean_difference")
    for template in np.unique(groups):
        assert len(np.unique(found.folds[groups == template])) == 1
    fold, X = found.folds, fit_rows(DATA.triggered)["resid_post.2"].astype(float)
    train = fold != fold[0]
    direction = X[train & y].mean(axis=0) - X[train & ~y].mean(axis=0)
    middle = (X[train & y].mean(axis=0) + X[train & ~y].mean(axis=0)) / 2
    assert found.scores["resid_post.2"][0] == pytest.approx(direction @ (X[0] - middle))


def test_near_copies_are_worth_nothing_when_groups_are_told():
    """Each template has its own label and its own offset: only a leaky split can 'predict' it."""
    rng = np.random.default_rng(0)
    template = np.repeat(np.arange(20), 10)
    y = template % 2 == 0
    X = {"site": rng.normal(size=(20, 64))[template] + 0.1 * rng.normal(size=(200, 64))}
    honest = sweep(X, y, template, estimator="logistic").by_site["auroc"][0]
    leaky = sweep(X, y, np.arange(200), estimator="logistic").by_site["auroc"][0]
    assert leaky > 0.99 and honest < 0.85
    with pytest.raises(InputError, match="2 templates lie on both sides"):
        require_disjoint(["a", "b", "c"], ["b", "c", "d"])


def test_ties_go_to_the_earlier_site():
    X = fit_rows(DATA.triggered)["resid_post.2"]
    found = sweep(
        {"b": X, "a": X}, DATA.triggered[KEPT], DATA.template[KEPT], estimator="mean_difference"
    )
    assert found.best_site == "b"


def test_a_constant_site_beside_others_is_chance_not_an_error():
    X = fit_rows(DATA.triggered) | {"resid_pre.0": np.full((KEPT.sum(), 24), 3.0)}
    for estimator in ("mean_difference", "logistic"):
        found = sweep(X, DATA.triggered[KEPT], DATA.template[KEPT], estimator=estimator)
        rows = found.rows[found.rows["site"] == "resid_pre.0"]
        assert (rows["auroc"] == 0.5).all()


def test_same_seed_same_sweep_and_the_seed_only_moves_folds():
    arguments = (fit_rows(DATA.triggered, 2.0), DATA.triggered[KEPT], DATA.template[KEPT])
    first, second, other = (
        sweep(*arguments, estimator="logistic", seed=seed) for seed in (0, 0, 1)
    )
    assert first.rows.equals(second.rows) and not first.rows.equals(other.rows)
    assert first.best == second.best
    site = SITES[2]
    np.testing.assert_array_equal(first.directions[site].coef, other.directions[site].coef)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(12, dtype=bool)}, "one class only: 0 positive of 12"),
        ({"y": np.zeros(11, dtype=bool)}, "11 labels and groups"),
        ({"groups": np.repeat(np.arange(4), 3)}, "5 folds over 4 groups: give 2 to 4"),
        ({"groups": np.arange(12), "y": np.arange(12) < 2}, "2 groups hold a positive and 10"),
        ({"X": {"a": np.full((12, 3), np.nan)}}, "a holds NaN or infinite.*row 0"),
        ({"X": {"a": np.full((12, 3), 7.0)}}, "no feature varies at any of a"),
        ({"X": {"a": np.ones((9, 3))}}, r"a has shape \(9, 3\) for 12 labels"),
        ({"X": {}}, "no sites"),
        ({"estimator": "logistik"}, "Did you mean 'logistic'"),
    ],
)
def test_unusable_input_is_refused(change, message):
    usable = {
        "X": {"a": np.random.default_rng(0).normal(size=(12, 3))},
        "y": np.arange(12) % 2 == 0,
        "groups": np.repeat(np.arange(6), 2),
        "estimator": "logistic",
    }
    sweep(**usable)
    with pytest.raises(InputError, match=message):
        sweep(**usable | change)


def test_folds_hold_both_classes_and_whole_groups():
    data = checked_rows(fit_rows(DATA.triggered), DATA.triggered[KEPT], DATA.template[KEPT])
    folds = grouped_folds(data.y, data.groups, 5, 0)
    assert sorted(np.unique(folds)) == [0, 1, 2, 3, 4]
    assert all(0 < data.y[folds == fold].mean() < 1 for fold in range(5))


def test_random_directions_are_chance_on_noise_and_unoriented_by_evaluation_rows():
    rng = np.random.default_rng(0)
    noise = {"a": rng.normal(size=(400, 16))}
    y = np.arange(400) % 2 == 0
    found = random_directions(noise, y, {"a": rng.normal(size=(400, 16))}, y, n=500)
    assert abs(found.rows["auroc"].mean() - 0.5) < 0.02
    assert 0.3 < (found.rows["auroc"] > 0.5).mean() < 0.7
    assert found.percentile("a") == np.percentile(found.rows["auroc"], 95)
    with pytest.raises(InputError, match="unknown site"):
        found.percentile("b")


def test_random_directions_carry_the_sign_of_the_fit_rows():
    X = activations(DATA, DATA.triggered, 8.0, 0)
    sides = [(DATA.prompt_set == "vulnerable") & (DATA.evaluation == side) for side in (0, 1)]
    parts = [{site: rows[side] for site, rows in X.items()} for side in sides]
    y = [DATA.triggered[side] for side in sides]
    right = random_directions(parts[0], y[0], parts[1], y[1], n=300)
    assert (right.rows.query("site == 'resid_post.2'")["auroc"] > 0.5).mean() > 0.9
    wrong = random_directions(parts[0], ~y[0], parts[1], y[1], n=300)
    assert (wrong.rows.query("site == 'resid_post.2'")["auroc"] < 0.5).mean() > 0.9
    assert right.by_site()["site"].tolist() == list(SITES)
