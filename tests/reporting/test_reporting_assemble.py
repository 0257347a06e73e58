from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from activation_readings import activations, random_readings

from esr.analysis.activation_comparisons import compare_activations
from esr.reporting import assemble
from esr.reporting.assemble import _checks, _groups_alone, _published, experiment_views
from esr.subjects.published import published_subject
from esr.subjects.published_figures import published_figures


def study(subject, vectors=None):
    return SimpleNamespace(config=SimpleNamespace(subject=subject, directions=SimpleNamespace(vectors=vectors)))


def test_published_figures_are_those_of_the_subject_and_of_its_kind_of_directions():
    llama = published_subject("llama-3.3-70b/paper").spec
    assert _published(study(llama)) == published_figures(llama) != ()
    (vectors,) = _published(study(llama, vectors="some.safetensors"))
    assert (vectors.condition, vectors.value) == ("incidence", "3.6 % (62 vectors)")
    for given in (None, "some.safetensors"):
        assert _published(study(published_subject("organism").spec, given)) == ()


def test_checks_are_joined_by_direction():
    calibration = pd.DataFrame({"direction": ["b", "a"], "threshold": [1.0, np.nan]})
    chosen = pd.DataFrame(
        {"id": ["a", "b"], "efficacy_drop": [np.nan, 30.0], "promotion": [4.0, -1.0], "promoted": [True, False]}
    )
    found = _checks(calibration, chosen)
    assert list(found["direction"]) == ["b", "a"]
    assert list(found["promoted"]) == [False, True]
    assert list(found["promotion"]) == [-1.0, 4.0]
    assert list(found["efficacy_drop"].fillna(-1)) == [30.0, -1]


def test_groups_alone_have_the_same_comparisons():
    read = activations(random_readings(directions=12))
    whole = compare_activations(read, draws=200)
    alone = compare_activations(_groups_alone(read), draws=200)
    expected, found = (frame[frame["unit"].eq("group")].reset_index(drop=True) for frame in (whole, alone))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


@pytest.mark.parametrize("finished", [True, False])
def test_a_fine_tuned_study_has_a_view_of_it(tmp_path, finished):
    share = tmp_path / assemble.FOLDER / "share-50"
    share.mkdir(parents=True)
    if finished:
        (share / "quality.json").write_text("{}")
    bare = SimpleNamespace(folder=tmp_path, experiments={})
    assert [v.key for v in experiment_views(bare, pd.DataFrame())] == ["fine-tuning"] * finished
    assert experiment_views(bare, pd.DataFrame(), ["incidence"]) == ()
