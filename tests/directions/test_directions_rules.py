"""The rules that choose directions, against hand-made cases and the plain definition of a logit effect."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import MODEL_ARCHITECTURES

from esr.directions.concreteness import RuleGrader, at_least, upper_half
from esr.directions.efficacy import efficacy
from esr.directions.promotion import restart_promotion, restart_token_ids
from esr.directions.relevance import paper_rule, released_rule

MAXIMA = np.array([[0.0, 3.0, 1.0, 0.0], [0.0, 0.0, 2.0, 0.5]], dtype=np.float32)


def test_paper_rule_drops_the_most_active_on_any_response() -> None:
    assert paper_rule(MAXIMA, drop=2).tolist() == [True, False, False, True]
    assert paper_rule(MAXIMA, drop=0).all()
    assert paper_rule(MAXIMA, drop=4).tolist() == [True, False, False, False]  # never active, never dropped


def test_released_rule_keeps_what_is_zero_everywhere() -> None:
    assert released_rule(MAXIMA).tolist() == [True, False, False, False]


def test_concreteness_tells_things_from_grammar() -> None:
    labels = ["fishing: trout, lure, rod", "words: the, of", "dead", "", "Kenji Doihara"]
    named, grammar, dead, empty, person = RuleGrader().grade(labels)
    assert named == person == 100
    assert grammar < 30
    assert dead == empty == 0


def test_concreteness_cuts() -> None:
    scores = {4: 50.0, 7: 80.0, 9: 80.0, 11: 10.0, 12: 65.0}
    assert upper_half(scores) == {7, 9, 12}  # half of five, the middle one too
    assert at_least(scores) == {7, 9, 12}
    assert upper_half({1: 5.0, 2: 5.0, 3: 5.0, 4: 5.0}) == {1, 2}  # ties go to the lower id


def test_efficacy_takes_the_boost_that_moves_most() -> None:
    found = efficacy({2.0: [80.0, 90.0], 6.0: [10.0, 30.0], 9.0: []}, unsteered=85.0, required_drop=50.0)
    assert (found.passed, found.largest_drop, found.at_boost) == (True, 65.0, 6.0)
    assert not efficacy({2.0: [80.0]}, 85.0, 20.0).passed
    nothing = efficacy({2.0: []}, 85.0, 20.0)
    assert not nothing.passed
    assert math.isnan(nothing.largest_drop)


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES)
def test_promotion_is_the_effect_on_the_logits(tiny_subject: Any, arch: str) -> None:
    """Oracle: the model's own final norm and unembedding, with the norm's scale held fixed."""
    subject = tiny_subject(arch)
    ids = restart_token_ids(subject)
    d = np.random.default_rng(0).normal(size=(3, subject.d_model)).astype(np.float32)
    decoder = subject.model.get_decoder()
    norm = getattr(decoder, "norm", None) or decoder.ln_f
    with torch.no_grad():
        gain = norm(torch.eye(subject.d_model) * 1e3).diagonal()  # the gain, up to one common factor
        if arch == "gpt2":  # LayerNorm also centres and shifts
            gain = norm.weight
        effects = (torch.from_numpy(d) * gain) @ subject.model.get_output_embeddings().weight.T
    expected = (effects[:, ids].mean(1) - effects.mean(1)) / effects.std(1)
    np.testing.assert_allclose(restart_promotion(subject, d, ids), expected.numpy(), atol=1e-4)


def test_a_restart_words_own_direction_stands_out(tiny_subject: Any) -> None:
    subject = tiny_subject()
    ids = restart_token_ids(subject)
    words = subject.tokenizer.convert_ids_to_tokens(ids)
    assert "wait" in words
    assert "<unk>" not in words
    own = subject.model.get_output_embeddings().weight[ids].mean(0).numpy()[None]
    random = np.random.default_rng(1).normal(size=(50, subject.d_model)).astype(np.float32)
    assert restart_promotion(subject, own, ids)[0] > restart_promotion(subject, random, ids).max()
