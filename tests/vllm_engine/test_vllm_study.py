"""A whole study of the organism by the vllm backend, against the same by the Hugging Face one."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from organism_studies import SMALL, run_small
from study_folders import contents

from esr.errors import UserError
from esr.organism.demo import demo_prompts, demo_settings
from esr.studies.new import write_study
from esr.studies.study import Study


def make(folder: Path, backend: str, temperature: float = 0.0) -> Path:
    """A small study of the organism."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("\n".join(demo_prompts("organism")) + "\n", encoding="utf-8")
    settings = demo_settings("organism", ["no-steering", "incidence", "otd-discovery", "otd-ablation"])
    settings["directions"]["count"] = 5
    settings["prompts"]["per_direction"] = 2
    settings["sampling"] = {**settings.get("sampling", {}), "temperature": temperature}
    settings["experiment"] = SMALL
    settings["engine"] = {"backend": backend, "vllm": {"cache_gib": 0.25}}
    write_study(folder, settings)
    return folder


def test_a_greedy_study_is_hugging_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    by_vllm, by_hf = make(tmp_path / "vllm", "vllm"), make(tmp_path / "hf", "hf")
    run_small(by_vllm)
    run_small(by_hf)
    found, expected = contents(by_vllm), contents(by_hf)
    for table in ("trials", "responses", "grades"):
        assert len(expected[table]) > 40
        assert found[table] == expected[table]
    provenance = Study.open(by_vllm).provenance
    assert (provenance["engine"], provenance["device"]) == ("vllm", "cpu")
    assert Study.open(by_hf).provenance["engine"] == "hf"

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing is missing, so no engine starts")

    monkeypatch.setattr("esr.steering.make.start_engine", refuse)
    run_small(by_vllm)


def test_the_surrogate_is_hugging_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in a study of each, stopped before its calibration."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("esr.studies.runner.calibrate", stop)
    found = []
    for backend in ("vllm", "hf"):
        folder = make(tmp_path / backend, backend)
        path = folder / "study.toml"
        text = re.sub(r"(?m)^#? *surrogate = false", "surrogate = true", path.read_text())
        path.write_text(text)
        with pytest.raises(KeyboardInterrupt):
            run_small(folder)
        found.append(Study.open(folder).surrogate)
    by_vllm, by_hf = found
    assert len(by_hf) == 5 * 12
    assert by_hf["variation"].max() > 0.3
    pd.testing.assert_frame_equal(by_vllm, by_hf, atol=1e-4)


def test_a_sampled_study_keeps_its_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    folder = make(tmp_path, "vllm", temperature=0.6)
    run_small(folder)
    trials = Study.open(folder).trials
    rates = trials.groupby("condition")["multi_attempt"].mean()
    assert rates["incidence"] > rates["no-steering"]
    path = folder / "study.toml"
    path.write_text(path.read_text().replace('backend = "vllm"', 'backend = "hf"'))
    with pytest.raises(UserError, match=r"engine\.backend: vllm -> \(not set\)"):
        run_small(folder)


def test_an_adapter_is_merged(organism: Any, tmp_path: Path, run_engine: Any) -> None:
    """Greedy answers with a random LoRA adapter, as Hugging Face with PEFT gives them; nothing is left behind."""
    peft = pytest.importorskip("peft")
    import tempfile

    import torch
    from vllm_requests import answers, differing, mixed_requests

    from esr.steering.hf import HFEngine
    from esr.subjects.loading import load_subject
    from esr.subjects.published import published_subject

    spec = published_subject("organism").spec
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(load_subject(spec).model, config).save_pretrained(tmp_path / "adapter")
    adapted = spec.model_copy(update={"adapter": str(tmp_path / "adapter")})
    requests = mixed_requests(organism, 24, seed=51)
    expected = answers(HFEngine(load_subject(adapted)), requests)
    assert len(differing(expected, answers(HFEngine(organism), requests))) > 12
    before = set(os.listdir(tempfile.gettempdir()))
    with run_engine(adapted) as engine:
        assert differing(answers(engine, requests), expected) == []
    assert not [name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("esr-merged-")]
