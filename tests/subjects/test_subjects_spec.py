"""A spec validates when made, is plain data, and its digest covers what determines responses and nothing
else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from esr.errors import UserError
from esr.subjects.spec import PACKAGED, SaeSpec, SubjectSpec, looks_like_folder


def spec_of(**settings) -> SubjectSpec:
    return SubjectSpec(**({"model": "a/b", "steer_layer": 3} | settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "a/c"}, {"revision": "x"}, {"dtype": "bfloat16"}, {"adapter": "x"}, {"steer_layer": 4},
        {"read_layer": 3}, {"system": "x"}, {"template": "{prompt}"}, {"sae": SaeSpec(path="x")},
        {"sae": SaeSpec(release="x", id="y")}, {"trust_remote_code": True},
    ],
)  # fmt: skip
def test_digest_changes_with(settings):
    assert spec_of(**settings).digest() != spec_of().digest()


@pytest.mark.parametrize("settings", [{"labels": "x"}, {"lexicon": "x"}, {"device": "cuda"}, {"device_map": "auto"}])
def test_digest_does_not_change_with(settings):
    assert spec_of(**settings).digest() == spec_of().digest()


def test_round_trip():
    spec = spec_of(sae=SaeSpec(release="r", id="i"), system="s", read_layer=1)
    assert SubjectSpec(**spec.describe()) == spec
    assert spec.digest() == SubjectSpec(**spec.describe()).digest()
    assert len(spec.digest()) == 16


def test_unknown_setting_and_frozen():
    with pytest.raises(ValidationError, match="layers"):
        spec_of(layers=3)
    with pytest.raises(ValidationError, match="frozen"):
        spec_of().model = "x"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"release": "r"},
        {"id": "i"},
        {"release": "r", "id": "i", "path": "p"},
        {"release": "r", "path": "p"},
    ],
)
def test_an_sae_has_one_source(settings):
    with pytest.raises(UserError, match="an SAE is named by release and id, or by path, and not by both"):
        SaeSpec(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"model": " "}, "a subject names its model"),
        ({"steer_layer": -1}, r"steer_layer counts from 0\. Got -1\."),
        ({"read_layer": -2}, r"read_layer counts from 0\. Got -2\."),
        ({"template": "Q: A:"}, r'a template is "tokenizer" or contains \{prompt\}.*Add \{prompt\} to it'),
        ({"template": "Q {prompt}", "system": "s"}, r"used with a system prompt contains \{system\}"),
        ({"labels": PACKAGED + "labels.json"}, "<packaged>/ refers to a packaged model's folder"),
    ],
)
def test_refusals(settings, text):
    with pytest.raises(UserError, match=text):
        spec_of(**settings)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("google/gemma-2-2b-it", False), ("gpt2", False), ("./gpt2", True), ("/a/b", True), ("~/x", True),
        ("a/b/c", True), ("../x", True), ("models/", True), ("C:\\x", True),
    ],
)  # fmt: skip
def test_what_can_only_be_a_folder(name, folder):
    assert looks_like_folder(name) is folder


def test_specs_and_presets_import_no_heavy_library():
    code = "import sys, esr.subjects.published, esr.subjects.prompts, esr.subjects.vectors, esr.subjects.chat; "
    heavy = "{'torch', 'transformers', 'sae_lens', 'peft'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + f"print(sorted({heavy}))"], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
