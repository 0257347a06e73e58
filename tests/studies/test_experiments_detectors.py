"""Discovery of off-topic detectors and their ablation: on the organism, whose detectors are real, and on a subject of
random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_folders import settings as tiny_settings

from esr.errors import UserError
from esr.judging.records import Unscored
from esr.judging.rule import RuleJudge
from esr.organism.demo import demo_prompts, demo_settings
from esr.steering.hf import HFEngine
from esr.steering.interventions import Direction
from esr.studies import detecting
from esr.studies.asking import Asker
from esr.studies.conditions import Condition
from esr.studies.config import parse_config
from esr.studies.experiments import otd_ablation, otd_discovery, random_ablation, single_ablation
from esr.studies.experiments.registry import experiment
from esr.studies.grading import Grader
from esr.studies.grid import Cell
from esr.studies.lab import Lab
from esr.studies.measure import Measured, Measurer
from esr.studies.progress import Silent
from esr.studies.selecting import Candidates
from esr.studies.store import Store
from esr.subjects.loading import load_subject
from esr.subjects.prompts import how_to_prompts, read_prompts
from esr.subjects.spec import packaged_folder


def lab_of(values: dict[str, Any], prompts: list[str], folder: Path, store: Store, latents: list[int]) -> Lab:
    """A lab at the point where experiments begin, with these latents as calibrated directions."""
    config = parse_config(values, "test")
    subject = load_subject(config.subject)
    asker = Asker(config, subject, tuple(prompts))
    candidates = Candidates(asker, folder)
    measurer = Measurer(HFEngine(subject), Grader(store, RuleJudge(None), Silent()), "test")
    directions = [candidates.direction(latent) for latent in latents]
    cells = [Cell(i % len(latents), i % len(prompts), i) for i in range(12)] if latents else []
    return Lab(asker, measurer, folder, directions, [6.0] * len(latents), cells, Silent())


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("organism")
    with Store.writing(folder) as store:
        questions = demo_prompts("organism")[:10]  # each of another topic
        shipped = read_prompts(packaged_folder("organism") / "prompts.txt")[:40]
        others = [prompt for prompt in shipped if prompt not in questions]
        (folder / "others.txt").write_text("\n".join([*questions, *others[:20]]), encoding="utf-8")
        yield lab_of(demo_settings("organism", ["otd-discovery"]), questions, folder, store, [100, 101])


@pytest.fixture(scope="module")
def found(organism: Lab) -> dict[str, Any]:
    return run_work(organism, "otd-discovery", OTHERS)


@pytest.fixture
def tiny(tiny_model_folder: Any, tiny_sae_folder: Any, tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    with ExitStack() as stack:

        def make(prompts: list[str], latents: tuple[int, ...] = (), name: str = "study") -> Lab:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / "six.txt").write_text("\n".join(how_to_prompts()[:6]), encoding="utf-8")
            store = stack.enter_context(Store.writing(folder))
            values = tiny_settings(tiny_model_folder("llama"), tiny_sae_folder("standard"))
            return lab_of(values, prompts, folder, store, list(latents))

        yield make


def run_work(lab: Lab, key: str, settings: Any) -> Any:
    """Done as the runner does it: stored under the key."""
    work = experiment(key).work
    assert work is not None
    lab.store.set_record("result", key, work(lab, settings))
    return lab.result(key)


OTHERS = otd_discovery.DiscoverySettings(prompts="others.txt", responses_per_prompt=2)
TINY = otd_discovery.DiscoverySettings(
    prompts="six.txt", responses_per_prompt=1, top=5, auc_minimum=0.5, matched_share=1.0
)


def test_discovery_finds_detectors_that_hold_on_other_prompts(found: dict[str, Any]) -> None:
    """The organism was trained to notice; its questions for discovery are on topics that the study never asks."""
    detectors = found["detectors"]
    assert 3 <= len(detectors) <= 26
    table = {row["latent"]: row for row in found["table"]}
    assert [row["latent"] for row in found["table"] if row["chosen"]] == detectors
    assert table[detectors[0]]["auc"] > 0.95
    assert all(table[latent]["held_out_auc"] >= 0.9 for latent in detectors[:3])
    assert found["held_out"]["auc"] >= 0.9
    assert 0.6 < found["held_out"]["auc_low"] <= found["held_out"]["auc"] <= found["held_out"]["auc_high"]
    assert (found["prompts"], found["pairs"], found["held_out_pairs"]) == (20, 40, 20)
    assert 100 < found["alive"] < 1024


def test_the_table_says_why_others_were_left_out(organism: Lab, found: dict[str, Any]) -> None:
    chosen = [row for row in found["table"] if row["chosen"]]
    others = [row for row in found["table"] if not row["chosen"]]
    assert all(row["auc"] >= 0.6 and row["mean_matched"] <= 0.5 * row["mean_mismatched"] for row in chosen)
    assert all(row["auc"] < 0.6 or row["mean_matched"] > 0.5 * row["mean_mismatched"] for row in others)
    assert max(row["auc"] for row in others) > 0.9, "always-on latents separate too; only their share keeps them out"
    for row in found["table"]:
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        assert 0 < row["density"] <= 1 or row["mean_matched"] == 0
        assert row["label"] == organism.subject.labels[row["latent"]]


def test_discovery_is_the_same_when_done_again(organism: Lab, found: dict[str, Any]) -> None:
    assert otd_discovery.work(organism, OTHERS) == found


def test_discovery_prompts_are_disjoint(organism: Lab, tiny: Callable[..., Lab]) -> None:
    own = set(organism.prompts)
    shipped = read_prompts(packaged_folder("organism") / "prompts.txt")
    prompts = detecting.discovery_prompts(organism.folder, "organism", organism.prompts, None, True)
    assert set(prompts) == set(shipped) - own
    assert set(detecting.discovery_prompts(organism.folder, "organism", organism.prompts, None, False)) == set(shipped)
    asked = how_to_prompts()
    lab = tiny([asked[0].upper(), *asked[1:]])
    assert detecting.discovery_prompts(lab.folder, "tiny", lab.prompts, None, True) == how_to_prompts(held_out=True)
    (lab.folder / "mine.txt").write_text("\n".join([asked[2], *"abcd"]), encoding="utf-8")
    assert detecting.discovery_prompts(lab.folder, "tiny", lab.prompts, "mine.txt", True) == list("abcd")
    (lab.folder / "few.txt").write_text("\n".join([asked[2], *"abc"]), encoding="utf-8")
    with pytest.raises(UserError, match=r"4 prompts at least that the study does not ask\. Got 3 of few\.txt"):
        otd_discovery.work(lab, otd_discovery.DiscoverySettings(prompts="few.txt"))


def test_the_studys_own_directions_are_no_detectors(tiny: Callable[..., Lab]) -> None:
    prompts = ["How do i bake bread?", "Explain how to build a chair.", "How do you clean the window?"]
    free = run_work(tiny(prompts), "otd-discovery", TINY)
    taken = free["detectors"][0]
    assert len(free["detectors"]) == 5
    steered = run_work(tiny(prompts, (taken, 7), "other"), "otd-discovery", TINY)
    assert not {taken, 7} & {row["latent"] for row in steered["table"]}
    assert set(free["detectors"][1:]) - {7} <= set(steered["detectors"])


def test_a_study_of_one_prompt_has_no_held_out_check(tiny: Callable[..., Lab]) -> None:
    result = run_work(tiny(["How do i bake bread?"]), "otd-discovery", TINY)
    assert (result["held_out"], result["held_out_pairs"]) == (None, 0)
    assert [row["held_out_auc"] for row in result["table"]] == [None] * len(result["table"])


def test_without_detectors_nothing_is_ablated(tiny: Callable[..., Lab]) -> None:
    lab = tiny(["How do i bake bread?", "How do you clean the window?"])
    result = run_work(lab, "otd-discovery", TINY.model_copy(update={"auc_minimum": 1.0}))
    assert (result["detectors"], result["held_out"]) == ([], None)
    assert result["table"]
    assert otd_ablation.conditions(lab, otd_ablation.AblationSettings()) == []
    assert single_ablation.conditions(lab, single_ablation.SingleSettings()) == []
    assert run_work(lab, "random-ablation", random_ablation.RandomSettings()) == []
    assert random_ablation.conditions(lab, random_ablation.RandomSettings()) == []


@pytest.fixture(scope="module")
def steered(organism: Lab, found: dict[str, Any]) -> Lab:
    """Twelve steered responses."""
    tasks = organism.tasks(Condition("incidence", control=None))
    responses = organism.generate("trials", [task.request for task in tasks])
    organism._outcomes["incidence"] = [
        Measured(task, response, Unscored("test"), str(i))
        for i, (task, response) in enumerate(zip(tasks, responses, strict=True))
    ]
    return organism


def test_ablations_clamp_what_discovery_found(steered: Lab, found: dict[str, Any]) -> None:
    detectors = found["detectors"]
    (all_of_them,) = otd_ablation.conditions(steered, otd_ablation.AblationSettings(clamp_reads="steered"))
    assert all_of_them.clamps == tuple((latent, 0.0) for latent in detectors)
    assert (all_of_them.clamp_reads, all_of_them.control) == ("steered", "incidence")
    single = single_ablation.conditions(steered, single_ablation.SingleSettings(top=3))
    assert [c.clamps for c in single] == [((latent, 0.0),) for latent in detectors[:3]]
    assert all(c.clamp_reads == "incoming" for c in single)


@pytest.mark.parametrize("text", ["steered", "unsteered"])
def test_random_sets_match_on_the_text_asked_for(steered: Lab, found: dict[str, Any], text: Any) -> None:
    settings = random_ablation.RandomSettings(sets=2, text=text, nearest=5)
    sets = run_work(steered, "random-ablation", settings)
    drawn = [latent for one in sets for latent in one["latents"]]
    assert len(drawn) == len(set(drawn)) == 2 * len(found["detectors"])
    assert not set(drawn) & {*found["detectors"], 100, 101}
    assert all(abs(one["density_difference"]) < 1 and one["max_distance"] < 5 for one in sets)
    conditions = random_ablation.conditions(steered, settings)
    assert [c.name for c in conditions] == ["random-ablation 1", "random-ablation 2"]
    assert [[latent for latent, _ in c.clamps] for c in conditions] == [one["latents"] for one in sets]
    texts = detecting.steered_texts(steered, 400) if text == "steered" else detecting.study_texts(steered)[1]
    reader = steered.subject.require_reader()
    active = np.zeros(reader.d_sae)
    for request in texts:
        ids, n = request.prompt_ids + request.prefill_ids, len(request.prompt_ids)
        h = steered.engine.residual(ids, steered.subject.read_layer, request.interventions, prompt_length=n)[n:]
        active += (reader.encode(h) > 0).sum(0).numpy()
    assert (active[drawn] > 0).all(), "a random latent is active on the text"


def test_random_sets_hold_none_of_the_studys_directions(steered: Lab, found: dict[str, Any]) -> None:
    settings = random_ablation.RandomSettings()
    drawn = {latent for one in random_ablation.work(steered, settings) for latent in one["latents"]}
    reader = steered.subject.require_reader()
    other = replace(steered, directions=[Direction(f"latent:{i}", reader.direction(i)) for i in drawn])
    again = {latent for one in random_ablation.work(other, settings) for latent in one["latents"]}
    assert len(again) == len(drawn) == 3 * len(found["detectors"])
    assert not again & drawn


def test_steered_texts_carry_their_steering_and_are_capped(steered: Lab) -> None:
    texts = detecting.steered_texts(steered, 5)
    assert len(texts) == 5
    assert all(request.interventions and request.prefill_ids for request in texts)
    assert detecting.steered_texts(steered, 5) == texts
    assert len(detecting.steered_texts(steered, 400)) == 12


@pytest.mark.parametrize(
    "wrong",
    [{"pool": "sum"}, {"over": "prompt"}, {"top": 0}, {"auc_minimum": 2}, {"matched_share": -0.1}, {"prompt": "x"}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    values = demo_settings("organism", ["otd-discovery"]) | {"experiment": {"otd-discovery": wrong}}
    with pytest.raises(UserError, match=f"otd-discovery.*{next(iter(wrong))}"):
        parse_config(values, "test")


def test_other_rankings_and_pools_run(organism: Lab, found: dict[str, Any]) -> None:
    for change in ({"by": "d"}, {"pool": "mean", "over": "all"}, {"by": "strict", "strict_matched": 0.1}):
        result = otd_discovery.work(organism, OTHERS.model_copy(update=change))
        assert result["detectors"], change
        assert result["held_out"]["auc"] >= 0.9, change
