"""esr check: what would fail a run fails here first, each with a remedy, and the exit code says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "judging"))
sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from fault_server import FaultServer
from organism_studies import make_organism_study
from study_folders import make_study, settings


@pytest.fixture
def tiny(tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any) -> Any:
    """``tiny(judge={...})`` writes a study of the tiny model; returns its folder."""

    def make(sae: dict[str, Any] | None = None, prompts: str = "How do i bake bread?\n", **sections: Any) -> Path:
        made = tiny_sae_folder(**({"arch": "standard"} | (sae or {})))
        make_study(tmp_path / "study", settings(tiny_model_folder("llama"), made, **sections), prompts)
        return tmp_path / "study"

    return make


def checks(call: Any, study: Path, *args: str) -> tuple[int, dict[str, dict[str, str]]]:
    code, out, _ = call("check", study, "--json", *args)
    return code, {check["name"]: check for check in json.loads(out)}


def test_the_organism_passes_and_its_sae_fits(call: Any, tmp_path: Path) -> None:
    make_organism_study(tmp_path / "o", ["no-steering", "incidence"])
    code, found = checks(call, tmp_path / "o")
    assert code == 0
    assert {check["state"] for check in found.values()} == {"ok"}
    share = float(found["reconstruction"]["found"].split("%")[0])
    assert 0 < share < 10
    assert "4 layers of width 128" in found["model"]["found"]
    code, out, _ = call("check", tmp_path / "o")
    assert code == 0
    assert out.splitlines()[-1] == f"{len(found)} checks: 0 failed, 0 warnings."
    assert not (tmp_path / "o" / "study.sqlite").exists()


def test_an_sae_of_another_model_is_found_out_by_reconstruction(call: Any, tiny: Any) -> None:
    code, found = checks(call, tiny())  # right width, random weights
    assert code == 1
    assert found["reconstruction"]["state"] == "failed"
    assert found["SAE"]["state"] == "ok"


def test_width_hook_and_layer(call: Any, tiny: Any, tmp_path: Path) -> None:
    code, found = checks(call, tiny(sae={"d_in": 32}))
    assert (code, found["SAE"]["state"]) == (1, "failed")
    assert "as wide as the residual stream, 64. Got an SAE of width 32" in found["SAE"]["found"]
    assert found["reconstruction"]["state"] == "warning"
    assert "not checked" in found["reconstruction"]["found"]
    (tmp_path / "study" / "study.toml").unlink()
    subject = {"read_layer": 2}
    _, found = checks(call, tiny(sae={"layer": 1}, subject=subject))
    assert found["SAE"]["state"] == "warning"
    assert "trained on layer 1" in found["SAE"]["remedy"]
    (tmp_path / "study" / "study.toml").unlink()
    _, found = checks(call, tiny(sae={"hook_name": "blocks.1.hook_mlp_out"}))
    assert found["SAE"]["state"] == "failed"


def test_room_prompts_experiments_and_settings(call: Any, tiny: Any, tmp_path: Path) -> None:
    code, found = checks(call, tiny(sampling={"max_new_tokens": 500}, judge={"name": "no-provider/m"}))
    assert code == 1
    assert "context of 128 tokens" in found["room"]["found"]
    assert found["judge"]["state"] == "failed"
    assert found["prompts"]["state"] == "warning"  # one prompt, five per direction
    (tmp_path / "study" / "prompts.txt").write_text("")
    code, found = checks(call, tmp_path / "study")
    assert found["prompts"]["state"] == "failed"
    toml = tmp_path / "study" / "study.toml"
    toml.write_text(toml.read_text().replace("\ncount = 4", "\ncuont = 4"))
    code, found = checks(call, tmp_path / "study")
    assert (code, list(found)) == (1, ["settings"])
    assert "nearest: count" in found["settings"]["found"]


def test_the_judge_is_asked_once_and_its_key_never_shown(call: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(lambda *_: "good", key="sk-secret-12345") as server:
        study = tiny(judge={"name": "openai-api/fault/judge", "base_url": server.url})
        monkeypatch.delenv("FAULT_API_KEY", raising=False)
        code, found = checks(call, study)
        assert code == 1
        assert found["judge"]["state"] == "failed"
        assert "FAULT_API_KEY" in found["judge"]["found"] + found["judge"]["remedy"]
        monkeypatch.setenv("FAULT_API_KEY", "sk-secret-12345")
        _, found = checks(call, study)
        assert found["judge"]["state"] == "ok"
        assert sum(server.calls.values()) == 1
        _, found = checks(call, study, "--offline")
        assert found["judge"]["state"] == "warning"
        assert sum(server.calls.values()) == 1
        server.script = lambda *_: "401"
        code, out, error = call("check", study)
        assert code == 1
        assert "failed  judge: " in out
        assert "sk-secret" not in out + error


def test_vectors_are_counted(call: Any, tiny: Any) -> None:
    import torch
    from safetensors.torch import save_file

    study = tiny(directions={"vectors": "v.safetensors"})
    save_file({"a": torch.ones(64), "b": torch.ones(64)}, study / "v.safetensors")
    _, found = checks(call, study)
    assert found["vectors"]["state"] == "warning"
    assert "4 directions are asked for" in found["vectors"]["remedy"]
    save_file({"a": torch.ones(32)}, study / "v.safetensors")
    assert checks(call, study)[1]["vectors"]["state"] == "failed"


def test_hostile_names_reach_no_terminal(call: Any, tiny: Any) -> None:
    study = tiny(prompts="How \x1b]8;;http://x\x07 do i\u202e bake \x1b[31m" + "x" * 100_000 + "?\n")
    toml = study / "study.toml"
    toml.write_text(
        toml.read_text().replace('"standard"', '"standard"').replace("seed = 3", 'seed = 3\n"\\u001b[31mx" = 1')
    )
    _, out, _ = call("check", study)
    assert "\x1b" not in out
    toml.write_text(toml.read_text().replace('"\\u001b[31mx" = 1', ""))
    code, out, _ = call("check", study)
    assert code == 1
    assert not {"\x1b", "\u202e", "\x07"} & set(out)
    assert max(map(len, out.splitlines())) < 200
