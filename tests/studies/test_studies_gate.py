"""What the efficacy gate may try is bounded before it runs, and the bound holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from organism_studies import make_organism_study
from safetensors.torch import save_file
from study_folders import make_study, settings

from esr.errors import UserError
from esr.studies.config import DirectionSettings, read_config
from esr.studies.gate import most_candidates
from esr.studies.planning import check_cost, plan_run
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.store import Store
from esr.subjects.published import published_subjects
from esr.subjects.spec import SaeSpec

GATE = {"efficacy_boosts": [1.0, 2.0], "efficacy_drop": 100.0, "efficacy_prompts": 2, "relevance": "none"}


def test_a_gate_that_nothing_passes_takes_what_was_planned_and_no_more(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any
) -> None:
    directions = {**GATE, "latents": list(range(20))}
    values = settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), directions=directions)
    config = make_study(tmp_path, values)
    plan = plan_run(tmp_path, config, config.experiments)
    assert (plan.stages[0].expected, plan.stages[0].responses) == (3 * 2 + 8 * 4, 3 * 2 + 20 * 4)
    assert plan.responses_in_words == f"about {plan.responses - 12 * 4}, at most {plan.responses}"
    with pytest.raises(UserError, match="none of 20 tried"):
        run_study(tmp_path, config, config.experiments, Silent())
    with Store.reading(tmp_path) as store:
        ((_, _, _, done),) = store.stages()
    assert 8 * 4 < done - 3 * 2 <= 20 * 4


def test_what_the_bound_rests_on(tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any) -> None:
    sae = tiny_sae_folder("standard")
    config = make_study(tmp_path, settings(tiny_model_folder("llama"), sae, directions=GATE))
    d_sae = json.loads((sae / "cfg.json").read_text())["d_sae"]
    assert most_candidates(tmp_path, config) == (d_sae, f"the {d_sae} latents of the SAE")
    save_file({"a": torch.ones(64), "b": torch.ones(64)}, tmp_path / "v.safetensors")
    vectors = config.model_copy(update={"directions": DirectionSettings(vectors="v.safetensors")})
    assert most_candidates(tmp_path, vectors) == (2, "the 2 vectors of v.safetensors")
    for named, known in ((published_subjects()["llama-3.3-70b/paper"].spec.sae, 65_536), (None, None)):
        found = named or SaeSpec(release="one", id="unheard of")
        subject = config.subject.model_copy(update={"sae": found})
        assert most_candidates(tmp_path, config.model_copy(update={"subject": subject}))[0] == known


def test_an_organism_s_labels_narrow_the_bound(tmp_path: Path) -> None:
    make_organism_study(tmp_path, ["incidence"], count=8)
    config = read_config(tmp_path)
    most, basis = most_candidates(tmp_path, config)
    assert most is not None
    assert 36 <= most < 1024
    assert "1024 latents of the SAE, those whose label is concrete enough" in basis


def test_a_cost_limit_goes_by_the_bound_and_refuses_without_one(tmp_path: Path) -> None:
    make_organism_study(tmp_path, ["incidence"], count=8)
    config = read_config(tmp_path)
    judge = config.judge.model_copy(update={"name": "maker/priced"})
    (tmp_path / "prices.toml").write_text('[prices]\n"maker/priced" = [1.0, 1.0]\n')
    plan = plan_run(tmp_path, config.model_copy(update={"judge": judge}), ["incidence"])
    assert plan.dollars is not None
    expected = plan.dollars * sum(s.expected for s in plan.stages) / plan.responses
    check_cost(plan, plan.dollars)
    with pytest.raises(UserError, match="judging costs at most"):
        check_cost(plan, (expected + plan.dollars) / 2)
    with pytest.raises(UserError, match=r"how many candidates the efficacy gate can try\. Got why"):
        check_cost(replace(plan, bounded=False, gate="why"), 1e6)
