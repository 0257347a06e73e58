"""Reading and changing latents agrees with SAELens' own encode and decode, for every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import D_MODEL, SAE_ARCHITECTURES, random_sae

from esr.errors import UserError
from esr.subjects.latents import LatentReader, check_latent
from esr.subjects.sae import load_reader
from esr.subjects.spec import SaeSpec, SubjectSpec

NORMS = ("none", "layer_norm", "constant_norm_rescale")
LATENTS = torch.tensor([3, 95, 0, 41, 40, 77])


def reader_of(folder, **sae) -> LatentReader:
    return load_reader(SubjectSpec(model="m", steer_layer=0, sae=SaeSpec(path=str(folder), **sae)))


def residuals(*shape: int, dtype=torch.float32) -> torch.Tensor:
    """Residual vectors of uneven norm and mean."""
    generator = torch.Generator().manual_seed(5)
    h = torch.randn(*shape, D_MODEL, generator=generator)
    return ((1 + torch.rand(*shape, 1, generator=generator)) * h + 0.3).to(dtype)


@pytest.fixture(params=SAE_ARCHITECTURES)
def arch(request):
    return request.param


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("apply_b_dec", [True, False])
def test_activations_are_encodes(arch, norm, apply_b_dec, tiny_sae_folder):
    folder = tiny_sae_folder(arch, normalize_activations=norm, apply_b_dec_to_input=apply_b_dec)
    reader, h = reader_of(folder), residuals(3, 7)
    everything = reader.sae.encode(h)
    assert 0.02 < (everything > 0).float().mean() < 0.6, "the fixture's latents are neither all on nor all off"
    assert (everything[..., LATENTS] > 0).any()
    torch.testing.assert_close(reader.activations(h, LATENTS), everything[..., LATENTS], rtol=0, atol=1e-5)
    torch.testing.assert_close(reader.encode(h), everything, rtol=0, atol=0)
    assert reader.architecture == ("jumprelu" if arch == "batchtopk" else arch)
    assert (reader.d_in, reader.d_sae) == (D_MODEL, 96)


@pytest.mark.parametrize("norm", NORMS)
def test_decode_change_is_the_difference_of_decodes(arch, norm, tiny_sae_folder):
    reader, h = reader_of(tiny_sae_folder(arch, normalize_activations=norm)), residuals(2, 5)
    change = torch.randn(2, 5, len(LATENTS), generator=torch.Generator().manual_seed(1))
    features = reader.sae.encode(h)
    changed = features.clone()
    changed[..., LATENTS] += change
    after = reader.sae.decode(changed)
    reader.sae.encode(h)  # SAELens' norm-out deletes what norm-in kept
    before = reader.sae.decode(features)
    moved = reader.decode_change(h, change, LATENTS)
    torch.testing.assert_close(moved, after - before, rtol=0, atol=1e-4)
    assert moved.abs().max() > 0.3


def test_clamping_lands_on_the_value(tiny_sae_folder):
    """Where a latent's encoder column is its decoder row over its squared norm, clamping fixes its
    activation."""
    sae = random_sae("standard", D_MODEL, 8, 3, None)
    sae.W_dec.data = torch.linalg.qr(sae.W_dec.data.T).Q.T.contiguous() * 2
    sae.W_enc.data = (sae.W_dec.data / 4).T.contiguous()
    reader, h, latents = LatentReader(sae), residuals(4), torch.tensor([2, 5])
    active = h @ sae.W_enc.data + (sae.b_enc - sae.b_dec @ sae.W_enc).data
    h = h + (1 - active).clamp(min=0) @ sae.W_dec.data  # every latent at 1 or more
    moved = h + reader.decode_change(h, 3.5 - reader.activations(h, latents), latents)
    torch.testing.assert_close(reader.activations(moved, latents), torch.full((4, 2), 3.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rescale", [True, False])
def test_topk_with_decoder_norms_outside(rescale, tiny_sae_folder):
    reader = reader_of(tiny_sae_folder("topk", rescale_acts_by_decoder_norm=rescale))
    h, change = residuals(6), torch.ones(6, len(LATENTS))
    features = reader.sae.encode(h)
    changed = features.clone()
    changed[..., LATENTS] += change
    expected = reader.sae.decode(changed) - reader.sae.decode(features)
    torch.testing.assert_close(reader.decode_change(h, change, LATENTS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk"])
def test_batchtopk_training_form_is_read_in_its_inference_form(kind, rescale, tmp_path):
    """A position's activations must not depend on its neighbours, which the training form lets them."""
    cfg = {"k": 8, "rescale_acts_by_decoder_norm": rescale}
    if kind.startswith("matryoshka"):
        cfg["matryoshka_widths"] = [24, 96]
    training = random_sae(kind, D_MODEL, 96, 4, "blocks.1.hook_resid_post", training=True, **cfg)
    training.topk_threshold.fill_(0.9 * (D_MODEL**0.5 if rescale else 1))
    training.save_model(tmp_path / "training")
    training.save_inference_model(tmp_path / "inference")
    read, saved, h = reader_of(tmp_path / "training"), reader_of(tmp_path / "inference"), residuals(9)
    torch.testing.assert_close(read.encode(h), saved.encode(h), rtol=0, atol=1e-5)
    assert (read.encode(h) > 0).any()
    torch.testing.assert_close(read.activations(h[:1], LATENTS), read.activations(h, LATENTS)[:1])


def test_dtypes(arch, tiny_sae_folder):
    """Latents come in the SAE's dtype, changes in the residual stream's."""
    wide, h = reader_of(tiny_sae_folder(arch)), residuals(4, dtype=torch.bfloat16)
    values = wide.activations(h, LATENTS)
    assert values.dtype == torch.float32
    assert wide.decode_change(h, values, LATENTS).dtype == torch.bfloat16
    narrow = reader_of(tiny_sae_folder(arch), dtype="bfloat16")
    expected = narrow.sae.encode(h)[..., LATENTS]
    assert narrow.activations(h, LATENTS).dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.activations(h, LATENTS), expected, rtol=0.02, atol=0.02)


def test_direction_is_the_decoder_row_as_stored(arch, tiny_sae_folder):
    reader = reader_of(tiny_sae_folder(arch))
    row = reader.direction(41)
    assert row.dtype == np.float32
    np.testing.assert_array_equal(row, reader.sae.W_dec[41].detach().numpy())
    row[:] = 0
    assert reader.direction(41).any(), "a caller cannot change the SAE through its direction"


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_reading_leaves_nothing_behind(norm, tiny_sae_folder):
    reader = reader_of(tiny_sae_folder("standard", normalize_activations=norm))
    before = set(vars(reader.sae))
    h, change = residuals(3), torch.ones(3, len(LATENTS))
    for call in (
        lambda: reader.encode(h),
        lambda: reader.activations(h, LATENTS),
        lambda: reader.decode_change(h, change, LATENTS),
    ):
        call()
        assert set(vars(reader.sae)) == before


@pytest.mark.parametrize("latent", [-1, 96])
def test_latent_out_of_range(latent, tiny_sae_folder):
    with pytest.raises(UserError, match=rf"a latent of this SAE lies in 0\.\.95\. Got {latent}\."):
        reader_of(tiny_sae_folder("standard")).direction(latent)
    assert check_latent(95, 96) == 95


def test_unsupported_architecture(tmp_path):
    cfg = {"apply_b_dec_to_input": False}
    random_sae("transcoder", D_MODEL, 96, 1, "blocks.1.hook_resid_post", d_out=D_MODEL, **cfg).save_model(tmp_path)
    with pytest.raises(UserError, match=r"architecture is one of standard, jumprelu, topk, gated \(or BatchTopK\)"):
        reader_of(tmp_path)


def test_attention_heads(tiny_sae_folder):
    folder = tiny_sae_folder("standard", hook_name="blocks.1.attn.hook_z", reshape_activations="hook_z")
    with pytest.raises(
        UserError, match=r"reads the residual stream, not attention heads. Got reshape_activations=hook_z"
    ):
        reader_of(folder)


def test_scaling_that_saelens_would_leave_out(tiny_sae_folder):
    folder = tiny_sae_folder("standard", normalize_activations="expected_average_only_in")
    with pytest.raises(UserError, match=r"folded into its weights.*expected_average_only_in.*Fold it with SAELens"):
        reader_of(folder)


def test_nan_in_the_weights():
    sae = random_sae("standard", D_MODEL, 96, 1, None)
    sae.W_enc.data[3, 4] = float("nan")
    with pytest.raises(UserError, match=r"an SAE's weights are finite. Got NaN or infinity in W_enc"):
        LatentReader(sae)
