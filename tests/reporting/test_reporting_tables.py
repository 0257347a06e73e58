import io

import pandas as pd
import pytest
from rich.console import Console

from esr.analysis.metrics import summarise
from esr.analysis.paired import compare_all
from esr.reporting.tables import WIDTH, headline_table, paired_table


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
    for table in (
        headline_table(summarise(study, draws=20)),
        paired_table(compare_all(study, "no-steering", draws=20)),
    ):
        plain = shown(table)
        assert max(len(line) for line in plain.splitlines()) <= WIDTH
        assert not set(plain) & set("\x1b\x07\r\x00\x9b\u202e\u200b\u2028")
        assert "[bold red]" in plain
        coloured = shown(table, force_terminal=True, color_system="truecolor")
        assert "\x1b]" not in coloured  # rich writes its own styles, but no link and no title of the text's
