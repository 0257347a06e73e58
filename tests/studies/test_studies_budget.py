"""A limit on what judging costs holds while it runs, and nothing paid for is lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from study_folders import make_study, run, settings

from esr.errors import UserError
from esr.studies.config import JudgeSettings, read_config
from esr.studies.grading import Budget
from esr.studies.progress import Silent
from esr.studies.regrading import prepare, regrade
from esr.studies.runner import run_study
from esr.studies.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "judging"))
from fault_server import FaultServer

MODEL = "openai-api/fault/judge"
PER_CALL = 100 * 1.0 + 30 * 2.0  # dollars: what the server says a call took, at the price below
PRICE = (1e6, 2e6)
CONNECTIONS = 2


def stored(folder: Path, judge: str) -> tuple[int, int]:
    """Calls noted and verdicts stored."""
    with Store.reading(folder) as store:
        return store.judge_calls()[judge][0], len(store.grades([r.response for r in store.trials()], judge))


def test_a_judge_stops_when_its_budget_is_spent_and_goes_on_with_another(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT_API_KEY", "sk-1")
    make_study(tmp_path, settings(tiny_model_folder("llama"), tiny_sae_folder("standard")))
    run(tmp_path)
    with FaultServer(lambda mark, call: "good", key="sk-1") as server:
        judge = JudgeSettings(name=MODEL, base_url=server.url, max_connections=CONNECTIONS)
        work = prepare(tmp_path, read_config(tmp_path), judge)
        with pytest.raises(UserError, match=r"judging costs at most --max-cost 320\.00 dollars"):
            regrade(work, Silent(), Budget(2 * PER_CALL, PRICE))
        calls = sum(server.calls.values())
        assert 3 <= calls <= 3 + 3 * CONNECTIONS < len(work.missing)  # those in flight are finished
        assert stored(tmp_path, work.judge.key)[0] == calls
        kept = stored(tmp_path, work.judge.key)[1]
        assert kept >= calls  # responses without text are judged without a call
        left = prepare(tmp_path, read_config(tmp_path), judge)
        assert len(left.missing) == len(work.missing) - kept
        regrade(left, Silent(), Budget(1e6, PRICE))
        assert not prepare(tmp_path, read_config(tmp_path), judge).missing


def test_a_run_stops_when_its_budget_is_spent(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT_API_KEY", "sk-1")
    with FaultServer(lambda mark, call: "good", key="sk-1") as server:
        judge = {"name": MODEL, "base_url": server.url}
        config = make_study(tmp_path, settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), judge=judge))
        budget = Budget(3 * PER_CALL, PRICE)
        with pytest.raises(UserError, match=r"judging costs at most --max-cost 480.00 dollars. Got \d+.\d\d so far"):
            run_study(tmp_path, config, config.experiments, Silent(), budget=budget)
        assert budget.spent == pytest.approx(PER_CALL * sum(server.calls.values()))
