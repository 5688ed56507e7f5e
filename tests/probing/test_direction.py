"""A direction keeps its provenance through a save, and refuses other models' activations."""

import json

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from probes.foundation.digest import digest_file
from probes.foundation.errors import InputError, IntegrityError
from probes.models.identity import Identity
from probes.probing.frozen import Direction, load_probe

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


TENSORS = {"coef": np.ones(3), "intercept": np.ones(1)}
BROKEN = {
    "none": {},
    "other": {"weight": np.ones(3)},
    "one lacking": {"coef": np.ones(3)},
    "one too many": TENSORS | {"z": np.ones(1)},
    "a matrix": TENSORS | {"coef": np.ones((3, 1))},
    "two intercepts": TENSORS | {"intercept": np.ones(2)},
    "a number": TENSORS | {"intercept": np.array(1.0)},
    "float32": TENSORS | {"coef": np.ones(3, np.float32)},
    "bfloat16": {"coef": torch.ones(3, dtype=torch.bfloat16), "intercept": torch.ones(1)},
}


@pytest.mark.parametrize("name", BROKEN)
def test_weights_that_are_no_probes_are_one_line(tmp_path, name):
    """The manifest agrees with the files, as that of a hostile folder would."""
    folder = direction().save(tmp_path / "d")
    file = folder / "direction.safetensors"
    tensors = BROKEN[name]
    write = safetensors.torch if name == "bfloat16" else safetensors.numpy
    write.save_file(tensors, file)
    manifest = json.loads((folder / "artifact.json").read_text())
    manifest["files"][file.name] = [digest_file(file), file.stat().st_size]
    (folder / "artifact.json").write_text(json.dumps(manifest))
    with pytest.raises(
        IntegrityError, match=r"saw .*; allowed are coef, intercept in float64"
    ) as e:
        load_probe(folder)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_probe_without_its_weights_or_with_none_that_are_numbers_is_one_line(tmp_path, value):
    folder = direction().save(tmp_path / "d")
    file = folder / "direction.safetensors"
    manifest = json.loads((folder / "artifact.json").read_text())
    safetensors.numpy.save_file(TENSORS | {"coef": np.array([value, 1.0, 2.0])}, file)
    kept = {**manifest["files"], file.name: [digest_file(file), file.stat().st_size]}
    (folder / "artifact.json").write_text(json.dumps(manifest | {"files": kept}))
    with pytest.raises(InputError, match="coef of a direction is a finite vector"):
        load_probe(folder)
    file.unlink()
    del kept[file.name]
    (folder / "artifact.json").write_text(json.dumps(manifest | {"files": kept}))
    with pytest.raises(IntegrityError, match=r"direction\.safetensors"):
        load_probe(folder)
