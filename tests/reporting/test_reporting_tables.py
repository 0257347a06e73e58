import dataclasses
import io

import pandas as pd
import pytest
from rich.console import Console

from esr.analysis.metrics import summarise
from esr.analysis.paired import compare_all
from esr.reporting import compact
from esr.reporting.headline import contrasts, grouped_notes, headlines
from esr.reporting.tables import WIDTH, compact_table, headline_table, paired_table
from esr.reporting.view import ExperimentView


def shown(table, width=WIDTH, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(table)
    return console.file.getvalue()


@pytest.fixture
def trials(make_view):
    return make_view().trials


def test_headline_shows_rates_intervals_counts_and_footnotes(trials):
    summary = summarise(trials, draws=200)
    text = shown(headline_table(summary))
    row = summary.set_index("condition").loc["incidence"]
    assert f"{100 * row['esr_rate']:.1f} %" in text
    assert f"{100 * row['esr_rate_low']:.1f} to {100 * row['esr_rate_high']:.1f}" in text
    assert f"{row['esr_rate_numerator']} of {row['esr_rate_denominator']}" in text
    assert f"{row['n_unscored']} unscored" in text
    assert f"{row['n_degraded']} degraded" in text
    assert "no-steering: no multi-attempt responses, so no improvement rate and no mean score improvement." in text
    assert "takes every direction as one trial" in " ".join(text.split())


def test_compact_shows_two_lines_per_condition_with_every_count(trials):
    view = ExperimentView("some", "Why?", "forest", {"no-steering": "incidence"})
    view = dataclasses.replace(view, comparisons=compare_all(trials, "incidence", draws=200))
    summary = summarise(trials, draws=200)
    rows = compact.rows(summary, view)
    text = shown(compact_table("some: Why?", rows, ["A remark."]))
    row = summary.set_index("condition").loc["no-steering"]
    first = next(line for line in text.splitlines() if line.strip().startswith("no-steering"))
    second = text.splitlines()[text.splitlines().index(first) + 1]
    difference = rows[0].esr.difference
    assert first.split()[1:] == [
        "0.0", "0.0", "undefined", f"{row['mean_first_score']:.1f}", *difference.value.split(), rows[0].esr.p_holm,
        str(row["n_trials"]), str(row["n_unscored"]),
    ]  # fmt: skip
    assert f"{row['mean_first_score_low']:.1f}–{row['mean_first_score_high']:.1f}" in second
    assert difference.interval in second
    assert second.split()[-2:] == [str(row["n_directions"]), str(row["n_degraded"])]
    assert "A remark." in text
    assert "some: Why?" in text


def test_compact_leaves_out_what_was_not_compared_and_counts_the_restarts(trials):
    summary = summarise(trials, draws=200)
    text = shown(compact_table("All", compact.rows(summary)))
    assert "control" not in text
    assert "Holm" not in text
    row = summary.set_index("condition").loc["incidence"]
    assert f"{100 * row['improvement_rate']:.1f} of {row['improvement_rate_denominator']}" in text


def test_paired_shows_difference_ratio_p_and_pairs(trials):
    paired = compare_all(trials, "no-steering", draws=200)
    text = shown(paired_table(paired))
    row = paired.set_index("statistic").loc["mean_first_score"]
    assert f"{row['ratio']:.2f} ×" in text
    assert f"{row['n_pairs']} pairs over {row['n_directions']} directions" in text
    assert "undefined" in text


def test_hostile_names_fit_the_width_and_are_not_markup(trials, hostile):
    names = [name for name in hostile if "\ud800" not in name]  # no key of a study holds a surrogate
    steered = trials[trials["condition"] == "incidence"]
    arms = [
        steered.assign(condition=name, reason=name, trial=steered["trial"] + str(i)) for i, name in enumerate(names)
    ]
    study = pd.concat([trials, *arms])
    summary, paired = summarise(study, draws=20), compare_all(study, "no-steering", draws=20)
    view = ExperimentView("some", "Why?", "forest", dict.fromkeys(names, "no-steering"), paired)
    rows = compact.rows(summary, view)
    assert len(rows) == len(names)
    for table in (
        headline_table(summary),
        paired_table(paired),
        compact_table(names[0], rows, [compact.against(view, rows)]),
        compact_table(names[0], rows * 3),
    ):
        plain = shown(table)
        assert max(len(line) for line in plain.splitlines()) <= WIDTH
        assert not set(plain) & set("\x1b\x07\r\x00\x9b\u202e\u200b\u2028")
        assert "[bold red]" in plain
        coloured = shown(table, force_terminal=True, color_system="truecolor")
        assert "\x1b]" not in coloured  # rich writes its own styles, but no link and no title of the text's


def test_intervals_of_independent_trials_are_named_in_the_order_of_the_note_before(trials):
    (row,) = [h for h in headlines(summarise(trials, draws=50)) if h.condition == "no-steering"]
    takes = next(note for note in row.footnotes if "takes every direction as one trial" in note)
    both = [takes.index("Multi-attempt rate"), takes.index("ESR rate")]
    said = grouped_notes([row])[-1]
    assert said.startswith("With all trials independent these intervals would be: no-steering: Multi-attempt rate")
    assert (both == sorted(both)) == (said.index("Multi-attempt rate") < said.index("ESR rate"))
    for key in ("multi_attempt_rate", "esr_rate"):
        assert row.wilson[key] in said
    other = dataclasses.replace(row, wilson=row.wilson | {"esr_rate": "0.0 to 99.0"})
    assert f"Multi-attempt rate {row.wilson['multi_attempt_rate']}, ESR rate 0.0 to 99.0" in grouped_notes([other])[-1]


def test_a_difference_that_cannot_be_tested_says_so(trials):
    few = trials[~(trials["condition"].eq("incidence") & trials["multi_attempt"] & trials["prompt_index"].gt(0))]
    steered = few[few["condition"].eq("incidence")]
    other = trials[trials["condition"].eq("incidence")].assign(condition="other", trial="o" + trials["trial"])
    both = pd.concat([steered, other])
    (row,) = [c for c in contrasts(compare_all(both, "incidence", draws=50)) if c.statistic == "Improvement rate"]
    assert (row.p, row.p_holm) == ("not tested", "not tested")
    assert "cannot be tested: fewer than 10 multi-attempt responses" in row.note
