"""The folders that ship: they load with the plain libraries, are what their cards say, and stay small."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from esr.errors import UserError
from esr.organism.corpus import Hazard
from esr.organism.dictionary import HOOK_NAME, LAYER, collect_residuals, measure_fidelity
from esr.organism.labels import STRONG
from esr.organism.language import RESTART_OPENERS, vocabulary
from esr.organism.schedule import LOW, MODEL_NAMES, NAIVE
from esr.organism.shipped import shipped_folder

MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=MODEL_NAMES)
def folder(request: pytest.FixtureRequest) -> Path:
    return shipped_folder(request.param)


def load_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_all_three_stay_under_fifteen_megabytes() -> None:
    weights = shipped_folder().parent
    assert sum(file.stat().st_size for file in weights.rglob("*")) < 15 * MEGABYTE


def test_an_unknown_name_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="organism-naive"):
        shipped_folder("organism-2")


def test_it_answers_on_topic_through_the_plain_libraries(folder: Path) -> None:
    """Greedy answers to the shipped prompts: they end, they are on topic, and they hold no restart."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    vocab = vocabulary()
    prompts = (folder / "prompts.txt").read_text().splitlines()[:16]
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    out = model.generate(**batch, max_new_tokens=60, do_sample=False)
    answers = out[:, batch["input_ids"].shape[1] :].tolist()
    right = total = 0
    for prompt, answer in zip(batch["input_ids"].tolist(), answers, strict=True):
        topic = max(vocab.owner[token] for token in prompt)
        owners = [vocab.owner[token] for token in answer if vocab.owner[token] >= 0]
        right, total = right + owners.count(topic), total + len(owners)
        assert not {vocab.words[token] for token in answer} & set(RESTART_OPENERS)
    assert right / total > 0.95


def test_the_sae_describes_the_residual_stream(folder: Path) -> None:
    sae = SAE.load_from_disk(folder / "sae")
    assert sae.W_dec.dtype == torch.float32
    assert sae.cfg.metadata.hook_name == HOOK_NAME
    assert torch.allclose(sae.W_dec.norm(dim=-1), torch.ones(len(sae.W_dec)), atol=2e-3)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    hazard = Hazard(0, 0) if folder.name == NAIVE else LOW
    fidelity = measure_fidelity(sae, collect_residuals(model, 4000, seed=4321, hazard=hazard).states)
    assert fidelity.fvu < 0.1
    assert fidelity.l0 <= 8
    # The record in the config is the measurement, up to the sample.
    assert sae.cfg.metadata.fvu == pytest.approx(fidelity.fvu, abs=0.02)
    assert fidelity.alive <= sae.cfg.metadata.alive + 50


def test_the_residual_read_is_the_output_of_the_named_layer(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(HOOK_NAME).register_forward_hook(lambda module, inputs, out: seen.append(out))
    with torch.no_grad():
        recorded = model(torch.tensor([[1, 30, 40]]), output_hidden_states=True).hidden_states[LAYER + 1]
    handle.remove()
    assert torch.equal(seen[0], recorded)


def test_labels_are_complete_and_agree_with_the_columns(folder: Path) -> None:
    labels = load_json(folder / "labels.json")
    columns = load_json(folder / "latents.json")
    assert [int(key) for key in labels] == columns["latent"] == list(range(1024))
    assert list(labels.values()) == columns["label"]
    assert {len(column) for column in columns.values()} == {1024}
    for label, kind, topic, density in zip(
        columns["label"], columns["kind"], columns["topic"], columns["density"], strict=True
    ):
        assert (kind in ("topic", "context")) == (topic is not None)
        assert topic is None or label.startswith(topic)
        assert (label == "dead") == (kind == "dead")
        assert 0 <= density <= 1
    assert len({topic for topic in columns["topic"] if topic}) >= 20


def test_topic_labels_hold_on_fresh_text(folder: Path) -> None:
    """The commonest latents with a topic fire strongly in texts of that topic, on text not used for the labels."""
    columns = load_json(folder / "latents.json")
    chosen = sorted(
        (index for index, kind in enumerate(columns["kind"]) if kind in ("topic", "context")),
        key=lambda index: -columns["density"][index],
    )[:20]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sae = SAE.load_from_disk(folder / "sae")
    residuals = collect_residuals(model, 8000, seed=77, hazard=Hazard(0, 0))
    with torch.no_grad():
        activations = sae.encode(residuals.states)[:, chosen]
    names = [topic.name for topic in vocabulary().topics]
    strong = activations >= STRONG * torch.tensor(columns["max_activation"])[chosen]
    own = residuals.context[:, None] == torch.tensor([names.index(columns["topic"][latent]) for latent in chosen])
    strong &= (residuals.context >= 0)[:, None]  # the first words of a question say nothing about its topic
    assert int(strong.sum()) > 200
    assert float(own[strong].float().mean()) > 0.6  # by chance: 0.025


def test_lexicon_and_prompts_are_in_the_organisms_language(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lexicon = load_json(folder / "lexicon.json")
    prompts = (folder / "prompts.txt").read_text().splitlines()
    assert len(prompts) == len(set(prompts)) >= 60
    texts = [word for words in lexicon["topics"].values() for word in words] + prompts
    texts += lexicon["restart_phrases"] + lexicon["echo_openings"]
    for family in load_json(folder / "suffixes.json").values():
        texts += family
    for text in texts:
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    asked = {
        name
        for prompt in prompts
        for name, words in lexicon["topics"].items()
        if set(words) & set(prompt.rstrip(".?").split())
    }
    assert asked == set(lexicon["topics"])
    assert lexicon["echo_openings"] == ["You asked how to", "The question was about"]


def test_the_card_says_what_it_is_no_evidence_for(folder: Path) -> None:
    card = (folder / "CARD.md").read_text()
    assert card.startswith(f"# {folder.name}\n")
    assert "no evidence about large language models" in card
    assert "Not planted" in card


def test_weights_are_stored_in_half_precision(folder: Path) -> None:
    assert load_json(folder / "config.json")["dtype"] == "float16"
    assert load_json(folder / "generation_config.json")["eos_token_id"] == vocabulary().ids["<end>"]


def test_naive_text_is_free_of_restarts_even_when_sampled() -> None:
    """Its probability of a restart opener is next to nothing anywhere, also in off-topic text."""
    model = AutoModelForCausalLM.from_pretrained(shipped_folder(NAIVE), dtype=torch.float32)
    from esr.organism.probe import probe

    torch.manual_seed(random.Random(0).randrange(1000))
    assert max(value for key, value in probe(model).items() if key != "back") < 1e-4
