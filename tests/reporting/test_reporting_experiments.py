from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_results import MATCHES, activation_tables, discovery, dose_frame

from esr.analysis.metrics import summarise
from esr.analysis.paired import compare_pairs
from esr.errors import UserError
from esr.reporting import figures
from esr.reporting.experiments import drawn, figure, in_order, levels
from esr.reporting.view import ExperimentView


class MadeStudy:
    """As much of a study as a figure reads."""

    folder = Path("nowhere")
    config = SimpleNamespace(seed=0)
    calibration = pd.DataFrame({"direction": [f"latent:{d}" for d in range(14)], "threshold": np.arange(14) + 2.0})

    def __init__(self, trials, **experiments):
        self.trials, self.ran, self.results = trials, experiments, {"random-ablation": MATCHES}

    @property
    def experiments(self):
        kind = {"sweep": "sweep", "search": "detectors", "nothing": "none"}
        return {
            key: SimpleNamespace(question="?", figure=kind.get(key, "forest"), controls=controls)
            for key, controls in self.ran.items()
        }

    def comparisons(self, key, trials):
        pairs = [(name, control) for name, control in self.ran[key].items() if control]
        return compare_pairs(trials, pairs, draws=50) if pairs else pd.DataFrame()

    def result(self, key):
        if key not in self.results:
            raise UserError("the experiment has run", key)
        return self.results[key]


@pytest.fixture
def swept(make_view):
    """Trials at 0.5, 1 and 2 times the threshold, and at 1 sd above the mean threshold and at 0."""
    trials = make_view().trials
    steered = trials[trials["condition"].eq("incidence")]
    own = steered["direction"].map(MadeStudy.calibration.set_index("direction")["threshold"])
    thresholds = MadeStudy.calibration["threshold"]
    boosts = {"a": 0.5 * own, "b": own, "c": 2 * own, "up": thresholds.mean() + thresholds.std(ddof=0)}
    arms = [steered.assign(condition=name, trial=name + steered["trial"], boost=b) for name, b in boosts.items()]
    off = trials[trials["condition"].eq("no-steering")].assign(boost=0.0)
    return pd.concat([*arms, off], ignore_index=True)


def test_levels_are_read_from_the_boosts(swept):
    found = levels(swept, MadeStudy.calibration).set_index("condition")
    assert found["by"].to_dict() == dict.fromkeys(("a", "b", "c", "no-steering"), "factor") | {"up": "level"}
    assert found["x"].to_dict() == pytest.approx({"a": 0.5, "b": 1, "c": 2, "no-steering": 0, "up": 1})


def test_a_condition_of_mixed_boosts_has_no_level(swept):
    mixed = swept[swept["condition"].eq("a")].copy()
    mixed.loc[mixed.index[:5], "boost"] = 99.0
    assert levels(mixed, MadeStudy.calibration).empty
    assert levels(swept.head(0), MadeStudy.calibration).empty


def test_one_direction_alone_has_factors(swept):
    alone = swept[swept["direction"].eq("latent:3")]
    found = levels(alone, MadeStudy.calibration[MadeStudy.calibration["direction"].eq("latent:3")])
    assert set(found["by"]) == {"factor"}


def test_conditions_stand_in_the_experiments_order(swept):
    summary = summarise(swept, draws=20)
    view = ExperimentView("sweep", "?", "sweep", dict.fromkeys(["c", "gone", "a"]))
    assert list(in_order(view, summary)["condition"]) == ["c", "a"]
    assert in_order(view, pd.DataFrame()).empty


def test_each_kind_has_its_figures(swept):
    summary, boosts = summarise(swept, draws=20), levels(swept, MadeStudy.calibration)
    conditions = {"a": None, "b": None}

    def count(kind, **fields):
        view = ExperimentView("x", "?", kind, **({"controls": {}} | fields))
        return len(drawn(view, summary, boosts))

    assert count("forest", controls=conditions) == count("sweep", controls=conditions) == 1
    assert count("none", controls=conditions) == count("forest") == count("sweep") == 0
    assert count("detectors", result=discovery(("x",))) == 1
    assert count("detectors", result=None) == count("detectors", result=[1]) == 0
    assert count("detectors", result=discovery(("x",)), controls=conditions) == 2
    assert count("courses", activations=activation_tables()) == 3
    assert count("dose", dose=dose_frame()) == 1
    (drawing,) = drawn(ExperimentView("x", "?", "forest", conditions), summary, boosts)
    assert drawing.caption.startswith("Rates per condition")
    assert figures.png(drawing.draw(width=figures.NARROW, theme=figures.DARK), 40).startswith(b"\x89PNG")


def test_a_studys_figure_is_its_experiments(swept):
    study = MadeStudy(swept, sweep={"a": None, "b": None, "up": None}, compared={"a": "b"})
    assert len(figure(study, "sweep").axes) == 6
    assert len(figure(study, "compared").axes) == 2
    assert figure(study, "compared", width=figures.NARROW).get_size_inches()[0] == figures.NARROW


@pytest.mark.parametrize("trials", ["some", "none"])
def test_what_cannot_be_drawn_is_a_clear_error(swept, trials):
    study = MadeStudy(swept if trials == "some" else swept.head(0), nothing={"a": None}, later={"gone": None})
    with pytest.raises(UserError, match=r"drawn has run\. Got sweeep\. Have run: nothing, later"):
        figure(study, "sweeep")
    for key in ("nothing", "later"):
        with pytest.raises(UserError, match="has something to draw"):
            figure(study, key)
