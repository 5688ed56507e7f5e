"""The map between two bases: exact where there is one, and honest where there is none."""

import numpy as np

from probes.studies.every_probe.transfer import fit_map

ROWS = np.arange(200)


def test_a_linear_map_is_found_and_a_direction_goes_through_it():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)) * [1, 1, 1, 5, 5, 0.2]
    Y = X @ rng.normal(size=(6, 4)) + [3.0, -2.0, 0.5, 9.0]
    found = fit_map(X, Y, ROWS[:50], ROWS[50:])
    assert found.r2 > 0.999
    direction = rng.normal(size=4)
    scores, mapped = Y @ direction, np.asarray(found.model.predict(X)) @ direction
    assert np.corrcoef(scores, mapped)[0, 1] > 0.999


def test_what_a_map_explains_is_asked_of_rows_that_it_was_not_fitted_on():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(200, 6))
    Y = X @ rng.normal(size=(6, 4))
    Y[:50] *= -1  # as if what holds for the rows of the fit were false elsewhere
    assert fit_map(X, Y, ROWS[:50], ROWS[50:]).r2 < -0.5


def test_noise_has_no_map():
    rng = np.random.default_rng(1)
    found = fit_map(rng.normal(size=(200, 6)), rng.normal(size=(200, 4)), ROWS[:50], ROWS[50:])
    assert found.r2 < 0.1


def test_activations_that_do_not_vary_have_no_map():
    X = np.ones((200, 6))
    assert fit_map(X, np.ones((200, 4)), ROWS[:50], ROWS[50:]).r2 == 0.0
