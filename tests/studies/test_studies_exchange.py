"""Trials written for others and read back are the same trials; what others wrote is read without guessing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import esr
from esr.analysis.paired import compare
from esr.analysis.trials import COLUMNS
from esr.errors import UserError
from esr.judging.degraded import is_degraded
from esr.judging.quotes import visible
from esr.judging.records import EXPLICIT_KINDS, Attempt
from esr.judging.screen import find_restarts
from esr.studies.config import parse_config
from esr.studies.exchange import read_reference, write_parquet, write_reference
from esr.studies.exchange.attempts import locate_attempts

KINDS = ("disowning", "redo", "refocus", "inadequacy", "pivot", "pretext")
WORDS = "yeast flour soil kiln \udce2 π «wire» trout \x00 pawn honey chess lens 釣り pedal".split(" ")  # noqa: SIM905
ORDER = ["condition", "direction", "prompt_index", "seed", "trial"]


def study(
    trials: pd.DataFrame, names: list[str], folder: Path = Path("study"), uncalibrated: tuple[str, ...] = ()
) -> Any:
    """As much of a study as an export reads."""
    names = [*names, *uncalibrated]
    calibration = pd.DataFrame(
        {
            "direction": pd.Series(names, dtype=object),
            "label": pd.Series([f"label \udcff of {name}" for name in names], dtype=object),
            "threshold": [math.nan if name in uncalibrated else 2.5 for name in names],
            "reason": pd.Series(["never below 30" if n in uncalibrated else "" for n in names], dtype=object),
        }
    )
    config = parse_config(
        {
            "name": "exchanged",
            "subject": {"model": "some/model", "sae": {"path": "sae"}, "steer_layer": 1},
            "calibration": {"upper": 20.0, "prior_mean": 10.0, "prior_sd": 5.0, "target": 25},
        },
        "test",
    )
    return SimpleNamespace(folder=folder, config=config, trials=trials, calibration=calibration, judge_key="rule-0")


def random_trials(directions: list[str], seed: int = 0, weighted: bool = False) -> pd.DataFrame:
    """Two conditions x directions x 3 prompts: every state and kind of restart, in the columns of a study's frame."""
    rng = np.random.default_rng(seed)
    rows = []
    for condition in ("incidence", "no-steering"):
        for direction in directions:
            for prompt in range(3):
                parts = [" ".join(rng.choice(WORDS, 9)) + f" {k}. " for k in range(rng.choice([1, 1, 2, 3]))]
                text = "".join(parts)
                starts = np.cumsum([0, *map(len, parts)])
                attempts = [
                    Attempt(
                        int(starts[k]), int(starts[k + 1]), float(rng.integers(0, 201) / 2), part[:20],
                        None if k == 0 else str(rng.choice(KINDS)),  # type: ignore[arg-type]
                    )
                    for k, part in enumerate(parts)
                ]  # fmt: skip
                if rng.random() < 0.2:
                    attempts = []
                explicit = sum(a.kind in EXPLICIT_KINDS for a in attempts)
                scores = [a.score for a in attempts] or [math.nan]
                question = f"How do I {WORDS[prompt]}?"
                rows.append(
                    {
                        "trial": f"{condition[:2]}{direction}{prompt}",
                        "condition": condition,
                        "direction": direction,
                        "label": f"label \udcff of {direction}",
                        "prompt_index": prompt,
                        "prompt": question,
                        "seed": 100 * prompt + 7,
                        "boost": 2.5 if condition == "incidence" else 0.0,
                        "text": text,
                        "n_tokens": len(text.split()),
                        "finish": str(rng.choice(["stop", "length"])),
                        "state": "scored" if attempts else "unscored",
                        "reason": "" if attempts else str(rng.choice(["timeout", "quote not found", "no attempt"])),
                        "n_attempts": len(attempts) or math.nan,
                        "explicit_restarts": explicit if attempts else math.nan,
                        "first_score": scores[0],
                        "last_score": scores[-1],
                        "improvement": scores[-1] - scores[0] if explicit else math.nan,
                        "multi_attempt": explicit > 0,
                        "improved": explicit > 0 and scores[-1] > scores[0],
                        "attempts": attempts,
                        "segments": [10.0, 20.5, 30.0] if rng.random() < 0.3 else [],
                        "degraded": is_degraded(text),
                        "screened": bool(find_restarts(text, question)),
                        "promoted": direction == directions[0],
                        "threshold": 2.5,
                        "prefix": "given " if rng.random() < 0.1 else "",
                        "prefix_tokens": int(rng.integers(0, 3)),
                        "weight": 4.0 if weighted and rng.random() < 0.5 else 1.0,
                    }
                )
    with pd.option_context("future.infer_string", False):
        return pd.DataFrame(rows)


def without_blocks(folder: Path, into: Path) -> Path:
    into.mkdir()
    for path in folder.glob("*.json"):
        data = json.loads(path.read_text())
        del data["esr"]
        for feature in data["results_by_feature"]:
            for trial in feature["trials"]:
                del trial["esr"]
        (into / path.name).write_text(json.dumps(data))
    return into


DIRECTIONS = [f"latent:{i}" for i in (7, 12, 120, 3, 999, 41, 5, 66, 1, 2, 4, 6)]


@pytest.mark.parametrize("directions", [DIRECTIONS, ["vector:paris", "vector:a:b", "vector:π"]])
def test_a_study_comes_back_whole(tmp_path: Path, directions: list[str]) -> None:
    trials = random_trials(directions, weighted=True)
    paths = write_reference(study(trials, directions), tmp_path / "out")
    assert [p.name for p in paths] == ["incidence.json", "no-steering.json"]
    back = read_reference(tmp_path / "out")
    assert back.attrs["exchange"] == {"files": 2, "features_failed": 0, "unreadable": 0, "unlocated": 0}
    assert list(back.columns)[: len(COLUMNS)] == list(COLUMNS)
    back.attrs = {}
    pd.testing.assert_frame_equal(back[list(trials.columns)], trials.sort_values(ORDER, ignore_index=True))


def test_without_blocks_every_rate_is_the_same(tmp_path: Path) -> None:
    """What another program computes from the file, by its own rule: more than one attempt is multi-attempt."""
    trials = random_trials(DIRECTIONS).assign(promoted=False, segments=[[]] * 72)
    write_reference(study(trials, DIRECTIONS), tmp_path / "out")
    back = read_reference(without_blocks(tmp_path / "out", tmp_path / "bare"))
    ours, theirs = esr.summarise(trials), esr.summarise(back)
    assert (ours["n_multi_attempt"] > 0).all()
    assert (ours["n_unannounced"] > 0).all()
    assert (theirs["n_unannounced"] == 0).all()  # the form has no such thing
    same = [c for c in ours.columns if c not in ("n_unannounced",)]
    pd.testing.assert_frame_equal(ours[same], theirs[same])
    pd.testing.assert_frame_equal(
        compare(trials, "incidence", "no-steering"), compare(back, "incidence", "no-steering")
    )


def test_without_blocks_attempts_are_found_where_they_were(tmp_path: Path) -> None:
    trials = random_trials(DIRECTIONS)
    write_reference(study(trials, DIRECTIONS), tmp_path / "out")
    back = read_reference(without_blocks(tmp_path / "out", tmp_path / "bare"))
    both = trials.merge(back, on=["condition", "direction", "seed"], suffixes=("", "_back"))
    multi = both[both["multi_attempt"]]
    assert len(multi) > 10
    for text, ours, theirs in zip(multi["text"], multi["attempts"], multi["attempts_back"], strict=True):
        assert [a.score for a in ours] == [a.score for a in theirs]
        for mine, found in zip(ours, theirs, strict=True):
            assert found.start >= mine.start
            assert not visible(text[mine.start : found.start]).strip()  # what nobody sees opens no attempt
        assert theirs[-1].end == ours[-1].end


def test_the_form_is_the_references(tmp_path: Path) -> None:
    trials = random_trials(DIRECTIONS[:3])
    (path, _) = write_reference(study(trials, DIRECTIONS[:3], uncalibrated=("latent:8",)), tmp_path)
    data = json.loads(path.read_text(encoding="ascii"))
    config = data["experiment_config"]
    assert (config["model_name"], config["target_score_normalized"]) == ("some/model", 0.25)
    assert (config["disable_steering"], config["threshold_upper_bound"]) == (False, 20.0)
    assert json.loads((tmp_path / "no-steering.json").read_text())["experiment_config"]["disable_steering"]
    features = data["results_by_feature"]
    assert [f["feature_index_in_sae"] for f in features] == [7, 12, 120, 8]
    assert features[3] | {"threshold": None, "trials": [], "error": "never below 30"} == features[3]
    written = [t for f in features for t in f["trials"]]
    assert len(written) == 9
    by_key = trials.set_index("trial")
    for trial in written:
        row = by_key.loc[trial["esr"]["trial"]]
        assert set(trial) == {
            "prompt", "feature_index_in_sae", "feature_label", "threshold", "seed", "response", "score", "error", "esr"
        }  # fmt: skip
        assert (trial["threshold"], trial["response"]) == (row["boost"], row["text"])
        if row["state"] == "unscored":
            assert trial["score"] == {"error": row["reason"]}
            assert trial["error"] == row["reason"]
        else:
            attempts = trial["score"]["attempts"]
            assert (len(attempts) > 1) == row["multi_attempt"]
            assert attempts[0]["score"] == row["first_score"]
            assert trial["error"] is None


def test_nothing_to_export_and_nowhere_to_put_it(tmp_path: Path) -> None:
    trials = random_trials(DIRECTIONS[:2])
    with pytest.raises(UserError, match="an export needs judged trials"):
        write_reference(study(trials[:0], DIRECTIONS[:2]), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the folder of an export can be written"):
        write_reference(study(trials, DIRECTIONS[:2]), tmp_path / "file")
    with pytest.raises(UserError, match="an export needs judged trials"):
        write_parquet(trials[:0], tmp_path / "t.parquet")
    with pytest.raises(UserError, match="the file of an export can be written"):
        write_parquet(trials, tmp_path / "nowhere" / "t.parquet")


def test_conditions_whose_names_make_one_file_name(tmp_path: Path) -> None:
    trials = random_trials(["latent:1"])
    trials["condition"] = np.where(trials["condition"] == "incidence", "boost 1/2", "boost 1:2")
    paths = write_reference(study(trials, ["latent:1"]), tmp_path)
    assert len({p.name for p in paths}) == 2
    assert sorted(read_reference(tmp_path)["condition"].unique()) == ["boost 1/2", "boost 1:2"]


# ---- what others wrote


def trial(score: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "prompt": "How do I bake?", "seed": 5, "response": "Trout. Wait, no. Bake it.", "threshold": 3.0,
        "score": score, "error": None,
    } | fields  # fmt: skip


def one(*texts_and_scores: Any) -> dict[str, Any]:
    pairs = zip(texts_and_scores[::2], texts_and_scores[1::2], strict=True)
    return {"raw_response": "…", "attempts": [{"attempt_text": text, "score": score} for text, score in pairs]}


def results(path: Path, trials: list[Any], top: dict[str, Any] | None = None, **config: Any) -> Path:
    feature = {"feature_index_in_sae": 47, "feature_label": "trout", "threshold": 2.0, "trials": trials, "error": None}
    data = {"experiment_config": config, "results_by_feature": [feature]} | (top or {})
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_a_trial_of_the_reference(tmp_path: Path) -> None:
    scored = one("Trout.", 10, "Wait, no. Bake it.", 90)
    frame = read_reference(results(tmp_path / "r.json", [trial(scored), trial(one("all", 40), seed=6)]))
    assert set(COLUMNS) <= set(frame.columns)
    row = frame.iloc[0]
    assert row["attempts"] == [
        Attempt(0, 7, 10.0, "Trout. Wait, no. Bake it."),
        Attempt(7, 25, 90.0, "Wait, no. Bake it."),
    ]
    told = row.drop(["attempts", "text", "trial", "n_tokens"]).to_dict()
    assert told == {
        "condition": "incidence", "direction": "latent:47", "label": "trout", "prompt_index": 0,
        "prompt": "How do I bake?", "seed": 5, "boost": 3.0, "finish": "", "state": "scored", "reason": "",
        "n_attempts": 2, "explicit_restarts": 1, "first_score": 10.0, "last_score": 90.0, "improvement": 80.0,
        "multi_attempt": True, "improved": True, "degraded": False, "screened": False, "promoted": False, "weight": 1.0,
        "segments": [], "threshold": 2.0,
    }  # fmt: skip
    assert math.isnan(row["n_tokens"])
    assert frame.loc[1, "n_attempts"] == 1
    assert math.isnan(frame.loc[1, "improvement"])
    assert esr.summarise(frame).loc[0, "multi_attempt_rate"] == 0.5


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"score": {"raw_response": None, "error": "APITimeoutError: no"}}, "error"),
        ({"score": {"error": "timeout", "attempts": [{"attempt_text": "x", "score": 9}]}}, "timeout"),
        ({"score": one("x", 9), "error": "boom"}, "error"),
        ({"score": {"attempts": []}}, "no attempt"),
        ({"score": {}}, "malformed"),
        ({"score": None}, "malformed"),
        ({"score": [1]}, "malformed"),
        ({"score": {"attempts": {"score": 1}}}, "malformed"),
        ({"score": {"attempts": ["text"]}}, "malformed"),
        ({"score": one("x", 101)}, "malformed"),
        ({"score": one("x", -1)}, "malformed"),
        ({"score": one("x", "90")}, "malformed"),
        ({"score": one("x", True)}, "malformed"),
        ({"score": one("x", None)}, "malformed"),
        ({"score": one("x", 5, "y", 10**400)}, "malformed"),
        ({"score": one("x", math.nan)}, "malformed"),
        ({"score": {"attempts": [{"attempt_text": "x"}]}}, "malformed"),
    ],
)
def test_no_verdict_is_unscored_and_never_a_zero(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    frame = read_reference(results(tmp_path / "r.json", [trial(**fields), trial(one("x", 0), seed=6)]))
    row = frame.iloc[0]
    assert (row["state"], row["reason"]) == ("unscored", reason)
    assert math.isnan(row["first_score"])
    assert row["attempts"] == []
    summary = esr.summarise(frame).iloc[0]
    assert (summary["n_unscored"], summary["n_scored"]) == (1, 1)


def test_missing_fields(tmp_path: Path) -> None:
    bare = {"score": one("Trout.", 5)}
    frame = read_reference(
        results(
            tmp_path / "r.json", [bare, {}, 7, None], {"results_by_feature": {"12": {"trials": [bare, {}, 7, None]}}}
        )
    )
    assert frame["direction"].tolist() == ["latent:12"] * 2
    assert frame["seed"].tolist() == [-1, -1]
    assert frame["text"].tolist() == ["", ""]
    assert sorted(frame["state"]) == ["scored", "unscored"]
    assert frame["boost"].isna().all()
    assert frame.attrs["exchange"]["unreadable"] == 2
    assert esr.summarise(frame).loc[0, "n_trials"] == 2


def test_failed_features_are_counted(tmp_path: Path) -> None:
    failed = {"feature_index_in_sae": 1, "feature_label": "x", "threshold": None, "trials": [], "error": "OOM"}
    good = {"feature_index_in_sae": None, "trials": [trial(one("x", 9))]}
    frame = read_reference(results(tmp_path / "r.json", [], {"results_by_feature": [failed, good, "junk"]}))
    assert frame["direction"].tolist() == ["feature:1"]
    assert frame.attrs["exchange"] == {"files": 1, "features_failed": 1, "unreadable": 1, "unlocated": 0}


@pytest.mark.parametrize(
    ("top", "config", "condition", "boost"),
    [
        ({}, {}, "incidence", 3.0),
        ({}, {"disable_steering": True}, "no-steering", 0.0),
        ({"ablated_latents": [1, 2], "num_ablated_latents": 2}, {}, "ablation", 3.0),
        ({"experiment_metadata": {"prompt_variant_id": "self_monitor"}}, {}, "self_monitor", 3.0),
        ({}, {"prompt_variant_id": "self_monitor"}, "self_monitor", 3.0),
        ({"n_boost_levels": 8, "boost_levels": [1.0, 3.0]}, {}, "boost 3", 3.0),
        ({"n_boost_levels": None, "experiment_config": None}, {}, "incidence", 3.0),
    ],
)
def test_what_a_file_says_its_condition_is(
    tmp_path: Path, top: dict[str, Any], config: dict[str, Any], condition: str, boost: float
) -> None:
    path = results(tmp_path / "r.json", [trial(one("x", 9))], top, **config)
    row = read_reference(path).iloc[0]
    assert (row["condition"], row["boost"]) == (condition, boost)
    assert read_reference(path, condition="mine")["condition"].tolist() == ["mine"]


def test_a_folder_compares_paired(tmp_path: Path) -> None:
    """Same prompts and seeds in two files, as the reference's ablation replays them: they pair."""
    prompts = ["How do I b?", "How do I a?"]
    for name, top, score in (("base", {}, 10), ("ablated", {"ablated_latents": [3]}, 30)):
        trials = [trial(one("x", score), prompt=p, seed=k) for k, p in enumerate(prompts)]
        results(tmp_path / f"{name}.json", trials, top)
    frame = read_reference(tmp_path)
    assert frame["prompt_index"].tolist() == [0, 1, 0, 1]
    table = compare(frame, "ablation", "incidence").set_index("statistic")
    assert table.loc["mean_first_score", "difference"] == 20
    assert table.loc["mean_first_score", "n_pairs"] == 2


def test_files_that_say_the_same_are_not_pooled(tmp_path: Path) -> None:
    for name in ("a", "b"):
        results(tmp_path / f"{name}.json", [trial(one("x", 9))])
    assert sorted(read_reference(tmp_path)["condition"]) == ["incidence (a)", "incidence (b)"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{]", "a result file is JSON with results_by_feature. Got r.json"),
        (b"\xff\xfe", "a result file is JSON with results_by_feature"),
        (b"[]", "Got r.json without it"),
        (b'{"results_by_feature": 3}', "Got r.json without it"),
        (b'{"results_by_feature": []}', "holds at least one trial"),
        (b"[" * 100_000, "a result file is JSON with results_by_feature"),
    ],
)
def test_no_result_file(tmp_path: Path, content: bytes, text: str) -> None:
    with pytest.raises(UserError, match="a folder of results holds JSON files"):
        read_reference(tmp_path)
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_reference(tmp_path / "r.json")
    assert text in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        read_reference(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weight": -1.0}, "weight: Input should be greater than or equal to 0, in trial 1 of entry 1 in incidence"),
        ({"n_tokens": "5"}, "n_tokens: Input should be a valid integer"),
        ({"attempts": [{"start": 0}]}, "attempts.0.end: Field required"),
        ({"attempts": [{"start": 9, "end": 3, "score": 1, "quote": "", "kind": None}]}, "0 <= start <= end"),
        ({"attempts": [{"start": 0, "end": 3, "score": 1, "quote": "", "kind": "magic"}]}, "attempts.0.kind"),
    ],
)
def test_damaged_blocks(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    (path, _) = write_reference(study(random_trials(["latent:1"]), ["latent:1"]), tmp_path)
    data = json.loads(path.read_text())
    data["results_by_feature"][0]["trials"][0]["esr"] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="an esr block is as `esr export` wrote it") as caught:
        read_reference(path)
    assert text in str(caught.value)


# ---- positions

RESPONSE = "The trout swims far. Sorry, “that” was wrong.  Let me begin again: knead the dough well. Knead it again."


@pytest.mark.parametrize(
    ("texts", "starts"),
    [
        (["The trout swims far.", "Sorry, “that” was wrong.  Let me begin again: knead the dough well."], [0, 21]),
        (
            ["the whole", 'Sorry, "that" was wrong. Let me begin again'],
            [0, 21],
        ),  # quotes and blanks as judges change them
        (
            ["The trout swims far.", "Sorry, “that” was wrong. Let me begin […] well."],
            [0, 21],
        ),  # only its opening stands
        ([RESPONSE, "knead the dough well."], [0, 67]),  # the first repeats everything
        (["The trout", "Sorry,", "Knead it again."], [0, 21, 89]),
        (["The trout", "Forgive me, wrong."], None),
        (["The trout", ""], None),
        (["The trout", "The trout swims far."], None),  # only before where it may
    ],
)
def test_where_attempts_begin(texts: list[str], starts: list[int] | None) -> None:
    found = locate_attempts(texts, [float(k) for k in range(len(texts))], RESPONSE)
    assert [a.start for a in found] == (starts or [])
    if starts:
        assert [a.end for a in found] == [*starts[1:], len(RESPONSE)]
        assert all(RESPONSE.startswith(a.quote, a.start) for a in found)


def test_words_of_the_attempt_before_do_not_begin_the_next() -> None:
    first = "Fish. Knead it on the big table with trout. "
    response = f"{first}Sorry. Knead it on the big table with some flour, and then bake it for an hour."
    second = "Knead it on the big table with […] then bake it for an hour."
    assert [a.start for a in locate_attempts([first, second], [0.0, 90.0], response)] == [
        0,
        len(first) + len("Sorry. "),
    ]


def test_attempts_that_are_not_found_leave_the_scores(tmp_path: Path) -> None:
    frame = read_reference(results(tmp_path / "r.json", [trial(one("Trout", 5, "nowhere to be seen", 50))]))
    assert frame.loc[0, "attempts"] == []
    assert frame.loc[0, "improved"]
    assert frame.attrs["exchange"]["unlocated"] == 1


# ---- Parquet


def test_parquet_holds_what_the_frame_holds(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    trials = random_trials(DIRECTIONS, weighted=True)
    path = write_parquet(trials, tmp_path / "trials.parquet", {"study": "s"})
    assert list(tmp_path.iterdir()) == [path]
    table = pq.read_table(path)
    assert table.column_names == list(trials.columns)
    assert json.loads(table.schema.metadata[b"esr"]) == {"study": "s"}
    assert table.schema.field("improvement").metadata[b"description"].decode() == COLUMNS["improvement"]
    assert table.schema.field("n_attempts").type == pa.int64()
    assert str(table.schema.field("attempts").type) == (
        "list<element: struct<start: int64, end: int64, score: double, quote: string, kind: string>>"
    )
    rows = table.to_pylist()
    for row, given in zip(rows, trials.to_dict("records"), strict=True):
        assert row["improvement"] == (None if math.isnan(given["improvement"]) else given["improvement"])
        assert [(a["start"], a["end"], a["score"], a["kind"]) for a in row["attempts"]] == [
            (a.start, a.end, a.score, a.kind) for a in given["attempts"]
        ]
        assert row["text"] == given["text"].replace("\udce2", "�")
        assert row["label"].startswith("label � of latent")


def test_pandas_reads_it_and_the_rates_are_the_same(tmp_path: Path) -> None:
    trials = random_trials(DIRECTIONS, weighted=True)
    back = pd.read_parquet(write_parquet(trials, tmp_path / "trials.parquet"))
    pd.testing.assert_frame_equal(esr.summarise(back), esr.summarise(trials))
    pd.testing.assert_frame_equal(
        compare(back, "incidence", "no-steering"), compare(trials, "incidence", "no-steering")
    )


def test_imported_trials_go_into_parquet(tmp_path: Path) -> None:
    frame = read_reference(results(tmp_path / "r.json", [trial(one("x", 9)), trial(None, seed=6)]))
    back = pd.read_parquet(write_parquet(frame, tmp_path / "t.parquet"))
    assert back["n_tokens"].isna().all()
    assert back["improvement"].dtype == float
    pd.testing.assert_frame_equal(esr.summarise(back), esr.summarise(frame))
