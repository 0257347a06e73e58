import dataclasses

from made_results import GROUPS, MATCHES, activation_tables, discovery, dose_frame

from esr.reporting.results import result_findings, result_tables
from esr.reporting.view import ExperimentView

BARE = ExperimentView("some", "Why?", "forest", {})


def view(**fields):
    return dataclasses.replace(BARE, **fields)


def cells(table):
    assert all(len(row) == len(table.header) for row in table.rows)
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_detectors_have_label_auc_d_rates_and_density():
    found = view(figure="detectors", result=discovery(("a label", "")))
    (table,) = result_tables(found)
    first, second, third = cells(table)
    assert first == {
        "Latent": "a label\nlatent 40",
        "Chosen": "yes",
        "AUC": "0.900\n0.612 to 0.987",
        "AUC, study's prompts": "0.712",
        "Cohen's d": "1.23",
        "Active on mismatched pairs": "87.5 %\nmatched 12.5 %",
        "Density": "1.5 %\nmean 2.5",
    }
    assert second["Latent"] == "no label\nlatent 41"
    assert (third["Chosen"], third["Cohen's d"], third["AUC, study's prompts"]) == ("no", "undefined", "undefined")
    chosen, held_out = result_findings(found)
    assert chosen.startswith("2 latents chosen of 1,234 alive, from 240 matched")
    assert "on 40 pairs of the study's own prompts: AUC 0.801 (0.700 to 0.900)" in held_out


def test_no_detector_has_no_held_out_sentence():
    empty = discovery(("x",)) | {"detectors": [], "table": [], "held_out": None}
    found = view(figure="detectors", result=empty)
    assert len(result_findings(found)) == 1
    assert cells(result_tables(found)[0]) == []


def test_the_quality_of_a_match_is_told():
    found = view(result=MATCHES)
    first, second = cells(result_tables(found)[0])
    assert (first["Set"], first["Density"], first["Activation when active"]) == ("1\nlatents 1, 2", "−0.25", "+0.50")
    assert (second["Mean distance"], second["Largest distance"], second["Latents in another set"]) == (
        "0.40", "0.90", "1",
    )  # fmt: skip
    near = view(result=[MATCHES[0] | {"density_difference": -0.001}])
    assert cells(result_tables(near)[0])[0]["Density"] == "+0.00"
    (said,) = result_findings(found)
    assert "log density −0.25 to +0.12 sd" in said
    assert "−0.06 to +0.50 sd" in said


def test_activations_have_the_analyses_numbers():
    tables = activation_tables()
    found = view(figure="courses", result=GROUPS, activations=tables)
    compared, groups, latents = result_tables(found)
    rows = tables.comparisons[tables.comparisons["unit"].eq("group")]
    assert len(compared.rows) == len(rows)
    first = rows.iloc[0]
    assert cells(compared)[0]["Group"] == f"{first['name']}\n{first['comparison']}, {first['region']}"
    assert cells(compared)[0]["Difference"].startswith(f"{first['difference']:+.3g}".replace("-", "−"))
    assert len(groups.rows) == 2 * 4 * 3
    assert [row[0] for row in latents.rows] == ["5\ndetectors", "7\ndetectors", "11\nbacktracking"]
    means = tables.regions.set_index(["unit", "name", "kind", "region"])["mean"]
    assert cells(latents)[2]["episode, correction"].startswith(
        f"{means['latent', '11', 'episode', 'correction']:.3g}\n"
    )
    assert len(result_findings(found)) == 2  # a sentence per group


def test_a_dose_response_has_its_counts():
    before, tuned = cells(result_tables(view(figure="dose", dose=dose_frame()))[0])
    assert (before["Share of self-correction"], tuned["Share of self-correction"]) == ("before", "50 %")
    assert tuned["ESR"] == "20.0 %\n10.0 to 30.0, 10 of 50"
    assert (before["Multi-attempt − before"], tuned["Multi-attempt − before"]) == ("", "+7.0 pp\n+7.0 to +7.0, p 0.070")
    assert tuned["Counts"] == "50 trials\n10 directions, 1 unscored, 2 degraded"


def test_a_result_of_another_form_is_left_alone():
    for result in (None, [], [1, 2], {"anything": [1]}, "text"):
        assert result_tables(view(result=result)) == result_findings(view(result=result)) == []
