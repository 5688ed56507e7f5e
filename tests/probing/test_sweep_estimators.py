"""Every estimator goes through the same sweep; those fitted at once find what they find one by one."""

import numpy as np
import pandas as pd
import pytest
from planted_family import activations, corpus

from probes.evaluation.auroc import auroc
from probes.foundation.errors import InputError, IntegrityError
from probes.models.identity import Identity
from probes.probing.estimators import (
    ContrastConsistentProbe,
    LogisticProbe,
    MeanDifferenceProbe,
    MLPProbe,
    PairedPCAProbe,
)
from probes.probing.frozen import Direction, Network, load_probe
from probes.probing.sweep import ESTIMATORS, Batched, Paired, sweep

DATA = corpus(n_pairs=20, n_templates=5)
KEPT = (DATA.prompt_set == "vulnerable") & ~DATA.evaluation
Y, GROUPS, PAIRS = DATA.triggered[KEPT], DATA.template[KEPT], DATA.pair[KEPT]
TOLERANCE = 1e-4
"""Of the largest score: logistic regression ends at a gradient of 1e-6, its peer at 1e-8."""


def fit_rows(strength=6.0, width=24, seed=0):
    found = activations(DATA, DATA.triggered, strength, seed, width)
    return {site: rows[KEPT].astype(np.float32) for site, rows in found.items()}


def narrow_and_wide():
    """Two widths, a dead site, a feature that is still in one fold only, and one with rounding noise."""
    X = fit_rows() | {f"wide.{k}": v for k, v in fit_rows(width=60, seed=1).items()}
    X["dead"] = np.full((len(Y), 24), 3.0)
    folds = sweep(X, Y, GROUPS, estimator="mean_difference").folds
    rng = np.random.default_rng(5)
    X["resid_post.1"][:, 2] = np.where(folds == 3, 1e4 * rng.normal(size=len(Y)), 90 + 4e-5 * Y)
    X["resid_post.2"][:, 4] = 1000 + 1e-4 * Y
    return X


@pytest.mark.parametrize("name", [n for n, e in ESTIMATORS.items() if isinstance(e, Batched)])
def test_all_at_once_is_one_by_one(name):
    X = narrow_and_wide()
    found = sweep(X, Y, GROUPS, estimator=name)
    assert list(found.directions) == list(X) == found.by_site["site"].tolist()
    for site, rows in X.items():
        make = (lambda: LogisticProbe(tol=1e-8)) if name == "logistic" else ESTIMATORS[name].make
        if site == "dead":
            assert (found.rows.loc[found.rows["site"] == site, "auroc"] == 0.5).all()
            assert (found.directions[site].coef == 0).all()
            continue
        expected = np.empty(len(Y))
        for fold in range(5):
            test = found.folds == fold
            probe = make().fit(rows[~test], Y[~test])
            expected[test] = probe.decision_function(rows[test])
        apart = np.abs(found.scores[site] - expected).max() / np.abs(expected).max()
        assert apart < TOLERANCE, site
        whole = make().fit(rows, Y).coef_[0]
        np.testing.assert_allclose(
            found.directions[site].coef, whole, atol=TOLERANCE * np.abs(whole).max()
        )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_finds_what_was_planted(name):
    X = fit_rows() | {"dead": np.full((len(Y), 24), 7.0)}
    found = sweep(X, Y, GROUPS, estimator=name, pairs=PAIRS, identity=Identity(weights_digest="m"))
    table = found.by_site.set_index("site")["auroc"]
    assert table["resid_post.2"] > (0.8 if name == "sparse" else 0.95)
    assert abs(table["resid_pre.0"] - 0.5) < 0.3 and table["dead"] == 0.5
    site = "resid_post.2"
    for fold in range(5):
        test = found.folds == fold
        row = found.rows.query("site == @site and fold == @fold")
        assert row["auroc"].item() == auroc(Y[test], found.scores[site][test])
    best = found.best
    scores = best.score(X[best.site], site=best.site, identity=Identity(weights_digest="m"))
    assert best.width == 24 and best.estimator == name and auroc(Y, scores) > 0.9
    with pytest.raises(InputError, match="weights_digest: there m, here other"):
        best.score(X[best.site], site=best.site, identity=Identity(weights_digest="other"))


@pytest.mark.parametrize("name", [n for n, e in ESTIMATORS.items() if isinstance(e, Paired)])
def test_pairs_are_asked_for_and_kept_whole(name):
    X = {"a": fit_rows()["resid_post.2"]}
    with pytest.raises(InputError, match=f"{name} compares the two rows of a pair; saw no pairs"):
        sweep(X, Y, GROUPS, estimator=name)
    with pytest.raises(InputError, match=r"pair .* lies in more than one group"):
        sweep(X, Y, np.arange(len(Y)), estimator=name, pairs=PAIRS)
    with pytest.raises(InputError, match="pairs of shape"):
        sweep(X, Y, GROUPS, estimator=name, pairs=PAIRS[1:])
    with pytest.raises(InputError, match="a pair is two rows"):
        sweep(X, Y, GROUPS, estimator=name, pairs=GROUPS)


def test_paired_estimators_get_the_pairs_of_the_fitted_rows():
    rng = np.random.default_rng(0)
    order = rng.permutation(len(Y))
    X, y, groups, pairs = fit_rows()["resid_post.2"][order], Y[order], GROUPS[order], PAIRS[order]
    for name, make in (
        ("paired_pca", PairedPCAProbe),
        ("contrast_consistent", ContrastConsistentProbe),
    ):
        found = sweep({"a": X}, y, groups, estimator=name, pairs=pairs)
        test = found.folds == 2
        probe = make().fit(X[~test], y[~test], pairs=pairs[~test])
        np.testing.assert_allclose(
            found.scores["a"][test], probe.decision_function(X[test]), rtol=1e-5, atol=1e-5
        )


def test_a_network_sees_what_no_direction_holds_and_is_kept_as_one(tmp_path):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 6)) + 2.0
    y = (X[:, 0] > 2) ^ (X[:, 1] > 2)
    groups = np.arange(300) % 30
    sweeps = {n: sweep({"a": X}, y, groups, estimator=n) for n in ("mlp", "logistic")}
    assert sweeps["mlp"].by_site["auroc"][0] > 0.9 > 0.7 > sweeps["logistic"].by_site["auroc"][0]
    network = sweeps["mlp"].best
    assert isinstance(network, Network)
    saved = network.save(tmp_path / "network")
    loaded = load_probe(saved)
    assert loaded == network and hash(loaded) == hash(network)
    np.testing.assert_array_equal(loaded.raw_scores(X), network.raw_scores(X))
    single = MLPProbe().fit(X, y).decision_function(X)
    np.testing.assert_allclose(network.raw_scores(X), single, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="read-only"):
        network.hidden[0, 0] = 1.0
    with pytest.raises(InputError, match="holds a network, not a direction"):
        Direction.load(saved)
    data = bytearray((saved / "network.safetensors").read_bytes())
    data[-1] ^= 1
    (saved / "network.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError, match="was changed"):
        load_probe(saved)


def test_float32_rows_and_sites_of_any_order_give_tidy_rows():
    X = fit_rows()
    found = sweep(X, Y, GROUPS, estimator="ridge")
    again = sweep(dict(reversed(X.items())), Y, GROUPS, estimator="ridge")
    key = ["site", "fold"]
    one, other = (f.rows.sort_values(key).reset_index(drop=True) for f in (found, again))
    pd.testing.assert_frame_equal(one, other)
    one_site = MeanDifferenceProbe().fit(X["resid_post.1"], Y)
    plain = sweep(X, Y, GROUPS, estimator="mean_difference").directions["resid_post.1"]
    assert isinstance(plain, Direction)
    np.testing.assert_allclose(plain.coef, one_site.coef_[0], rtol=1e-9, atol=1e-12)


def test_a_dead_site_of_more_features_than_rows_stops_no_other():
    uneven = Y | (np.arange(len(Y)) % 3 == 0)  # so that the intercept has somewhere to go
    X = {"dead": np.full((len(Y), 60), 3.0)} | fit_rows(width=60)
    found = sweep(
        {site: rows[uneven] for site, rows in X.items()}, Y[uneven], GROUPS[uneven],
        estimator="logistic", n_folds=3,
    )  # fmt: skip
    assert set(found.by_site.loc[found.by_site["site"] == "dead", "auroc"]) == {0.5}
    assert found.best_site != "dead"
