"""Statistics of a whole dictionary, in tiles, against SAELens' own dense encode."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SAE_ARCHITECTURES

from esr.errors import UserError
from esr.subjects import tiles
from esr.subjects.latents import LatentReader
from esr.subjects.sae import load_reader
from esr.subjects.spec import SaeSpec, SubjectSpec
from esr.subjects.tiles import activities

D_IN, D_SAE = 64, 96


@pytest.fixture
def reader_of(tiny_sae_folder: Any) -> Callable[..., LatentReader]:
    def made(arch: str, d_in: int = D_IN, d_sae: int = D_SAE, **cfg: Any) -> LatentReader:
        folder = tiny_sae_folder(arch, d_in=d_in, d_sae=d_sae, **cfg)
        return load_reader(SubjectSpec(model="m", steer_layer=0, sae=SaeSpec(path=str(folder))))

    return made


def residuals(*lengths: int, d_in: int = D_IN) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(n, d_in, generator=generator) * 1.5 + 0.2 for n in lengths]


@pytest.mark.parametrize("arch", SAE_ARCHITECTURES)
@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
def test_sums_are_those_of_saelens_encode(
    arch: str, norm: str, reader_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TOKENS", 20)  # texts are cut, and share chunks
    monkeypatch.setattr(tiles, "LATENTS", 7)  # 13 tiles of 7 and one of 5
    reader, texts = reader_of(arch, normalize_activations=norm), residuals(3, 50, 1, 19, 20)
    for activity, h in zip(activities(reader, texts), texts, strict=True):
        dense = reader.encode(h).double().numpy()  # SAELens' own: test_subjects_latents
        assert 0.02 < (dense > 0).mean() < 0.6
        assert activity.tokens == len(h)
        np.testing.assert_allclose(activity.maximum, dense.max(0), atol=1e-5)
        np.testing.assert_allclose(activity.total, dense.sum(0), atol=1e-4)
        near = ((dense > 0) & (dense < 1e-5)).sum(0)
        assert (np.abs(activity.active - (dense > 0).sum(0)) <= near).all()


@pytest.mark.parametrize("scaled", [False, True])
def test_topk_chooses_among_all_tiles(scaled: bool, reader_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "LATENTS", 10)
    reader, (h,) = reader_of("topk", rescale_acts_by_decoder_norm=scaled, k=16), residuals(40)  # k above a tile's width
    (activity,) = activities(reader, [h])
    dense = reader.encode(h)
    assert int((dense > 0).sum()) == 40 * 16
    np.testing.assert_array_equal(activity.active, (dense > 0).sum(0).numpy())
    np.testing.assert_allclose(activity.maximum, dense.amax(0).numpy(), atol=1e-5)


@pytest.mark.parametrize("arch", SAE_ARCHITECTURES)
def test_a_texts_sums_do_not_depend_on_the_other_texts(arch: str, reader_of: Any) -> None:
    """Bit for bit on the CPU in float32, at sizes at which BLAS cuts its work into blocks."""
    reader = reader_of(arch, 192, 1500)
    texts = residuals(1, 5, 40, 300, 17, 2500, 700, 64, 900, 15, d_in=192)
    alone = [activities(reader, [h])[0] for h in texts]
    rng = random.Random(2)
    for _ in range(4):
        order = rng.sample(range(len(texts)), rng.randint(2, len(texts)))
        for i, activity in zip(order, activities(reader, [texts[i] for i in order]), strict=True):
            for name in ("maximum", "total", "active"):
                np.testing.assert_array_equal(getattr(activity, name), getattr(alone[i], name), err_msg=f"text {i}")


def test_a_tile_is_all_that_is_held(reader_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TOKENS", 32)
    monkeypatch.setattr(tiles, "LATENTS", 10)
    held: list[tuple[int, ...]] = []
    columns = LatentReader.columns

    def counting(self: LatentReader, x: torch.Tensor, latents: Any) -> torch.Tensor:
        out = columns(self, x, latents)
        held.append(tuple(out.shape))
        return out

    monkeypatch.setattr(LatentReader, "columns", counting)
    monkeypatch.setattr(LatentReader, "encode", lambda *_: pytest.fail("encoded the whole dictionary"))
    activities(reader_of("standard"), residuals(100, 30))
    assert max(rows for rows, _ in held) == 32
    assert max(width for _, width in held) == 10
    assert sum(rows * width for rows, width in held if rows > 16) >= 130 * D_SAE - 16 * D_SAE


def test_a_text_without_tokens_is_refused(reader_of: Any) -> None:
    with pytest.raises(UserError, match="read at one token at least"):
        activities(reader_of("standard"), residuals(3, 0))
