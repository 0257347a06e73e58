"""A contrastive vector is the difference of means of Hugging Face's own hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esr.directions.contrastive import contrastive_vector, make_vector, read_texts
from esr.errors import UserError
from esr.steering.hf import HFEngine
from esr.subjects.chat import chat_ids
from esr.subjects.spec import SaeSpec, SubjectSpec
from esr.subjects.vectors import add_vector, check_addable, read_about, read_vectors

POSITIVE = [
    "the red bird and the cat",
    "bake bread in the garden",
    "fish swim slowly",
    "the dog wash the window then hold it",
    "paint the wall red",
]
NEGATIVE = ["cut the tree", "how do i build a chair ?", "the clock is paper", "write a letter first , then a story ."]


def hidden(subject: Any, text: str, layer: int, chat: bool = False) -> np.ndarray:
    """[tokens, d_model], float64: the residual stream as Hugging Face reports it."""
    ids = chat_ids(subject, subject.spec, text) if chat else subject.tokenizer(text)["input_ids"]
    with torch.no_grad():
        out = subject.model(torch.tensor([list(ids)]), output_hidden_states=True)
    return np.asarray(out.hidden_states[layer + 1][0].double())


READ = {"mean": lambda h: h[1:], "last": lambda h: h[-1:], "last:3": lambda h: h[-3:], "last:99": lambda h: h[1:]}


def by_definition(subject: Any, layer: int, position: str, chat: bool = False) -> np.ndarray:
    def mean(texts: list[str]) -> np.ndarray:
        return np.mean([READ[position](hidden(subject, t, layer, chat)).mean(axis=0) for t in texts], axis=0)

    return mean(POSITIVE) - mean(NEGATIVE)


@pytest.mark.parametrize("arch", ["llama", "gemma2"])
@pytest.mark.parametrize("position", list(READ))
def test_the_definition(tiny_subject: Any, arch: str, position: str) -> None:
    subject = tiny_subject(arch)
    for layer in (0, 2):
        made = contrastive_vector(subject, POSITIVE, NEGATIVE, layer, position)
        wanted = by_definition(subject, layer, position)
        np.testing.assert_allclose(made.vector, wanted, atol=1e-5 * np.abs(wanted).max())
        assert made.norm == pytest.approx(np.linalg.norm(wanted), rel=1e-5)
        assert (made.layer, made.position, made.texts) == (layer, position, (5, 4))


def test_counts_and_lengths(tiny_subject: Any) -> None:
    subject = tiny_subject()
    made = contrastive_vector(subject, POSITIVE, NEGATIVE)
    assert made.layer == subject.steer_layer == 1
    read = [[READ["mean"](hidden(subject, t, 1)) for t in texts] for texts in (POSITIVE, NEGATIVE)]
    assert made.tokens == tuple(sum(len(h) for h in side) for side in read)
    lengths = np.linalg.norm(np.concatenate([h for side in read for h in side]), axis=1)
    assert made.residual_norm == pytest.approx(lengths.mean(), rel=1e-5)


def test_chat_template(tiny_subject: Any) -> None:
    made = contrastive_vector(tiny_subject(), POSITIVE, NEGATIVE, 1, "last:3", chat=True)
    np.testing.assert_allclose(made.vector, by_definition(tiny_subject(), 1, "last:3", chat=True), atol=1e-5)
    assert not np.allclose(made.vector, by_definition(tiny_subject(), 1, "last:3"), atol=1e-2)


def test_scaled_and_not(tiny_subject: Any) -> None:
    plain = contrastive_vector(tiny_subject(), POSITIVE, NEGATIVE)
    scaled = contrastive_vector(tiny_subject(), POSITIVE, NEGATIVE, scale=True)
    assert plain.norm == pytest.approx(plain.difference_norm, rel=1e-6)
    assert scaled.norm == pytest.approx(scaled.residual_norm, rel=1e-6)
    np.testing.assert_allclose(
        scaled.vector / scaled.residual_norm, plain.vector / plain.difference_norm, rtol=1e-5, atol=1e-7
    )


def test_sides_exchanged_negate_and_an_engine_does_as_well(tiny_subject: Any) -> None:
    forth = contrastive_vector(tiny_subject(), POSITIVE, NEGATIVE)
    back = contrastive_vector(HFEngine(tiny_subject()), NEGATIVE, POSITIVE)
    np.testing.assert_array_equal(forth.vector, -back.vector)
    assert forth.auc == pytest.approx(back.auc)  # the direction turns, and so do the projections


def test_the_vector_counts_texts_and_not_tokens(tiny_subject: Any) -> None:
    long = " ".join(["the bird and the cat"] * 12)
    made = contrastive_vector(tiny_subject(), [long, "paint the wall"], ["cut the tree", "fish swim"])
    means = [
        hidden(tiny_subject(), t, 1)[1:].mean(axis=0) for t in (long, "paint the wall", "cut the tree", "fish swim")
    ]
    np.testing.assert_allclose(made.vector, (means[0] + means[1] - means[2] - means[3]) / 2, atol=1e-5)


def test_separation_is_of_texts_held_out(tiny_subject: Any) -> None:
    """Against the slow definition: the even texts make a direction, the odd ones are ranked pair by pair."""
    subject = tiny_subject()
    made = contrastive_vector(subject, POSITIVE, NEGATIVE)
    means = [[hidden(subject, t, 1)[1:].mean(axis=0) for t in texts] for texts in (POSITIVE, NEGATIVE)]
    guess = np.mean(means[0][::2], axis=0) - np.mean(means[1][::2], axis=0)
    pairs = [(p @ guess > n @ guess) + 0.5 * (p @ guess == n @ guess) for p in means[0][1::2] for n in means[1][1::2]]
    assert made.held_out == (2, 2)
    assert made.auc == pytest.approx(np.mean(pairs))


def test_separation_tells_a_contrast_from_none(tiny_subject: Any) -> None:
    rng = np.random.default_rng(0)
    words = "bread soup garden chair bike letter story song wall window door water fire stone tree".split()  # noqa: SIM905
    other = "bird cat dog horse fish lamp clock paper glass large small red blue green dry".split()  # noqa: SIM905

    def texts(vocabulary: list[str]) -> list[str]:
        return sorted({" ".join(rng.choice(vocabulary, 8)) for _ in range(40)})

    apart = contrastive_vector(tiny_subject(), texts(words), texts(other))
    mixed = contrastive_vector(tiny_subject(), texts(words + other), texts(words + other))
    assert apart.auc > 0.95
    assert 0.25 < mixed.auc < 0.75
    assert apart.difference_norm > mixed.difference_norm


def test_one_text_a_side_has_no_separation(tiny_subject: Any) -> None:
    made = contrastive_vector(tiny_subject(), ["the red bird"], ["cut the tree"])
    assert np.isnan(made.auc)
    assert made.held_out == (0, 0)
    assert made.about()["auc"] is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"positive": []}, "a contrast has texts on both sides. Got none in positive"),
        ({"negative": ["a", "  "]}, "a text is not empty. Got an empty one in negative"),
        ({"positive": ["cut the tree"]}, "each text stands once on one side. Got 'cut the tree' more than once"),
        ({"negative": ["a b", "a b"]}, "each text stands once on one side. Got 'a b' more than once"),
        ({"positive": [" ".join(["cat"] * 128)]}, "at most 128, the model's context. Got 129 in 'cat cat"),
        ({"layer": 4}, "layer lies in 0..3 for this model. Got 4"),
        ({"layer": -1}, "layer lies in 0..3 for this model. Got -1"),
        ({"position": "first"}, "a position is mean, last, or last:N with N from 1. Got first"),
        ({"position": "last:0"}, "a position is mean, last, or last:N with N from 1. Got last:0"),
    ],
)
def test_refusals(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], text: str) -> None:
    monkeypatch.setattr(HFEngine, "residual", None)  # nothing is read
    with pytest.raises(UserError) as caught:
        contrastive_vector(tiny_subject(), **({"positive": POSITIVE, "negative": NEGATIVE} | change))
    assert text in str(caught.value)


def test_equal_means(tiny_subject: Any) -> None:
    """Unknown words are one token, so different texts may be the same to the model."""
    with pytest.raises(UserError, match="differ in the mean"):
        contrastive_vector(tiny_subject(), ["xylophone"], ["accordion"])


def test_files_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("﻿one line \n\n  # another\nthird\n  \n\nfourth\n", encoding="utf-8")
    assert read_texts(path) == ["one line", "# another", "third", "fourth"]
    assert read_texts(path, paragraphs=True) == ["one line", "# another\nthird", "fourth"]
    path.write_text(" \n\n")
    with pytest.raises(UserError, match="holds at least one"):
        read_texts(path)
    path.write_bytes(b"\xff\xfe\x01")
    with pytest.raises(UserError, match="not UTF-8"):
        read_texts(path)
    with pytest.raises(UserError, match="No such file"):
        read_texts(tmp_path / "none.txt")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, texts in (("a.txt", POSITIVE), ("b.txt", NEGATIVE)):
        (tmp_path / name).write_text("\n".join(texts), encoding="utf-8")
    return tmp_path / "a.txt", tmp_path / "b.txt"


def test_a_file_of_vectors_from_two_files_of_texts(
    tmp_path: Path, files: tuple[Path, Path], tiny_model_folder: Any, tiny_subject: Any
) -> None:
    out = tmp_path / "out.safetensors"
    spec = SubjectSpec(
        model=str(tiny_model_folder()), sae=SaeSpec(path="/no/sae/is/loaded"), steer_layer=1, device="cpu"
    )
    made = make_vector(spec, out, "birds", *files)
    np.testing.assert_array_equal(made.vector, contrastive_vector(tiny_subject(), POSITIVE, NEGATIVE).vector)
    make_vector(spec, out, "no birds", *reversed(files), layer=2, position="last", scale=True)
    vectors = read_vectors(out, d_model=64)
    assert list(vectors) == ["birds", "no birds"]
    np.testing.assert_array_equal(vectors["birds"], made.vector)
    about = read_about(out)
    assert about["birds"]["texts"] == [5, 4]
    assert about["birds"]["model"] == spec.model
    assert about["no birds"] | {"layer": 2, "position": "last", "scaled": True} == about["no birds"]
    with pytest.raises(UserError, match="a vector's name is new in its file"):
        make_vector(spec.model_copy(update={"model": "/not/loaded"}), out, "birds", *files)
    again = make_vector(spec, out, "birds", *files, layer=3, replace=True)
    np.testing.assert_array_equal(read_vectors(out)["birds"], again.vector)
    np.testing.assert_array_equal(read_vectors(out)["no birds"], vectors["no birds"])
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_what_a_file_holds_stays(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "v.safetensors"
    rows = torch.tensor([[1.5, 2, 3], [4, 5, 6]], dtype=torch.bfloat16)
    save_file({"topics": rows}, path, metadata={"names": '["paris", "rome"]', "licence": "none"})
    add_vector(path, "oslo", np.array([7, 8, 9], np.float32), {"layer": 1})
    assert {name: v.tolist() for name, v in read_vectors(path).items()} == {
        "oslo": [7, 8, 9],
        "paris": [1.5, 2, 3],
        "rome": [4, 5, 6],
    }
    assert read_about(path) == {"oslo": {"layer": 1}}
    assert set(load_file(path)) == {"oslo", "paris", "rome"}
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        assert file.metadata()["licence"] == "none"
        assert "names" not in file.metadata()  # there is no tensor of rows any more


def test_refused_additions_leave_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.safetensors"
    add_vector(path, "a", np.ones(3, np.float32), {})
    before = path.read_bytes()
    for name, vector, text in (
        ("a", np.ones(3), "a vector's name is new in its file"),
        ("b", np.ones(4), "as wide as the residual stream, 4"),
        ("", np.ones(3), "a name of printable characters"),
        ("tab\t", np.ones(3), "a name of printable characters"),
        ("__metadata__", np.ones(3), "a name of printable characters"),
        ("c", np.array([1.0, np.nan, 0.0]), "finite numbers"),
        ("c", np.ones((1, 3)), "finite numbers of shape [d_model]"),
    ):
        with pytest.raises(UserError) as caught:
            add_vector(path, name, vector.astype(np.float32), {})
        assert text in str(caught.value)
    with pytest.raises(UserError, match="a folder that exists"):
        check_addable(tmp_path / "none" / "v.safetensors", "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("esr.subjects.vectors.os.replace", full)
    with pytest.raises(UserError, match="No space left"):
        add_vector(path, "b", np.ones(3, np.float32), {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
