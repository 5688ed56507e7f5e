"""A digest tells two things apart if and only if they differ in content."""

import hashlib
from pathlib import Path

import pytest
import torch

from probes.foundation.digest import digest_bytes, digest_file, digest_json, digest_tensors, short

A = torch.arange(6.0).reshape(2, 3)


def test_json_digests_ignore_the_order_of_keys_only() -> None:
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert digest_json([1, 2]) != digest_json([2, 1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_json(float("nan"))


def test_file_and_bytes_digests_are_sha256(tmp_path: Path) -> None:
    data = b"probes" * 100_000
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert digest_file(tmp_path / "f") == digest_bytes(data) == expected
    assert expected.startswith(short(expected))


@pytest.mark.parametrize(
    "other",
    [
        {"w": A.flip(0)},
        {"w": A.reshape(3, 2)},
        {"w": A.double()},
        {"v": A},
        {"w": A, "v": A},
        {"w": A + 1e-6},
    ],
    ids=["rows permuted", "reshaped", "other dtype", "other name", "one more", "other value"],
)
def test_other_tensors_have_another_digest(other: dict[str, torch.Tensor]) -> None:
    assert digest_tensors(other) != digest_tensors({"w": A})


def test_swapped_tensors_have_another_digest() -> None:
    b = A + 1
    assert digest_tensors({"w": A, "v": b}) != digest_tensors({"w": b, "v": A})


def test_the_same_values_in_another_layout_have_the_same_digest() -> None:
    views = [A.T.contiguous().T, torch.cat([A, A])[2:], A.clone().requires_grad_()]
    assert {digest_tensors({"w": view}) for view in views} == {digest_tensors({"w": A})}
    assert digest_tensors({"w": A, "v": A}) == digest_tensors({"v": A, "w": A})


def test_every_dtype_of_a_checkpoint_can_be_digested() -> None:
    dtypes = (torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8)
    assert len({digest_tensors({"w": A.to(dtype)}) for dtype in dtypes}) == len(dtypes)
    assert digest_tensors({"scalar": torch.tensor(1.0), "none": torch.empty(0, 3)})
