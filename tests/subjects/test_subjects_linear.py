"""Linear layers by oneDNN: PyTorch's own numbers, gradients, and bits that do not depend on the neighbours."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esr.subjects.linear import linear, use_linear

SHAPES = [(128, 128), (128, 1090), (384, 128), (512, 1376), (1376, 512)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the weight lay in one piece, for each product that oneDNN was given."""
    onednn, whole = torch.ops.mkldnn._linear_pointwise, list[bool]()

    def counted(x: Tensor, weight: Tensor, *rest: Any) -> Any:
        whole.append(weight.is_contiguous() or weight.T.is_contiguous())
        return onednn(x, weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    return whole


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 40), (3, 5, 40), (1, 40)])
@torch.no_grad()
def test_it_is_torchs_linear(shape: tuple[int, ...], bias: bool, calls: list[bool]) -> None:
    x, weight, added = torch.randn(shape), torch.randn(30, 40), torch.randn(30) if bias else None
    expected = nn.functional.linear(x.double(), weight.double(), None if added is None else added.double())
    in_pieces = torch.cat([weight.T, weight.T], 1)[:, :30].T
    for laid_out in (weight, weight.T.contiguous().T, in_pieces):
        torch.testing.assert_close(linear(x, laid_out, added), expected.float(), atol=1e-5, rtol=1e-5)
    assert len(calls) == 3
    assert all(calls)


@pytest.mark.parametrize("kind", ["gradient", "bfloat16"])
def test_what_onednn_is_not_given(kind: str, calls: list[bool]) -> None:
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    x, weight = torch.randn(20, 40, dtype=dtype), torch.randn(30, 40, dtype=dtype)
    with torch.set_grad_enabled(kind == "gradient"):
        assert torch.equal(linear(x, weight), nn.functional.linear(x, weight))
    assert not calls


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_no_bit_of_a_row_depends_on_the_others(shape: tuple[int, int]) -> None:
    x, weight = torch.randn(330, shape[0]), torch.randn(shape[1], shape[0])
    whole = linear(x, weight)
    for first, last in ((0, 16), (3, 20), (100, 164), (0, 128), (1, 320)):
        assert torch.equal(linear(x[first:last].clone(), weight), whole[first:last])


def test_a_model_multiplies_this_way_and_still_learns(calls: list[bool]) -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 2, bias=False))
    before = deepcopy(model)
    use_linear(model)
    copied = deepcopy(model)
    x = torch.randn(20, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(x), before(x))
        assert len(calls) == 2
        copied[0].weight.zero_()
        copied[0].bias.zero_()
        assert not copied(x).any()
        torch.testing.assert_close(model(x), before(x))
    model(x).sum().backward()
    before(x).sum().backward()
    assert model[0].weight.grad is not None
    assert torch.equal(model[0].weight.grad, before[0].weight.grad)
