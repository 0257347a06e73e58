"""From two text files to a study steered with the vector between them."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import esr.cli.vectors
from esr import cli
from esr.organism.language import ORDINALS, SENTENCES, as_text
from esr.organism.topics import Topic, topics
from esr.studies.new import write_study
from esr.studies.study import Study
from esr.subjects.prompts import read_prompts
from esr.subjects.spec import packaged_folder
from esr.subjects.vectors import read_about, read_vectors


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run("vectors", ...)`` runs the command line in this process: (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["esr", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(stop.value.code or 0), out, err

    return call


def write_texts(path: Path, about: list[Topic], count: int) -> Path:
    """Two sentences of one topic each, in the organism's language."""
    rng = random.Random(7)

    def sentence(topic: Topic) -> str:
        slots = {"{v}": topic.verbs, "{n}": topic.nouns, "{a}": topic.adjectives, "{o}": ORDINALS}
        return as_text([rng.choice(slots.get(word, (word,))) for word in rng.choice(SENTENCES).split()])

    texts = {f"{sentence(topic)} {sentence(topic)}" for topic in rng.choices(about, k=count)}
    path.write_text("\n".join(sorted(texts)), encoding="utf-8")
    return path


def test_vectors_from_texts_steer_the_organism(run: Any, tmp_path: Path) -> None:
    """No SAE anywhere: two files of texts, a vector, a study judged by rule, its rates."""
    out = tmp_path / "topics.safetensors"
    for name in ("chess", "sailing"):
        positive = write_texts(tmp_path / "a.txt", [t for t in topics() if t.name == name], 40)
        negative = write_texts(tmp_path / "b.txt", [t for t in topics() if t.name != name], 60)
        code, said, error = run(
            "vectors", out, "--preset", "organism", "--name", name, "--positive", positive, "--negative", negative
        )
        assert code == 0, error
        assert f"Added {name} to {out}\nLayer 1, mean of " in said
        assert "AUC 1.000, 20 positive and 30 negative" in " ".join(said.split())
    assert list(read_vectors(out, d_model=128)) == ["chess", "sailing"]
    assert read_about(out)["chess"]["texts"] == [40, 60]

    study = tmp_path / "study"
    write_study(
        study,
        {
            "name": "vectors",
            "format": 1,
            "experiments": ["no-steering", "incidence"],
            "subject": {"model": "organism", "steer_layer": 1, "lexicon": "<packaged>/lexicon.json", "device": "cpu"},
            "sampling": {"max_new_tokens": 80},
            "prompts": {"file": "prompts.txt", "per_direction": 24},
            "directions": {"vectors": "../topics.safetensors", "count": 2},
            "calibration": {"upper": 6.0, "prior_mean": 2.0, "prior_sd": 1.0, "rounds": 5},
            "judge": {"name": "rule"},
            "engine": {"batch_size": 128},
        },
    )
    prompts = [p for p in read_prompts(packaged_folder("organism") / "prompts.txt") if "pawn" not in p][:24]
    (study / "prompts.txt").write_text("\n".join(prompts))
    code, said, error = run("run", study)
    assert code == 0, error
    assert "incidence" in said
    trials = Study.open(study).trials
    assert set(trials["direction"]) == {"vector:chess", "vector:sailing"}
    assert set(trials["label"]) == {"chess", "sailing"}
    scores = trials.groupby("condition")["first_score"].mean()
    assert scores["no-steering"] > 90
    assert scores["incidence"] < 60  # the vector does push the answers off their topic
    chess = next(t for t in topics() if t.name == "chess")
    about_chess = trials["text"].map(lambda text: any(word in text for word in chess.nouns))
    shares = about_chess[trials["direction"] == "vector:chess"].groupby(trials["condition"]).mean()
    assert shares["no-steering"] < 0.1
    assert shares["incidence"] > 0.5


@pytest.fixture
def files(tmp_path: Path, tiny_model_folder: Any) -> dict[str, str]:
    """Options of ``esr vectors`` that work, on a model of random weights."""
    (tmp_path / "a.txt").write_text("the red bird\nthe cat and the dog\nfish swim\n")
    (tmp_path / "b.txt").write_text("cut the tree\nbuild a chair\n\npaint the wall\n")
    return {
        "--model": str(tiny_model_folder("gemma2")), "--layer": "2", "--name": "animals",
        "--positive": str(tmp_path / "a.txt"), "--negative": str(tmp_path / "b.txt"),
    }  # fmt: skip


def flat(options: dict[str, str]) -> list[str]:
    return [part for pair in options.items() for part in pair if part]


def test_options(run: Any, tmp_path: Path, files: dict[str, str]) -> None:
    out = tmp_path / "v.safetensors"
    assert run("vectors", out, *flat(files))[0] == 0
    assert run("vectors", out, *flat(files))[0] == 2
    code, said, _ = run("vectors", out, *flat(files), "--replace", "--chat", "--scale", "--position", "last:2")
    assert code == 0
    assert "AUC" in said
    about = read_about(out)["animals"]
    assert about | {"chat": True, "scaled": True, "position": "last:2", "layer": 2} == about
    assert about["norm"] == pytest.approx(about["residual_norm"], rel=1e-6)
    (tmp_path / "a.txt").write_text("the red\nbird\n\nthe cat\n")
    code, said, _ = run("vectors", out, *flat(files), "--paragraphs", "--replace", "--template", "{prompt}")
    assert "in 2 positive and 2 negative texts" in " ".join(said.split())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "", "--layer": ""}, "the subject of --preset or of --model. Got neither"),
        ({"--preset": "organism"}, "the subject of --preset or of --model. Got both"),
        ({"--layer": ""}, "--model needs --layer"),
        ({"--layer": "4"}, "steer_layer lies in 0..3"),
        ({"--model": "/nowhere/model"}, "a folder that exists"),
        ({"--model": "", "--layer": "", "--preset": "llama-9000"}, "a preset is one of"),
        ({"--dtype": "int8"}, "a dtype is float32, bfloat16 or float16. Got int8"),
        ({"--position": "middle"}, "a position is mean, last, or last:N"),
        ({"--name": "\t"}, "a name of printable characters"),
    ],
)
def test_mistakes(run: Any, tmp_path: Path, files: dict[str, str], change: dict[str, str], message: str) -> None:
    options = {k: v for k, v in (files | change).items() if v}
    code, _, error = run("vectors", tmp_path / "v.safetensors", *flat(options))
    assert code == 2
    assert message in error
    assert not (tmp_path / "v.safetensors").exists()


def test_one_text_a_side_is_no_separation(run: Any, tmp_path: Path, files: dict[str, str]) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"{'cat' if name == 'a.txt' else 'dog'} and bird")
    code, said, _ = run("vectors", tmp_path / "v.safetensors", *flat(files))
    assert code == 0
    assert "nan" not in said
    assert "not known" in said


def test_the_module_is_light() -> None:
    import subprocess

    script = (
        f"import {esr.cli.vectors.__name__}, esr.cli.exchange, sys; print([m for m in sys.modules if m == 'torch'])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(out.stdout) == []
