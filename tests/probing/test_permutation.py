"""The null: uniform on noise although the best site is chosen, small on a signal, and quick."""

import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from probes.foundation.errors import InputError
from probes.probing.permutation import CLOSED, permutation_test, shuffled_labels, swappable_pairs
from probes.probing.sweep import ESTIMATORS, sweep


def noise(seed, n_pairs=30, n_sites=8, width=12):
    rng = np.random.default_rng(seed)
    X = {f"site.{i}": rng.normal(size=(2 * n_pairs, width)) for i in range(n_sites)}
    y, pairs = np.tile([True, False], n_pairs), np.repeat(np.arange(n_pairs), 2)
    return X, y, pairs


def test_one_shuffle_by_vectorised_algebra_is_a_sweep_on_shuffled_labels():
    X, y, pairs = noise(0)
    result = permutation_test(
        X, y, pairs // 3, pairs, estimator="mean_difference", n_permutations=4, seed=3
    )
    labels = shuffled_labels(y, swappable_pairs(y, pairs, pairs // 3), 4, 3)
    from probes.evaluation.auroc import auroc
    from probes.probing.mean_difference import MeanDifferenceProbe
    from probes.probing.rows import grouped_folds

    folds = grouped_folds(y, (pairs // 3).astype(np.int64), 5, 3)
    for column in range(1, 5):
        shuffled = labels[:, column]
        slow = max(
            np.mean(
                [
                    auroc(
                        shuffled[folds == fold],
                        MeanDifferenceProbe()
                        .fit(rows[folds != fold], shuffled[folds != fold])
                        .decision_function(rows[folds == fold]),
                    )
                    for fold in range(5)
                ]
            )
            for rows in X.values()
        )
        assert result.null[column - 1] == pytest.approx(slow)


@pytest.mark.parametrize("estimator", sorted(CLOSED))
def test_closed_forms_are_the_estimators_themselves(estimator):
    """Columns of shuffled labels at once, against the estimator fitted on one column after another."""
    X, y, pairs = noise(4, n_pairs=25, n_sites=1, width=9)
    rows = X["site.0"] * np.linspace(0.2, 4.0, 9) + np.outer(y, np.linspace(0, 2, 9))
    labels = shuffled_labels(y, swappable_pairs(y, pairs, pairs), 6, 0)
    train, test = np.arange(len(y)) < 40, np.arange(len(y)) >= 40
    quick = CLOSED[estimator](rows[train], labels[train], rows[test])
    for column in range(7):
        probe = ESTIMATORS[estimator].make().fit(rows[train], labels[train, column])
        slow = probe.decision_function(rows[test])
        slope, constant = np.polyfit(quick[:, column], slow, 1)
        assert slope > 0
        np.testing.assert_allclose(quick[:, column] * slope + constant, slow, atol=1e-8)


def test_what_stands_in_for_an_estimator_is_said():
    X, y, pairs = noise(0, n_pairs=12, n_sites=1, width=4)
    said = {
        name: permutation_test(
            X, y, pairs, pairs, estimator=name, n_permutations=3, n_folds=3
        ).statistic
        for name in ESTIMATORS
    }
    assert said["logistic"].endswith("ridge (for logistic)")
    assert said["paired_pca"].endswith("ridge (for paired pca)")
    assert said["whitened"].endswith("AUROC of whitened")
    with pytest.raises(InputError, match="Did you mean 'ridge'"):
        permutation_test(X, y, pairs, pairs, estimator="rigde")


@pytest.mark.parametrize("estimator", ["mean_difference", "logistic"])
def test_p_is_uniform_on_noise_though_the_best_of_eight_sites_is_taken(estimator):
    p = [
        permutation_test(
            *noise(seed)[:2],
            noise(seed)[2] // 3,
            noise(seed)[2],
            estimator=estimator,
            n_permutations=39,
            seed=seed,
        ).p
        for seed in range(60)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert 0.35 < np.mean(p) < 0.65


def test_a_fluke_of_the_best_layer_is_sunk():
    """Among many sites of pure noise one looks good by itself; p knows how many were tried."""
    X, y, pairs = noise(1, n_pairs=20, n_sites=40)
    best = sweep(X, y, pairs, estimator="mean_difference").by_site["auroc"].max()
    result = permutation_test(X, y, pairs, pairs, estimator="mean_difference")
    assert best > 0.65
    assert result.p > 0.05
    alone = {name: rows for name, rows in X.items() if result.observed_by_site[name] == best}
    assert len(alone) == 1
    assert permutation_test(alone, y, pairs, pairs, estimator="mean_difference").p < 0.05


def test_a_signal_has_the_smallest_p():
    X, y, pairs = noise(2)
    X["site.3"] = X["site.3"] + 2.0 * y[:, None]
    for estimator in ("mean_difference", "logistic"):
        result = permutation_test(X, y, pairs, pairs, estimator=estimator, n_permutations=99)
        assert result.p == 0.01 and result.n_pairs == 30
        assert "best-site" in str(result)


def test_only_pairs_with_both_labels_are_shuffled():
    y = np.array([True, False, True, True, False, False, True])
    pairs = np.array([0, 0, 1, 1, 2, 2, 3])
    partners = swappable_pairs(y, pairs, np.zeros(7, dtype=np.int64))
    assert partners.tolist() == [[0, 1]]
    labels = shuffled_labels(y, partners, 100, 0)
    assert (labels[:, 0] == y).all() and (labels[2:] == y[2:, None]).all()
    assert (labels[0] != labels[1]).all() and 0.3 < labels[0, 1:].mean() < 0.7


def test_two_hundred_shuffles_of_five_sites_take_under_two_processor_seconds():
    X, y, pairs = noise(0, n_pairs=200, n_sites=5, width=128)
    start = time.thread_time()
    with threadpool_limits(1):
        permutation_test(X, y, pairs // 10, pairs, estimator="mean_difference", n_permutations=200)
    assert time.thread_time() - start < 2


def test_pairs_that_cannot_be_shuffled_are_refused():
    X, y, pairs = noise(0)
    with pytest.raises(InputError, match="none of 60 pairs"):
        permutation_test(X, y, np.arange(60), np.arange(60), estimator="logistic")
    with pytest.raises(InputError, match="lies in 2 groups"):
        permutation_test(X, y, np.arange(60), pairs, estimator="logistic")
