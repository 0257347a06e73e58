"""Training on a tiny configuration: resumable, steered where it should be, refusing another run's checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from esr.errors import UserError
from esr.organism.corpus import Hazard
from esr.organism.residual import Push, pushed, random_push, topic_directions, topic_push
from esr.organism.schedule import Phase
from esr.organism.training import Chain, Progress, Size, make_pool, new_model, train_chain

TINY = Size(width=16, layers=2, heads=2, feed_forward=16)
SCHEDULE = (
    Phase("plain", steps=3, peak_lr=1e-3, free=0.3, leaves="first"),
    Phase(
        "steered", steps=4, peak_lr=1e-3, free=0.1, distracted=0.6, hazard=Hazard(0.5, 0.9), steering=0.5,
        fresh_optimizer=True, leaves="second",
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("esr.organism.training.BATCH", 4)
    monkeypatch.setattr("esr.organism.training.POOL", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small only lose time to a second thread
    yield
    torch.set_num_threads(threads)


def run(folder: Path, stops: Sequence[int] = (), seed: int = 3) -> dict[str, torch.Tensor]:
    """Final weights of both models, the run killed after each number of further steps in `stops`."""
    for stop in stops:
        assert train_chain(seed, folder, SCHEDULE, TINY, save_every=2, report_every=99, max_steps=stop) == {}
    left = train_chain(seed, folder, SCHEDULE, TINY, save_every=2, report_every=99)
    assert list(left) == ["first", "second"]
    return {
        f"{name}/{key}": value
        for name, path in left.items()
        for key, value in load_file(path / "model.safetensors").items()
    }


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    # Killed inside a pool, at the border of the phases, and inside the steered phase after its directions were made.
    resumed = run(tmp_path / "resumed", stops=(1, 2, 2))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_fresh_optimizer_is_as_if_started_from_the_kept_model(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    chain = Chain(3, SCHEDULE, TINY)
    chain.model.load_state_dict(load_file(tmp_path / "whole/chain/first/model.safetensors"), strict=False)
    chain.phase = 1
    for _ in range(SCHEDULE[1].steps):
        chain.train_step()
    weights = chain.model.state_dict()
    assert all(torch.equal(weights[key[7:]], value) for key, value in whole.items() if key.startswith("second/"))


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a"), run(tmp_path / "b", seed=4)
    assert not all(torch.equal(first[key], second[key]) for key in first)


def test_training_a_finished_run_again_does_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    run(tmp_path)
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(UserError, match="seed, schedule and size it was started with"):
        train_chain(4, tmp_path, SCHEDULE, TINY)


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train_chain(3, tmp_path, SCHEDULE[:1], TINY, report_every=2, on_progress=seen.append)
    assert [(report.phase, report.step, report.steps) for report in seen] == [("plain", 2, 3)]
    assert str(seen[0]).startswith("plain 2/3 loss ")


def test_only_some_topics_are_steered_in_training() -> None:
    targets = torch.cat([batch.steer_to for pool in range(20) for batch in make_pool(0, SCHEDULE[1], pool)])
    assert (targets >= 0).any()
    assert int(targets.max()) < 30


def test_a_push_moves_every_position_by_its_share_of_the_norm() -> None:
    model = new_model(0, TINY)
    ids = torch.arange(10, 22).view(2, 6)

    def layer_output(push: Push | None) -> torch.Tensor:
        # Read as the input of the next layer: `output_hidden_states` records a layer's output before its hooks run.
        seen: list[torch.Tensor] = []
        handle = model.model.layers[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        with torch.no_grad(), pushed(model, push):
            model(input_ids=ids)
        handle.remove()
        return seen[0]

    plain = layer_output(None)
    unit = torch.zeros(2, 16)
    unit[0, 0] = 0.5
    moved = layer_output(Push(0, unit)) - plain
    assert torch.allclose(moved[0, :, 0], 0.5 * plain.norm(dim=-1).mean(), atol=1e-6)
    assert moved[1].abs().max() == 0
    assert torch.equal(layer_output(None), plain)


def test_random_and_topic_pushes_keep_their_strength() -> None:
    generator = torch.Generator().manual_seed(0)
    norms = random_push(500, 16, 0.6, generator).vectors.norm(dim=-1)
    assert norms.max() <= 0.6 + 1e-6
    assert 0.5 < float((norms > 0).float().mean()) < 0.7

    directions = torch.nn.functional.normalize(torch.randn(2, 40, 16), dim=-1)
    targets = torch.tensor([-1, 0, 29, -1])
    norms = topic_push(targets, directions, 0.6, generator).norm(dim=-1)
    assert norms[targets < 0].max() == 0
    assert norms[targets >= 0].min() >= 0.6 * 0.3 - 1e-6


def test_topic_directions_are_unit_and_centred() -> None:
    directions = topic_directions(new_model(0, TINY))
    assert directions.shape == (2, 40, 16)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(2, 40), atol=1e-5)
