import dataclasses

import pytest

from esr.analysis.metrics import summarise
from esr.analysis.paired import compare_pairs
from esr.reporting import compact
from esr.reporting.headline import contrasts
from esr.reporting.view import ExperimentView


@pytest.fixture
def trials(make_view):
    return make_view().trials


def experiment(trials, controls, key="some"):
    measured = set(trials["condition"])
    pairs = [pair for pair in controls.items() if set(pair) <= measured]
    table = compare_pairs(trials, pairs, draws=100) if pairs else None
    view = ExperimentView(key, "Why?", "forest", controls)
    return view if table is None else dataclasses.replace(view, comparisons=table)


def test_rows_keep_the_experiments_order_and_carry_its_difference(trials):
    summary = summarise(trials, draws=100)
    view = experiment(trials, {"no-steering": "incidence", "not measured": "incidence", "incidence": None})
    rows = compact.rows(summary, view)
    assert [row.headline.condition for row in rows] == ["no-steering", "incidence"]
    table = view.comparisons.set_index("statistic").loc["esr_rate"]
    assert rows[0].esr.difference.value == f"{100 * table['difference']:+.1f} pp".replace("-", "−")
    assert (rows[0].esr.control, rows[1].esr) == ("incidence", None)


def test_without_an_experiment_all_conditions_are_rows(trials):
    rows = compact.rows(summarise(trials, draws=50))
    assert [row.headline.condition for row in rows] == ["incidence", "no-steering"]
    assert all(row.esr is None for row in rows)


def test_what_is_compared_is_said_once_when_it_is_the_same_for_all(trials):
    summary = summarise(trials, draws=50)

    def said(controls):
        view = experiment(trials, controls)
        return compact.against(view, compact.rows(summary, view))

    assert said({"no-steering": "incidence"}) == "Each is compared with incidence."
    assert said({"no-steering": "incidence", "incidence": None}) == "Compared: no-steering with incidence."
    assert said({"no-steering": "absent"}) == "Not compared, for it has not been measured: absent."
    assert said({"incidence": None}) == ""


def test_every_unscored_response_is_in_a_note_and_undefined_values_say_why(trials):
    rows = compact.rows(summarise(trials, draws=100))
    notes = compact.notes(rows)
    unscored = int(trials["state"].eq("unscored").sum())
    assert f"Unscored responses (plain words {unscored}) are in no denominator." in notes
    assert "Undefined in no-steering: no multi-attempt responses." in notes
    assert "Up to 1 of 14 directions promote restart words themselves." in notes
    assert compact.notes([]) == []


def test_a_mark_says_where_directions_count_as_trials(trials):
    rows = compact.rows(summarise(trials, draws=100))
    marked = [row.headline.condition for row in rows for _, mark in row.cells if mark]
    assert "no-steering" in marked  # no event at all there
    assert any(note.startswith(compact.MARK) for note in compact.notes(rows))
    assert not any(note.startswith(compact.MARK) for note in compact.notes([]))


def test_conditions_without_shared_trials_are_named(trials):
    apart = trials.assign(seed=trials["seed"] + trials["condition"].eq("no-steering") * 1000)
    view = experiment(apart, {"no-steering": "incidence"})
    notes = compact.notes(compact.rows(summarise(apart, draws=50), view))
    assert "No trials shared with the control, so compared by direction, not in pairs: no-steering." in notes


def test_many_names_are_cut():
    assert compact._some(["a", "b"]) == "a, b"
    assert compact._some(list("abcdef")) == "a, b, c and 3 more"


def test_every_measured_condition_is_in_the_headline_or_in_an_experiment():
    conditions = {"incidence": ["incidence"], "no-steering": ["no-steering"], "sweep": ["x1", "x2"]}
    assert compact.headline_names(conditions, ["x1", "no-steering", "imported"]) == ["imported", "no-steering"]
    assert compact.headline_names({"sweep": ["x1"]}, ["x1"]) == []
    assert compact.headline_names({}, ["b", "a"]) == ["a", "b"]


def test_a_difference_in_one_line(trials):
    (contrast,) = [
        c for c in contrasts(experiment(trials, {"no-steering": "incidence"}).comparisons) if c.statistic == "ESR rate"
    ]
    said = compact.in_words(contrast)
    assert said.startswith(f"no-steering − incidence, ESR rate: {contrast.difference.value} (")
    assert said.endswith(f"p {contrast.p_holm} (Holm).")
