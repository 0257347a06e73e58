"""Decoder layers are where Hugging Face's hidden states say they are, in every supported architecture."""

from __future__ import annotations

import pytest
import torch
from tiny_models import MODEL_ARCHITECTURES, N_LAYERS
from torch import nn

from esr.errors import UserError
from esr.subjects.layers import check_layer, decoder_layers
from esr.subjects.loading import load_subject
from esr.subjects.spec import SubjectSpec


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES)
def test_layer_output_is_hugging_faces_hidden_state(arch, tiny_model_folder):
    subject = load_subject(SubjectSpec(model=str(tiny_model_folder(arch)), steer_layer=0, device="cpu"))
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda module, args, output, i=i: seen.__setitem__(i, output))
        for i, layer in enumerate(subject.layers)
    ]
    ids = torch.tensor([[1, 20, 30, 40, 50, 60]])
    decoder = subject.model.get_decoder()
    out = subject.model(ids, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    assert len(seen) == subject.n_layers == N_LAYERS == len(out.hidden_states) - 1
    for i in range(N_LAYERS - 1):
        assert isinstance(seen[i], torch.Tensor)
        torch.testing.assert_close(seen[i], out.hidden_states[i + 1], rtol=0, atol=0)
    norm = decoder.ln_f if arch == "gpt2" else decoder.norm
    torch.testing.assert_close(norm(seen[N_LAYERS - 1]), out.hidden_states[N_LAYERS], rtol=0, atol=1e-6)


class _Config:
    num_hidden_layers = 2

    def get_text_config(self, decoder: bool) -> _Config:
        return self


class _Odd(nn.Module):
    def __init__(self, lists: int) -> None:
        super().__init__()
        self.config = _Config()
        for i in range(lists):
            setattr(self, f"list{i}", nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]))

    def get_decoder(self) -> nn.Module:
        return self


@pytest.mark.parametrize("lists", [0, 2])
def test_no_or_several_lists_of_layers(lists):
    with pytest.raises(UserError, match=rf"holds its 2 layers in one module list. Got {lists} such lists in _Odd"):
        decoder_layers(_Odd(lists))


def test_lists_inside_layers_are_no_layers():
    model = _Odd(1)
    model.list0[0].experts = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    assert decoder_layers(model) == list(model.list0)


def test_layer_out_of_range():
    assert check_layer("steer_layer", 3, 4) == 3
    with pytest.raises(UserError, match=r"steer_layer lies in 0\.\.3 for this model\. Got 4\."):
        check_layer("steer_layer", 4, 4)
