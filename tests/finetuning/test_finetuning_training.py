"""LoRA training on a tiny model: the loss, what it learns, and stopping at any point."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("peft")

from safetensors.torch import load_file

from esr.errors import UserError
from esr.finetuning.examples import Example, Segment
from esr.finetuning.masking import IGNORED, Encoded, Encoder
from esr.finetuning.quality import AnswerLosses, answer_losses, perplexity_change
from esr.finetuning.settings import TrainingSettings
from esr.finetuning.training import finished_adapter, summed_loss, train_adapter
from esr.studies.progress import Silent
from esr.subjects.loading import Subject, load_subject
from esr.subjects.spec import SubjectSpec

SETTINGS = TrainingSettings(rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch=4, micro_batch=2, warmup_steps=2)


@pytest.fixture
def fresh(tiny_model_folder: Callable[..., Path]) -> Callable[..., Subject]:
    """A subject of its own for each training, which puts modules into it."""

    def load(**fields: Any) -> Subject:
        spec = SubjectSpec(model=str(tiny_model_folder()), steer_layer=1, device="cpu", **fields)
        return load_subject(spec)

    return load


def examples(subject: Subject, count: int = 10) -> list[Encoded]:
    encoder = Encoder(subject)
    words = "red blue green small large cat dog bird fish tree".split()  # noqa: SIM905
    made = [
        Example(
            prompt=f"how do i clean the {word}",
            segments=(
                Segment(text=f"{'river ' * (i + 1)}stone cloud story", train=False),
                Segment(text=f" wait , clean the {word} and hold it .", train=True),
            ),
        )
        for i, word in enumerate(words)
    ]
    return [encoder.encode(made[i % len(made)]) for i in range(count)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_loss_is_the_librarys_and_the_slow_definitions(fresh: Callable[..., Subject]) -> None:
    subject = fresh()
    batch = examples(subject, 3)
    batch[1] = Encoded(batch[1].ids[:-4], batch[1].labels[:-4])  # padding
    slow = library = 0.0
    with torch.no_grad():
        for example in batch:
            ids = torch.tensor([example.ids])
            logits = subject.model(input_ids=ids).logits[0].double()
            for position in range(1, len(example.ids)):
                if example.labels[position] != IGNORED:
                    slow -= float(logits[position - 1].log_softmax(-1)[example.ids[position]])
            mean = subject.model(input_ids=ids, labels=torch.tensor([example.labels])).loss
            library += float(mean) * example.learned
        ours = float(summed_loss(subject.model, batch, subject.device))
    assert ours == pytest.approx(slow, rel=1e-5)
    assert ours == pytest.approx(library, rel=1e-5)


def test_what_is_masked_is_never_a_target(fresh: Callable[..., Subject]) -> None:
    """No gradient reaches the output weights of a token that occurs in masked text only."""
    subject = fresh()
    subject.model.requires_grad_(True)
    encoded = examples(subject, 1)[0]
    context = subject.model.lm_head.weight
    summed_loss(subject.model, [encoded], subject.device).backward()
    logits = subject.model(input_ids=torch.tensor([encoded.ids])).logits[0]
    logits.retain_grad()
    targets = torch.tensor(encoded.labels[1:])
    torch.nn.functional.cross_entropy(logits[:-1], targets, ignore_index=IGNORED, reduction="sum").backward()
    assert logits.grad is not None
    unlearned = [i for i in range(len(encoded.ids) - 1) if encoded.labels[i + 1] == IGNORED]
    assert unlearned
    assert not logits.grad[unlearned].any()
    assert context.grad is not None


def test_training_learns_restarts_and_not_the_off_topic_text(fresh: Callable[..., Subject], tmp_path: Path) -> None:
    subject = fresh()
    batch = examples(subject)
    inverse = [
        Encoded(e.ids, tuple(IGNORED if label != IGNORED or i < 12 else e.ids[i] for i, label in enumerate(e.labels)))
        for e in batch
    ]

    def losses(model: Any) -> tuple[float, float]:
        with torch.no_grad():
            return float(summed_loss(model, batch, subject.device)), float(summed_loss(model, inverse, subject.device))

    before = losses(subject.model)
    done = train_adapter(subject, batch, SETTINGS.model_copy(update={"epochs": 6}), 0, tmp_path, Silent())
    tuned = load_subject(subject.spec.model_copy(update={"adapter": str(done.folder)}))
    after = losses(tuned.model)
    assert done.losses[-1] < 0.7 * done.losses[0]
    assert after[0] < 0.6 * before[0]  # the adapter is read back as a subject's adapter, and has learned
    assert after[1] > before[1]
    record = json.loads((done.folder / "training.json").read_text())
    assert len(record["steps"]) == 6 * 3
    assert record["epochs"] == list(done.losses)
    assert record["learned_tokens"] == sum(e.learned for e in batch)


def test_all_linear_layers_are_adapted(fresh: Callable[..., Subject], tmp_path: Path) -> None:
    subject = fresh()
    train_adapter(subject, examples(subject, 4), SETTINGS.model_copy(update={"epochs": 1}), 0, tmp_path, Silent())
    names = {k.split(".")[-3] for k in weights(tmp_path) if "lora_A" in k}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.05)


class Stop(Silent):
    """Stops a training in the middle of its epoch ``epoch``."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        self.left -= responses
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [4, 14, 28])
def test_a_training_that_was_stopped_ends_with_the_same_bits(
    fresh: Callable[..., Subject], tmp_path: Path, after: int
) -> None:
    subject = fresh()
    batch = examples(subject)
    whole = train_adapter(subject, batch, SETTINGS, 7, tmp_path / "whole", Silent())
    with pytest.raises(KeyboardInterrupt):
        train_adapter(fresh(), batch, SETTINGS, 7, tmp_path / "stopped", Stop(after))
    assert finished_adapter(tmp_path / "stopped") is None
    torch.manual_seed(after)  # whatever else draws
    again = train_adapter(fresh(), batch, SETTINGS, 7, tmp_path / "stopped", Silent())
    assert again.losses == whole.losses
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert not (tmp_path / "stopped" / "training.pt").exists()
    other = train_adapter(fresh(), batch, SETTINGS, 8, tmp_path / "other", Silent())
    assert other.losses != whole.losses


def test_a_finished_adapter_is_kept_and_another_is_refused(fresh: Callable[..., Subject], tmp_path: Path) -> None:
    subject = fresh()
    batch = examples(subject, 4)
    done = train_adapter(subject, batch, SETTINGS, 0, tmp_path, Silent())
    stamp = (done.folder / "adapter_model.safetensors").stat().st_mtime_ns
    assert train_adapter(fresh(), batch, SETTINGS, 0, tmp_path, Silent()) == done
    smaller = SETTINGS.model_copy(update={"micro_batch": 1})
    assert train_adapter(fresh(), batch, smaller, 0, tmp_path, Silent()) == done
    assert (done.folder / "adapter_model.safetensors").stat().st_mtime_ns == stamp
    for changed in ({"seed": 1}, {"examples": batch[:3]}, {"settings": SETTINGS.model_copy(update={"epochs": 4})}):
        arguments: dict[str, Any] = {"examples": batch, "settings": SETTINGS, "seed": 0} | changed
        with pytest.raises(UserError, match="trained once"):
            train_adapter(fresh(), folder=tmp_path, progress=Silent(), **arguments)


def test_accumulated_gradients_are_those_of_the_whole_batch(fresh: Callable[..., Subject], tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"dropout": 0.0, "learning_rate": 1e-3})
    subject = fresh()
    batch = examples(subject)
    batch[0] = Encoded(batch[0].ids, tuple(IGNORED for _ in batch[0].ids))  # examples weigh by their learned tokens
    losses = []
    for micro in (1, 3, 4):
        kept = settings.model_copy(update={"micro_batch": micro})
        losses.append(train_adapter(fresh(), batch, kept, 0, tmp_path / str(micro), Silent()).losses)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)


def test_gradient_checkpointing_trains_the_same(fresh: Callable[..., Subject], tmp_path: Path) -> None:
    subject = fresh()
    batch = examples(subject, 4)
    plain = train_adapter(subject, batch, SETTINGS, 0, tmp_path / "a", Silent())
    saving = SETTINGS.model_copy(update={"gradient_checkpointing": True})
    np.testing.assert_allclose(
        train_adapter(fresh(), batch, saving, 0, tmp_path / "b", Silent()).losses, plain.losses, rtol=1e-4
    )


def test_the_global_generator_is_left_alone(fresh: Callable[..., Subject], tmp_path: Path) -> None:
    subject = fresh()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train_adapter(subject, examples(subject, 4), SETTINGS, 0, tmp_path, Silent())
    assert torch.rand(1) == expected


def test_what_cannot_be_trained_is_said(fresh: Callable[..., Subject], tmp_path: Path) -> None:
    subject = fresh()
    nothing = [Encoded((1, 2), (IGNORED, IGNORED))]
    with pytest.raises(UserError, match="at least one token"):
        train_adapter(subject, nothing, SETTINGS, 0, tmp_path, Silent())
    wrong = SETTINGS.model_copy(update={"targets": ("nowhere",)})
    with pytest.raises(UserError, match="targets names modules"):
        train_adapter(subject, examples(subject, 4), wrong, 0, tmp_path, Silent())


@pytest.mark.parametrize(
    ("arch", "dtype"), [("gemma2", "float32"), ("qwen3", "float32"), ("gpt2", "float32"), ("llama", "bfloat16")]
)
def test_other_models_train_and_load(
    tiny_model_folder: Callable[..., Path], tmp_path: Path, arch: str, dtype: Any
) -> None:
    spec = SubjectSpec(model=str(tiny_model_folder(arch)), steer_layer=1, device="cpu", dtype=dtype)
    subject = load_subject(spec)
    batch = examples(subject, 8)
    with torch.no_grad():
        before = float(summed_loss(subject.model, batch, subject.device))
    done = train_adapter(subject, batch, SETTINGS, 0, tmp_path, Silent())
    assert all(weight.dtype == torch.float32 for weight in weights(tmp_path).values())
    tuned = load_subject(spec.model_copy(update={"adapter": str(done.folder)}))
    with torch.no_grad():
        assert float(summed_loss(tuned.model, batch, tuned.device)) < before


def test_the_published_settings_are_the_defaults() -> None:
    s = TrainingSettings()
    assert (s.rank, s.alpha, s.dropout, s.learning_rate, s.epochs, s.batch, s.warmup_steps, s.targets) == (
        32, 16, 0.05, 2e-4, 4, 8, 10, "all-linear"
    )  # fmt: skip


def test_perplexity_is_the_slow_definition(fresh: Callable[..., Subject]) -> None:
    subject = fresh()
    answers = [
        Example(prompt="how do i bake bread", segments=(Segment(text="mix water and bread .", train=True),)),
        Example(prompt="how do i fix a bike", segments=(Segment(text="turn it slowly", train=True),), ends=False),
    ]
    found = answer_losses(subject, answers)
    encoder = Encoder(subject)
    nats, tokens = [], []
    for answer in answers:
        encoded = encoder.encode(answer)
        n = len(encoded.ids) - encoded.learned
        with torch.no_grad():
            logits = subject.model(input_ids=torch.tensor([encoded.ids])).logits[0].double().log_softmax(-1)
        nats.append(-sum(float(logits[i - 1, encoded.ids[i]]) for i in range(n, len(encoded.ids))))
        tokens.append(len(encoded.ids) - n)
    assert found.tokens == tuple(tokens) == (6, 3)
    np.testing.assert_allclose(found.nats, nats, rtol=1e-5)
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / sum(tokens)))
    assert AnswerLosses.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(UserError, match="at least one held-out"):
        answer_losses(subject, [])


def test_the_change_of_perplexity_is_paired_and_clustered_by_prompt() -> None:
    rng = np.random.default_rng(0)
    prompts = tuple(f"p{i // 10}" for i in range(80))
    tokens = tuple(int(n) for n in rng.integers(20, 60, 80))
    nats = rng.uniform(1, 3, 80) * tokens  # differs much more between answers than the adapter changes
    by_prompt = np.repeat(rng.normal(0.1, 0.02, 8), 10)
    base = AnswerLosses(prompts, tuple(nats), tokens)
    tuned = replace(base, nats=tuple(nats + by_prompt * tokens))
    change = perplexity_change(base, tuned, seed=0)
    assert change.ratio == pytest.approx(tuned.perplexity / base.perplexity)
    assert change.low < change.ratio < change.high
    assert 1.05 < change.low < change.high < 1.16
    assert (change.n_answers, change.n_prompts) == (80, 8)
    single = perplexity_change(*(replace(arm, prompts=("p",) * 80) for arm in (base, tuned)), seed=0)
    assert math.isnan(single.low)
    with pytest.raises(UserError, match="same answers"):
        perplexity_change(base, replace(tuned, tokens=tokens[::-1]), seed=0)
