"""LEACE as published: against its closed form, and against every other erasure of the same concept."""

import numpy as np
import pytest
import scipy.linalg

from probes.probing.erasure import LeaceEraser


@pytest.mark.parametrize("gap", [1.0, 0.01])
def test_the_change_is_the_least_that_the_closed_form_says(gap: float) -> None:
    """Belrose et al. (2023), theorem 4.3: P = W^-1 (W Sxz)(W Sxz)^+ W with W = Sxx^-1/2.

    With the library's shrinkage the change is larger, and a gap as small as the second is left.
    """
    rng = np.random.default_rng(0)
    y = np.arange(160) % 2
    X = rng.normal(size=(160, 12)) @ rng.normal(size=(12, 12)) + gap * np.outer(y, np.ones(12))
    centred = X - X.mean(0)
    white = np.real(scipy.linalg.inv(scipy.linalg.sqrtm(centred.T @ centred / len(X))))
    cross = white @ (centred.T @ (y - y.mean()))[:, None]
    P = np.linalg.inv(white) @ (cross @ np.linalg.pinv(cross)) @ white
    erased = LeaceEraser().fit(X, y).transform(X)
    np.testing.assert_allclose(erased, X - centred @ P.T, atol=1e-8)
    assert np.abs(erased[y == 1].mean(0) - erased[y == 0].mean(0)).max() < 1e-9
