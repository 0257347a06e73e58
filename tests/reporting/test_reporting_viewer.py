"""What the page carries for its viewer, read back in Python as the browser reads it."""

import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from activation_readings import LATENTS, activations, random_readings, reading

import esr
from esr.errors import UserError
from esr.reporting.viewer import Inline, TokenReadings, Viewer
from esr.reporting.viewer.blocks import Utf16, bounds, json_bytes
from esr.reporting.viewer.readings import STEPS


def unpacked(elements):
    """Id -> bytes of each element."""
    found = re.findall(
        r'<script type="application/octet-stream" id="([a-z0-9-]+)">([A-Za-z0-9+/=]*)</script>\n', elements
    )
    return {name: zlib.decompress(base64.b64decode(data)) for name, data in found}


def index_of(viewer):
    return json.loads(unpacked("".join(viewer.index()))["esr-index"])


def records_of(viewer):
    blocks = unpacked("".join(viewer.blocks()))
    names = sorted((n for n in blocks if n.startswith("esr-texts")), key=lambda n: int(n.rpartition("-")[2]))
    return [record for name in names for record in json.loads(blocks[name])]


def utf16(text):
    return text.encode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("text", ["plain", "é漢字", "a🙂b🙂🙂c", "lone \ud800 and \udfff 🙂", ""])
def test_offsets_are_those_of_javascript(text):
    offset = Utf16(text)
    assert [offset(i) for i in range(len(text) + 1)] == [len(utf16(text[:i])) // 2 for i in range(len(text) + 1)]


def test_blocks_are_closed_when_full_and_lose_nothing():
    assert bounds([3, 3, 3, 9, 1], block=5) == [0, 2, 4]
    assert bounds([], block=5) == [0]
    assert bounds([100], block=5) == [0]


def test_json_keeps_lone_surrogates_and_refuses_nan():
    for value in (["é", "🙂"], ["\ud800", "é"]):
        assert json.loads(json_bytes(value)) == value
    with pytest.raises(ValueError, match="Out of range"):
        json_bytes(float("nan"))


def test_every_trial_comes_back_with_its_attempts(make_view, hostile):
    """Attempts cut the response, in units of UTF-16, where the judge's offsets cut it in characters."""
    trials = make_view(("🙂 some words", *hostile[:-1])).trials
    viewer = Viewer(trials)
    index, records = index_of(viewer), records_of(viewer)
    assert sorted(index["trials"]["key"]) == sorted(trials["trial"])
    rows, label = trials.set_index("trial"), trials.groupby("direction")["label"].last()
    for i, key in enumerate(index["trials"]["key"]):
        row, columns = rows.loc[key], {name: values[i] for name, values in index["trials"].items()}
        assert index["conditions"][columns["condition"]] == row["condition"]
        assert index["directions"][columns["direction"]][:2] == [row["direction"], label[row["direction"]]]
        assert index["prompts"][columns["prompt"]] == [row["prompt_index"], row["prompt"]]
        assert columns["seed"] == str(row["seed"])
        assert columns["first"] == (None if np.isnan(row["first_score"]) else row["first_score"])
        assert columns["change"] == (None if np.isnan(row["improvement"]) else row["improvement"])
        assert (index["reasons"][columns["reason"]] if columns["reason"] >= 0 else "") == row["reason"]
        assert bool(columns["flags"] >> index["flags"].index("degraded") & 1) == row["degraded"]
        text, given, judged_from, _, thirds, attempts = records[i]
        assert (text, given, judged_from, thirds) == (row["text"], 0, 0, row["segments"])
        cut = [utf16(text)[2 * start : 2 * end] for start, end, *_ in attempts]
        assert cut == [utf16(row["text"][a.start : a.end]) for a in row["attempts"]]
        for (start, _, score, kind, quote), attempt in zip(attempts, row["attempts"], strict=True):
            assert (score, kind) == (attempt.score, attempt.kind)
            assert isinstance(quote, int)
            assert utf16(text)[2 * start : 2 * (start + quote)] == utf16(attempt.quote)


def test_partners_share_a_cell_and_the_control_is_known(make_view):
    trials = make_view().trials
    index = index_of(Viewer(trials, {"incidence": "no-steering"}))
    assert index["controls"][index["conditions"].index("incidence")] == index["conditions"].index("no-steering")
    assert index["controls"][index["conditions"].index("no-steering")] == -1
    cells = pd.Series(index["trials"]["cell"], index=index["trials"]["key"])
    keys = trials.groupby(["direction", "prompt_index", "seed"])["trial"].agg(list)
    assert all(cells[some].nunique() == 1 for some in keys)
    assert cells.nunique() == len(keys)


def test_what_the_judge_did_not_see_stands_before_the_text(make_view):
    trials = make_view().trials.head(2).copy()
    trials["prefix"], trials["judged_from"] = ["🙂 given ", trials["text"].iloc[1][:5]], [8, 0]
    trials["source"] = ["other", "other"]
    records = dict(zip(index_of(Viewer(trials))["trials"]["key"], records_of(Viewer(trials)), strict=True))
    hidden, seen = (records[key] for key in trials["trial"])
    assert hidden[0] == "🙂 given " + trials["text"].iloc[0]
    assert hidden[1:4] == [9, 9, "other"]
    assert hidden[5][0][0] == 9
    assert seen[0] == trials["text"].iloc[1]
    assert seen[1:3] == [5, 0]


def test_a_quote_that_is_elsewhere_is_sent_in_words(make_view):
    trials = make_view().trials.head(1).copy()
    trials["text"] = "other words altogether"
    (record,) = records_of(Viewer(trials))
    assert record[5][0][4] == trials["attempts"].iloc[0][0].quote


def test_the_order_of_the_rows_does_not_matter(make_view):
    trials = make_view().trials
    pages = [
        "".join([*v.index(), *v.blocks()]) for v in (Viewer(trials), Viewer(trials.sample(frac=1, random_state=1)))
    ]
    assert pages[0] == pages[1]


def test_too_many_trials_leave_out_whole_cells(make_view):
    trials = make_view().trials
    index = index_of(Viewer(trials, most=50))
    assert index["of"] == len(trials)
    shown = trials[trials["trial"].isin(index["trials"]["key"])]
    assert 40 < len(shown) <= 50
    assert set(shown.groupby(["direction", "prompt_index", "seed"]).size()) == {2}
    again = index_of(Viewer(trials.sample(frac=1, random_state=2), most=50))
    assert again == index


def test_readings_come_back_within_their_step(make_view):
    trials = make_view().trials.copy()
    read = random_readings(directions=3, per=2)
    trials.loc[trials.index[: len(read)], "trial"] = [r.trial for r in read]
    trials.loc[trials.index[: len(read)], "text"] = "🙂" + "x" * 40
    ends = {r.trial: list(range(1, len(r.values) + 1)) for r in read}
    viewer = Viewer(trials, readings=TokenReadings(activations(read), ends, {LATENTS[0]: "five"}))
    index, blocks = index_of(viewer), unpacked("".join(viewer.blocks()))
    found = index["readings"]
    assert found["latents"] == [[5, "five"], [7, ""], [11, ""]]
    assert len(found["of"]) == len(read)
    data = np.frombuffer(b"".join(blocks[f"esr-readings-{i}"] for i in range(len(found["starts"]))), "<u2")
    by_key, maxima, offset = {r.trial: r for r in read}, np.array(found["maxima"]), 0
    for place, kind, restart, spoken, end, steps in found["of"]:
        one = by_key[index["trials"]["key"][place]]
        values = data[offset : offset + one.values.size].reshape(len(LATENTS), -1).T / STEPS * maxima
        offset += one.values.size
        np.testing.assert_allclose(values, one.values, atol=maxima.max() / (2 * STEPS) * 1.01)
        assert (found["kinds"][kind], restart, spoken, end) == (one.kind, one.restart, one.correction_end, one.end)
        assert np.cumsum(steps).tolist() == [i + 1 for i in ends[one.trial]]  # 🙂 is two units
    tops = {name: top for name, _, top in found["groups"]}
    assert tops["backtracking"] == pytest.approx(max(r.values[:, 2].max() for r in read))
    assert tops["detectors"] == pytest.approx(max(r.values[:, :2].mean(axis=1).max() for r in read))


def test_a_reading_needs_an_end_for_every_token(make_view):
    trials = make_view().trials.copy()
    trials.loc[trials.index[0], "trial"] = "e"
    given = TokenReadings(activations([reading(np.ones((4, 3)))]), {"e": [1, 2, 3]})
    with pytest.raises(UserError, match=r"every token of a reading has its end.*3 for 4"):
        Viewer(trials, readings=given)


def test_the_policy_names_the_hash_of_every_style_and_script():
    page = Inline(styles=("a{}", "b{}"), scripts=("f()",))
    for text in ("a{}", "b{}", "f()"):
        assert "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in page.policy
    assert "unsafe" not in page.policy
    assert str(page.script_elements) == "<script>f()</script>"
    for bad in ("</script>", "<!--", "</STYLE", "\r"):
        with pytest.raises(ValueError, match="end tag"):
            Inline(styles=(), scripts=(bad,))


def test_the_tokens_of_a_real_study_end_where_its_text_does(organism_study):
    """Every token's stretch of the text is what the tokenizer has for it, special tokens aside."""
    study = esr.open(organism_study)
    trials = study.trials.drop_duplicates("trial").set_index("trial")
    read = {r.trial: r for r in study.activations.readings}
    assert study.token_ends.keys() == read.keys()
    for key, ends in study.token_ends.items():
        assert len(ends) == len(read[key].values)
        assert ends == sorted(ends)
        assert ends[-1] == len(trials.loc[key, "text"])
    assert all(study.result("activations")["labels"])
