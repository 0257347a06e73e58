"""The whole recipe on a tiny configuration: chain, SAEs, folders; and that a second call keeps what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM

from esr.organism.recipe import train
from esr.organism.schedule import NAIVE, ORGANISM, Phase
from esr.organism.shipping import DictionarySize, evaluation_prompts
from esr.organism.training import Size

SCHEDULE = (
    Phase("plain", steps=2, peak_lr=1e-3, free=0.3, leaves=NAIVE),
    Phase("steered", steps=2, peak_lr=1e-3, free=0.1, distracted=0.6, steering=0.5, leaves=ORGANISM),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_recipe_leaves_complete_folders_and_is_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esr.organism.dictionary.BATCH", 64)
    size = Size(width=16, layers=2, heads=2, feed_forward=16)
    dictionary = DictionarySize(tokens=2000, held_out=500, steps=10, latents=32, active=4)
    folders = train(3, tmp_path, schedule=SCHEDULE, size=size, dictionary=dictionary)
    assert list(folders) == [NAIVE, ORGANISM]
    for name, folder in folders.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        sae = SAE.load_from_disk(folder / "sae")
        assert sae.W_dec.shape == (32, model.config.hidden_size)
        assert len(json.loads((folder / "labels.json").read_text())) == 32
        card = (folder / "CARD.md").read_text()
        assert f"{model.num_parameters():,} parameters" in card
        assert ("fiction writing" in card) == (name == ORGANISM)  # a topic never steered in training

    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert train(3, tmp_path, schedule=SCHEDULE, size=size, dictionary=dictionary) == folders
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_evaluation_prompts_are_fixed_and_cover_every_topic_twice() -> None:
    prompts = evaluation_prompts()
    assert prompts == evaluation_prompts()
    assert len(prompts) == len(set(prompts)) == 80
