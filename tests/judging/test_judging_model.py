"""The model judge as its callers see it: what it asks, what it costs, when it stops, what it refuses."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")

from fault_server import RESTART, FaultServer, judged_text

from esr.errors import UserError
from esr.judging import client as client_module
from esr.judging import model as model_module
from esr.judging.background import LoopThread, loop_thread
from esr.judging.model import ModelJudge
from esr.judging.records import Exhibit, Judge, Scored, Unscored

MODEL = "openai-api/fault/judge"
KEY = "sk-modeljudge-0123456789abcdef"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FAULT_API_KEY", KEY)
    monkeypatch.setattr(model_module, "FIRST_PAUSE", 0.02)


def exhibit(n: int, response: str = f"Trains run to Oslo every day. {RESTART} Knead it.") -> Exhibit:
    return Exhibit(f"id-{n}", f"How do I bake bread? exhibit-{n:04d}", response)


def judge_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "esr judge"]


def test_the_request_and_the_judgement() -> None:
    with FaultServer(lambda *_: "good") as server:
        judge: Judge = ModelJudge(MODEL, base_url=server.url, segments=True)
        results = dict(judge.judge([exhibit(0), exhibit(1, "Flour.")]))
        body = next(b for b in server.bodies if "exhibit-0000" in b["messages"][1]["content"])
    verdict = results["id-0"]
    assert isinstance(verdict, Scored)
    assert [(a.start, a.end, a.score, a.quote, a.kind) for a in verdict.attempts] == [
        (0, 30, 20, "Trains run to Oslo every day.", None),
        (30, 71, 80, RESTART, "disowning"),
    ]
    assert verdict.segments == (10, 50, 90)
    assert body["model"] == "judge"
    assert body["temperature"] == 0
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["restarts", "scores", "segments"]
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert judged_text(body) == exhibit(0).response
    assert judge.usage.calls == 2  # type: ignore[attr-defined]
    assert judge.usage.output_tokens == 60  # type: ignore[attr-defined]
    assert not judge_threads()


def test_an_empty_response_is_not_asked_about() -> None:
    with FaultServer(lambda *_: "good") as server:
        results = dict(ModelJudge(MODEL, base_url=server.url).judge([exhibit(0, ""), exhibit(1, " \u200b\n")]))
    assert results == {f"id-{n}": Unscored("no attempt", "the response is empty") for n in (0, 1)}
    assert not server.calls


def test_a_rejected_verdict_is_asked_again_with_the_reason() -> None:
    with FaultServer(lambda _, call: ["invented", "malformed", "good"][call]) as server:
        results = dict(ModelJudge(MODEL, base_url=server.url).judge([exhibit(0)]))
        first, second, third = (body["messages"] for body in server.bodies)
    assert isinstance(results["id-0"], Scored)
    assert second[:2] == third[:2] == first
    assert [m["role"] for m in second[2:]] == ["assistant", "user"]
    assert "not in the response: 'Words it never said'" in second[3]["content"]
    assert "no JSON object" in third[3]["content"]
    assert "Words it never said" not in str(third[2:])  # one correction at a time: the question does not grow


def test_a_server_without_structured_output_is_asked_without() -> None:
    with FaultServer(lambda *_: "no-schema") as server:
        results = dict(ModelJudge(MODEL, base_url=server.url).judge(map(exhibit, range(40))))
        assert all(isinstance(r, Scored) for r in results.values())
        assert "response_format" not in server.bodies[-1]
        assert server.served["no-schema"] < 80


def test_a_retry_after_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def script(_: str, call: int) -> str:
        times.append(time.monotonic())
        return "good" if call else "429-after"

    with FaultServer(script) as server:
        monkeypatch.setattr(model_module, "FIRST_PAUSE", 0.0001)
        dict(ModelJudge(MODEL, base_url=server.url).judge([exhibit(0)]))
    assert times[1] - times[0] >= 0.4


def test_drawing_waits_for_judging_and_closing_cancels() -> None:
    drawn = count()
    source = (exhibit(next(drawn)) for _ in count())
    with FaultServer(lambda mark, _: "good" if mark < "exhibit-0010" else "stall", stall=20) as server:
        results = ModelJudge(MODEL, base_url=server.url, max_connections=4).judge(source)
        for _ in range(10):
            next(results)
        begin = time.monotonic()
        results.close()  # type: ignore[attr-defined]
        assert time.monotonic() - begin < 5
        assert next(drawn) <= 10 + 4
        assert server.most_busy <= 4
    assert not judge_threads()


def test_results_come_while_exhibits_are_still_drawn() -> None:
    first_result = threading.Event()

    def source() -> Iterator[Exhibit]:
        for n in range(1000):
            yield exhibit(n)
            time.sleep(0.01)
            if first_result.is_set():
                return
        raise AssertionError("no result while drawing")

    with FaultServer(lambda *_: "good") as server:
        for _ in ModelJudge(MODEL, base_url=server.url, max_connections=1000).judge(source()):
            first_result.set()


def test_an_error_of_the_source_is_the_callers() -> None:
    def source() -> Iterator[Exhibit]:
        yield exhibit(0)
        raise ZeroDivisionError

    with FaultServer(lambda *_: "good") as server, pytest.raises(ZeroDivisionError):
        list(ModelJudge(MODEL, base_url=server.url).judge(source()))
    assert not judge_threads()


def test_two_judges_at_once_share_a_thread_and_nothing_else() -> None:
    with FaultServer(lambda mark, _: "good" if mark > "exhibit-0002" else "malformed") as server:
        one, two = (ModelJudge(MODEL, base_url=server.url, max_tries=1) for _ in range(2))
        pairs = list(zip(one.judge(map(exhibit, range(20))), two.judge(map(exhibit, range(20))), strict=True))
        assert len(pairs) == 20
    assert one.usage.calls == two.usage.calls == 20
    assert not judge_threads()


def test_closing_one_judge_ends_its_calls_while_another_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(model_module, "LONGEST_PAUSE", 0.01)
    with FaultServer(lambda mark, _: "good" if mark < "exhibit-0005" else "500") as server:
        open_one, closed = (ModelJudge(MODEL, base_url=server.url, max_retries=10_000) for _ in range(2))
        kept = open_one.judge(map(exhibit, range(3)))
        next(kept)
        results = closed.judge(map(exhibit, range(4, 9)))
        next(results)
        results.close()  # type: ignore[attr-defined]
        calls = closed.usage.calls
        time.sleep(0.3)
        assert closed.usage.calls == calls
        assert len(list(kept)) == 2
    assert not judge_threads()


@pytest.mark.parametrize(("outcome", "rule"), [("401", "accepts the key"), ("404", "knows the model")])
def test_a_refused_key_or_model_stops_the_run(outcome: str, rule: str) -> None:
    judged = []
    with FaultServer(lambda mark, _: "good" if mark < "exhibit-0005" else outcome, key=KEY) as server:
        judge = ModelJudge(MODEL, base_url=server.url, max_connections=2)
        with pytest.raises(UserError, match=rule) as error:
            judged.extend(id for id, _ in judge.judge(map(exhibit, range(500))))
        assert judge.usage.calls < 20
    assert KEY not in str(error.value)
    assert "[key]" in str(error.value)
    assert len(judged) == len(set(judged)) <= 5
    assert not judge_threads()


def test_a_judge_out_of_reach_stops_the_run() -> None:
    judge = ModelJudge(MODEL, base_url="http://user:password@127.0.0.1:9/v1", max_retries=0)
    judged = []
    with pytest.raises(UserError, match="the judge openai-api/fault/judge answers") as error:
        judged.extend(judge.judge(map(exhibit, range(500))))
    assert model_module.PATIENCE <= len(judged) <= model_module.PATIENCE + 32
    assert "password" not in str(error.value)


def test_key_is_that_of_the_verdicts_not_of_the_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rubric = tmp_path / "r.md"
    rubric.write_text("Judge. {{form}}")
    same = ModelJudge(MODEL).key
    assert same == ModelJudge(MODEL, base_url="http://x/v1", timeout=5, max_tries=1, max_connections=2).key
    monkeypatch.setenv("FAULT_API_KEY", "another-key")
    assert same == ModelJudge(MODEL, max_retries=1).key
    others = {
        ModelJudge("openai-api/fault/other").key,
        ModelJudge(MODEL, segments=True).key,
        ModelJudge(MODEL, temperature=0.5).key,
        ModelJudge(MODEL, temperature=None).key,
        ModelJudge(MODEL, rubric=rubric).key,
    }
    assert len(others | {same}) == 6


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("openai/gpt-4o", {}, "OPENAI_API_KEY"),
        ("anthropic/claude", {}, "ANTHROPIC_API_KEY"),
        ("openai-api/my-server/m", {}, "MY_SERVER_API_KEY"),
        (MODEL, {}, "FAULT_BASE_URL"),
        ("nosuch/model", {}, "named PROVIDER/MODEL"),
        ("gpt-4o", {}, "named PROVIDER/MODEL"),
        (MODEL, {"batch": True}, "batch mode needs one of the providers anthropic, google"),
    ],
)
def test_preflight_says_what_is_missing(model: str, options: dict[str, bool], message: str) -> None:
    judge = ModelJudge(model, **options)  # type: ignore[arg-type]
    for attempt in (judge.preflight, lambda: next(judge.judge(iter([exhibit(0)])))):
        with pytest.raises(UserError) as error:
            attempt()
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    assert not judge_threads()


def test_preflight_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.model", None)
    with pytest.raises(UserError, match=r"extra `judge`\. Got no inspect_ai\. .*pip install '\.\[judge\]'"):
        ModelJudge(MODEL).preflight()


def test_preflight_passes_without_a_call() -> None:
    hook = sys.excepthook
    with FaultServer(lambda *_: "good") as server:
        ModelJudge(MODEL, base_url=server.url).preflight()
        assert not server.calls
    assert sys.excepthook is hook


@pytest.mark.parametrize(
    "options", [{"max_tries": 0}, {"max_retries": -1}, {"timeout": 0.5}, {"max_connections": 0}, {"max_tokens": 1}]
)
def test_numbers_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(options))} is at least"):
        ModelJudge(MODEL, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has a model"):
        ModelJudge(" ")


@pytest.mark.filterwarnings("ignore:.*MemoryObject:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:.*MemoryObject:ResourceWarning")
def test_batch_mode_asks_by_file_and_again_live(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(client_module, "BATCH_TICK", 0.05)
    monkeypatch.setattr(client_module, "BATCH_RETRIES", 0)
    with FaultServer(lambda mark, call: "malformed" if mark.endswith("3") and call == 0 else "good") as server:
        server.failing_batches = 1  # its worker dies with it; the responses are sent again
        judge = ModelJudge("openai/gpt-4o-mini", base_url=server.url, batch=True)
        results = dict(judge.judge(map(exhibit, range(30))))
        assert len(results) == 30
        assert all(isinstance(r, Scored) for r in results.values())
        assert server.failing_batches == 0
        assert len(server.uploads) >= 2
        assert server.served == {"good": 30, "malformed": 3}
        assert server.live == 3
    assert capfd.readouterr().out == ""
    gc.collect()  # inspect_ai leaves the streams of its batches unclosed: let them go here


def test_an_abandoned_judge_and_ctrl_c_end_the_process() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_judging_model import MODEL, ModelJudge, exhibit
url = sys.argv[1]
kept = ModelJudge(MODEL, base_url=url).judge(map(exhibit, range(10)))
next(kept)
print("ready", flush=True)
for _ in ModelJudge(MODEL, base_url=url).judge(map(exhibit, range(5, 10))):
    pass
"""
    with FaultServer(lambda mark, _: "good" if mark < "exhibit-0005" else "stall", stall=60) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", program, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert time.monotonic() - begin < 10
    assert "KeyboardInterrupt" in errors
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert loop_thread.alive is False


def test_the_judges_loop_is_closed_though_inspect_ai_replaces_asyncio_run() -> None:
    from inspect_ai._util._async import init_nest_asyncio

    init_nest_asyncio()  # as reading or writing a log does
    with LoopThread().running() as loop:
        assert not loop.is_closed()
    assert loop.is_closed()
