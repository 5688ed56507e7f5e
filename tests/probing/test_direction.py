"""A direction keeps its provenance through a save, and refuses other models' activations."""

import numpy as np
import pytest

from probes.foundation.errors import InputError, IntegrityError
from probes.models.identity import Identity
from probes.probing.direction import Direction

A, C = (Identity(weights_digest=letter * 64) for letter in "ac")


def direction(**changes):
    return Direction(
        **{
            "estimator": "mean_difference",
            "site": "resid_post.2",
            "coef": np.array([1.0, -2.0, 0.5]),
            "intercept": 0.25,
            "identity": A,
            "fitted_on": "b" * 64,
            "seed": 3,
        }
        | changes
    )


def test_a_saved_direction_comes_back_equal(tmp_path):
    saved = direction()
    loaded = Direction.load(saved.save(tmp_path / "direction"))
    assert loaded == saved and loaded.digest == saved.digest and hash(loaded) == hash(saved)
    np.testing.assert_array_equal(loaded.coef, saved.coef)
    assert loaded != direction(coef=np.array([1.0, -2.0, 0.5000001]))
    assert not list(tmp_path.rglob("*.pkl")) and not list(tmp_path.rglob("*.bin"))


def test_it_scores_by_hand_and_cannot_be_changed():
    known = direction()
    X = np.array([[1.0, 1.0, 2.0]], dtype=np.float32)
    assert known.score(X, site="resid_post.2", identity=A) == [0.25]
    with pytest.raises(ValueError, match="read-only"):
        known.coef[0] = 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": C}, f"weights_digest: there {'a' * 12}, here {'c' * 12}"),
        ({"identity": None}, "not recorded"),
        ({"normalisation": "unit length"}, "normalised by 'none', rows are by 'unit length'"),
        ({"site": "resid_post.1"}, "fitted at resid_post.2, rows are of resid_post.1"),
    ],
)
def test_activations_of_another_model_or_site_are_refused(change, message):
    X = np.ones((2, 3))
    told = {"site": "resid_post.2", "identity": A} | change
    with pytest.raises(InputError, match=message):
        direction().score(X, **told)
    assert direction().score(X, **told, allow_other=True).shape == (2,)


def test_a_direction_of_an_unrecorded_model_needs_leave():
    with pytest.raises(InputError, match="not recorded"):
        direction(identity=None).score(np.ones((1, 3)), site="resid_post.2", identity=None)


def test_changed_bytes_are_found(tmp_path):
    path = direction().save(tmp_path / "direction")
    data = bytearray((path / "direction.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "direction.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError, match="was changed"):
        Direction.load(path)


def test_a_direction_is_finite_and_fits_its_rows():
    with pytest.raises(InputError, match="finite vector"):
        direction(coef=np.array([np.nan]))
    with pytest.raises(InputError, match="3 features, rows have 2"):
        direction().score(np.ones((1, 2)), site="resid_post.2", identity=A)


def test_normalisation_is_saved(tmp_path):
    plain, scaled = direction(), direction(normalisation="unit length")
    assert plain.digest != scaled.digest
    assert Direction.load(scaled.save(tmp_path / "d")).normalisation == "unit length"
