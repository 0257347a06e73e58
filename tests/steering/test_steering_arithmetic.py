"""Adds and clamps against Hugging Face's hidden states and SAELens' encode - change - decode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from steering_requests import GREEDY, LAYER, direction
from tiny_models import MODEL_ARCHITECTURES, SAE_ARCHITECTURES

from esr.errors import SteeringError, UserError
from esr.steering.engine import Request
from esr.steering.hf import HFEngine
from esr.steering.interventions import PROMPT_ONLY, Add, Clamp, Direction, Schedule
from esr.steering.plan import LayerPlan

TEXT = (1, 9, 20, 31, 42, 53, 64, 75)


def unsteered(subject: Any, layer: int = LAYER) -> torch.Tensor:
    with torch.no_grad():
        out = subject.model(input_ids=torch.tensor([TEXT]), output_hidden_states=True)
    return out.hidden_states[layer + 1][0]


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES)
def test_add_is_hidden_state_plus_boost_times_direction(tiny_subject: Any, arch: str) -> None:
    subject = tiny_subject(arch)
    d = direction(3)
    steered = HFEngine(subject).residual(TEXT, LAYER, [Add(d, 2.5, LAYER)])
    expected = unsteered(subject) + 2.5 * torch.from_numpy(d.vector.copy())
    torch.testing.assert_close(steered, expected, atol=1e-4, rtol=0)  # other kernels: here 8 tokens, there 16


@pytest.mark.parametrize("sae", SAE_ARCHITECTURES)
@pytest.mark.parametrize("value", [0.0, 4.0])
def test_clamp_is_saelens_decode_difference(tiny_subject: Any, sae: str, value: float) -> None:
    subject = tiny_subject("llama", sae)
    library = subject.reader.sae
    h = unsteered(subject)
    features = library.encode(h)
    active = [*features.sum(0).argsort(descending=True)[:3].tolist(), 7]
    changed = features.clone()
    changed[:, active] = value
    expected = h + library.decode(changed) - library.decode(features)
    assert (expected - h).abs().max() > 0.1, "the oracle must differ, or the test shows nothing"
    clamps = [Clamp(latent, value, LAYER) for latent in active]
    torch.testing.assert_close(HFEngine(subject).residual(TEXT, LAYER, clamps), expected, atol=1e-4, rtol=0)


def test_clamps_read_incoming_or_steered(tiny_subject: Any) -> None:
    subject = tiny_subject()
    library, h, latent = subject.reader.sae, unsteered(subject), 7
    d = Direction("push", 3 * library.W_dec[latent].detach().numpy())
    pushed = h + torch.from_numpy(d.vector.copy())
    row = library.W_dec[latent]
    for reads, read in (("incoming", h), ("steered", pushed)):
        request = Request("x", TEXT, (Add(d, 1.0, LAYER), Clamp(latent, 2.0, LAYER)), clamp_reads=reads)
        plan = LayerPlan([request], LAYER, subject.reader, torch.device("cpu"))
        positions = torch.arange(len(TEXT)).unsqueeze(0) - len(TEXT)
        steered = plan.apply(h.unsqueeze(0), positions, torch.ones(1, len(TEXT), dtype=torch.bool))[0]
        expected = pushed + (2.0 - library.encode(read)[:, latent, None]) * row
        torch.testing.assert_close(steered, expected, atol=1e-4, rtol=0)


def test_only_scheduled_positions_change(tiny_subject: Any) -> None:
    subject = tiny_subject()
    schedule = Schedule(-2, 3)
    steered = HFEngine(subject).residual(TEXT, LAYER, [Add(direction(0), 5.0, LAYER, schedule)], prompt_length=4)
    changed = (steered - unsteered(subject)).abs().amax(-1) > 1e-3
    assert changed.tolist() == [False, False, True, True, True, True, True, False]


def test_several_adds_and_layers_sum(tiny_subject: Any) -> None:
    subject = tiny_subject()
    adds = [Add(direction(1), 1.0, LAYER), Add(direction(2), -2.0, LAYER)]
    expected = unsteered(subject) + torch.from_numpy(direction(1).vector - 2 * direction(2).vector)
    torch.testing.assert_close(
        HFEngine(subject).residual(TEXT, LAYER, adds), expected, atol=1e-4, rtol=0
    )  # other kernels: here 8 tokens, there 16


def test_a_latent_may_be_clamped_in_two_stretches(tiny_subject: Any) -> None:
    subject = tiny_subject()
    library, h = subject.reader.sae, unsteered(subject)
    clamps = [Clamp(7, 1.0, LAYER, PROMPT_ONLY), Clamp(7, 5.0, LAYER, Schedule(start=0))]
    steered = HFEngine(subject).residual(TEXT, LAYER, clamps, prompt_length=3)
    wanted = torch.tensor([1.0] * 3 + [5.0] * 5)
    expected = h + (wanted - library.encode(h)[:, 7])[:, None] * library.W_dec[7]
    torch.testing.assert_close(steered, expected, atol=1e-4, rtol=0)


def test_read_is_saelens_encode_of_the_steered_stream(tiny_subject: Any) -> None:
    subject = tiny_subject("llama", "jumprelu")
    add = Add(direction(4), 2.0, LAYER)
    read = HFEngine(subject).read(TEXT, [3, 50, 95], [add])
    h = unsteered(subject) + 2.0 * torch.from_numpy(direction(4).vector.copy())
    torch.testing.assert_close(torch.from_numpy(read), subject.reader.sae.encode(h)[:, [3, 50, 95]], atol=1e-4, rtol=0)


def test_max_activations_cover_their_span_only(tiny_subject: Any) -> None:
    subject = tiny_subject()
    top = next(HFEngine(subject).max_activations([(TEXT, 3, 6)]))
    expected = subject.reader.sae.encode(unsteered(subject)[3:6]).amax(0).clamp(min=0)
    torch.testing.assert_close(torch.from_numpy(top), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("lost", ["apply", "step"])  # over the prompt; while decoding
def test_steering_that_did_not_happen_is_an_error(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(LayerPlan, lost, lambda self, h, *_: h)
    request = Request("lost", TEXT, (Add(direction(0), 1.0, LAYER),), GREEDY)
    with pytest.raises(SteeringError, match=r"request lost: at layer 1, (8|11) positions changed, 19 scheduled"):
        list(HFEngine(tiny_subject()).generate([request]))


def test_infinity_names_request_layer_and_boost(tiny_subject: Any) -> None:
    huge = Direction("huge", 1e30 * direction(0).vector)
    requests = [Request("fine", TEXT, (), GREEDY), Request("broken", TEXT, (Add(huge, 1e15, 2),), GREEDY)]
    with pytest.raises(SteeringError, match=r"request broken at layer 2, boost 1e\+15 on huge"):
        list(HFEngine(tiny_subject()).generate(requests))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Add(direction(0), 1.0, 4), "a layer lies in 0..3. Got 4"),
        (Add(direction(0, d_model=32), 1.0, 1), "a direction has the model's width 64. Got 32 for random:0"),
        (Clamp(96, 0.0, 1), "a latent of this SAE lies in 0..95. Got 96"),
    ],
)
def test_impossible_interventions_are_refused(tiny_subject: Any, bad: Any, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("..", r"\.\.")):
        HFEngine(tiny_subject()).generate([Request("x", TEXT, (bad,), GREEDY)])


def test_overlapping_clamps_of_one_latent_and_too_long_a_text_are_refused(tiny_subject: Any) -> None:
    subject = tiny_subject()
    engine = HFEngine(subject)
    clamps = (Clamp(7, 0.0, LAYER, Schedule(end=3)), Clamp(7, 1.0, LAYER, Schedule(start=2)))
    with pytest.raises(UserError, match=r"a latent is clamped once per position\. Got latent 7 at layer 1 twice"):
        engine.residual(TEXT, LAYER, clamps)
    with pytest.raises(UserError, match=f"context of {subject.context} tokens. Got {subject.context + 1}"):
        engine.read([5] * (subject.context + 1), [0])
