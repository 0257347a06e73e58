"""Vectors come from a safetensors file as stored, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from esr.errors import UserError
from esr.subjects.vectors import read_vectors


def saved(tmp_path, tensors, metadata=None):
    save_file(tensors, tmp_path / "vectors.safetensors", metadata=metadata)
    return tmp_path / "vectors.safetensors"


def test_named_vectors(tmp_path):
    a, b = torch.arange(4.0), torch.ones(4, dtype=torch.bfloat16) * 3
    vectors = read_vectors(saved(tmp_path, {"b": b, "a": a}), d_model=4)
    assert list(vectors) == ["a", "b"]
    assert all(v.dtype == np.float32 and v.shape == (4,) for v in vectors.values())
    np.testing.assert_array_equal(vectors["a"], [0, 1, 2, 3])
    np.testing.assert_array_equal(vectors["b"], [3, 3, 3, 3])


def test_rows_of_one_tensor(tmp_path):
    rows = torch.arange(6.0).reshape(2, 3)
    named = read_vectors(saved(tmp_path, {"topics": rows}, {"names": '["paris", "rome"]'}))
    assert list(named) == ["paris", "rome"]
    np.testing.assert_array_equal(named["rome"], [3, 4, 5])
    assert list(read_vectors(saved(tmp_path, {"topics": rows}))) == ["topics:0", "topics:1"]
    mixed = read_vectors(saved(tmp_path, {"topics": rows, "x": torch.ones(3)}, {"names": '["paris", "rome"]'}))
    assert list(mixed) == ["topics:0", "topics:1", "x"]


@pytest.mark.parametrize(
    ("tensors", "metadata", "text"),
    [
        ({"a": torch.ones(5)}, None, "a vector is as wide as the residual stream, 4. Got width 5 for a in "),
        ({"a": torch.tensor([0, 1, float("nan"), 2])}, None, "finite numbers only. Got NaN or infinity in a of "),
        ({"a": torch.tensor([0, 1, float("inf"), 2])}, None, "finite numbers only. Got NaN or infinity in a of "),
        ({}, None, "a file of vectors holds at least one. Got none in "),
        ({"a": torch.ones(0)}, None, "in shape [d_model] or [n, d_model]. Got a, torch.float32, shape (0,)"),
        ({"a": torch.ones(1, 1, 4)}, None, "Got a, torch.float32, shape (1, 1, 4)"),
        ({"a": torch.ones(4, dtype=torch.int64)}, None, "Got a, torch.int64, shape (4,)"),
        ({"a": torch.ones(2, 4)}, {"names": '["x"]'}, "is a JSON list of 2 different names"),
        ({"a": torch.ones(2, 4)}, {"names": '["x", "x"]'}, "is a JSON list of 2 different names"),
        ({"a": torch.ones(2, 4)}, {"names": "x, y"}, "is a JSON list of 2 different names. Got x, y."),
    ],
)
def test_refusals(tensors, metadata, text, tmp_path):
    with pytest.raises(UserError) as caught:
        read_vectors(saved(tmp_path, tensors, metadata), d_model=4)
    assert text in str(caught.value)


def test_no_safetensors(tmp_path):
    with pytest.raises(UserError, match=r"a file of vectors exists. Got .*none"):
        read_vectors(tmp_path / "none")
    (tmp_path / "v.safetensors").write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(UserError, match=r"is in the safetensors format.*Write it with safetensors.torch.save_file"):
        read_vectors(tmp_path / "v.safetensors")
