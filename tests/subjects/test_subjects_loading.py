"""A subject loads through the public path, and whatever does not fit is a UserError with a text of its
own."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_models import CONTEXT, D_MODEL, N_LAYERS

from esr.errors import UserError
from esr.subjects.fingerprint import folder_fingerprint
from esr.subjects.loading import load_subject
from esr.subjects.sae import residual_layer
from esr.subjects.spec import SaeSpec, SubjectSpec


@pytest.fixture
def spec_of(tiny_model_folder):
    def make(**settings) -> SubjectSpec:
        base = {"model": str(tiny_model_folder("llama")), "steer_layer": 1, "device": "cpu"}
        return SubjectSpec(**(base | settings))

    return make


def refusal(spec: SubjectSpec) -> str:
    with pytest.raises(UserError) as caught:
        load_subject(spec)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


def test_a_loaded_subject(spec_of, tiny_sae_folder, tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"3": "cats", "95": "düsen"}), encoding="utf-8")
    spec = spec_of(sae=SaeSpec(path=str(tiny_sae_folder(layer=2))), labels=str(tmp_path / "labels.json"))
    subject = load_subject(spec)
    assert (subject.d_model, subject.n_layers, subject.context) == (D_MODEL, N_LAYERS, CONTEXT)
    assert (subject.steer_layer, subject.read_layer) == (1, 2), "by default the SAE's own layer is read"
    assert subject.labels == {3: "cats", 95: "düsen"}
    assert subject.end_ids == {2, 7}
    assert subject.require_reader().d_in == D_MODEL
    assert not subject.model.training
    assert not any(p.requires_grad for p in subject.model.parameters())
    assert not any(p.requires_grad for p in subject.reader.sae.parameters())
    assert next(subject.model.parameters()).dtype == torch.float32
    assert subject.device == torch.device("cpu")


def test_read_layer(spec_of, tiny_sae_folder):
    trained_on_2, unknown = str(tiny_sae_folder(layer=2)), str(tiny_sae_folder(hook_name=None))
    assert load_subject(spec_of(sae=SaeSpec(path=trained_on_2), read_layer=3)).read_layer == 3
    assert load_subject(spec_of(sae=SaeSpec(path=unknown))).read_layer == 1
    assert load_subject(spec_of()).read_layer == 1


def test_without_an_sae(spec_of):
    subject = load_subject(spec_of())
    assert subject.reader is None
    assert subject.labels == {}
    with pytest.raises(UserError, match=r"clamping and reading latents need an SAE.*Set sae.path"):
        subject.require_reader()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype(dtype, spec_of):
    model = load_subject(spec_of(dtype=dtype)).model
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


def test_device_map(spec_of):
    pytest.importorskip("accelerate")
    mapped, plain = load_subject(spec_of(device_map="cpu")), load_subject(spec_of())
    ids = torch.tensor([[1, 20, 30]])
    torch.testing.assert_close(mapped.model(ids).logits, plain.model(ids).logits, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_an_adapter_is_merged(spec_of, tmp_path):
    peft = pytest.importorskip("peft")
    plain = load_subject(spec_of()).model
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(load_subject(spec_of()).model, lora).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    subject = load_subject(spec_of(adapter=str(tmp_path / "adapter")))
    ids = torch.tensor([[1, 20, 30, 40]])
    expected = adapted(ids).logits
    assert (plain(ids).logits - expected).abs().max() > 0.01
    torch.testing.assert_close(subject.model(ids).logits, expected, rtol=0, atol=1e-4)
    assert type(subject.model).__name__ == "LlamaForCausalLM"
    assert not any("lora" in name for name, _ in subject.model.named_parameters())
    assert len(subject.layers) == N_LAYERS
    assert subject.fingerprint != load_subject(spec_of()).fingerprint


def test_no_peft(spec_of, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    assert refusal(spec_of(adapter="x/y")) == (
        "adapters need the extra `train`. Got no peft. In esr's folder: pip install '.[train]'."
    )


def test_unknown_adapter(spec_of, tmp_path):
    pytest.importorskip("peft")
    assert "an adapter is a folder that exists" in refusal(spec_of(adapter=str(tmp_path / "none")))
    text = refusal(spec_of(adapter=str(tmp_path)))
    assert text.startswith(
        f"an adapter is a PEFT adapter trained for this model. Got {tmp_path} (ValueError: Can't find"
    )


def test_unknown_model_folder(spec_of, tmp_path):
    assert refusal(spec_of(model=str(tmp_path / "none"))) == (
        "a model is a Hugging Face id, a packaged organism or a folder; this one is a folder that exists. "
        f"Got {tmp_path / 'none'}."
    )
    assert "a model's folder holds config.json" in refusal(spec_of(model=str(tmp_path)))


def test_unknown_hub_model(spec_of):
    """The tests run offline, so every hub id is one that cannot be loaded."""
    text = refusal(spec_of(model="nobody-here/no-such-model"))
    assert text.startswith(
        "a model's id exists on the Hugging Face hub, with safetensors weights, and can be downloaded."
    )
    assert "nobody-here/no-such-model" in text
    assert text.endswith("Check the spelling and the network; log in with `hf auth login` if the model is gated.")


def test_only_safetensors(spec_of, tiny_model_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model_folder("llama"), folder)
    weights = load_subject(spec_of()).model.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "holds a causal language model with safetensors weights" in refusal(spec_of(model=str(folder)))


def test_code_that_comes_with_a_model_stays_off(spec_of, tiny_model_folder, tmp_path):
    folder = tmp_path / "custom"
    shutil.copytree(tiny_model_folder("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
    assert refusal(spec_of(model=str(folder))) == (
        "a model that brings code of its own runs it only when asked to. "
        f"Got {folder}. Read that code, then set trust_remote_code = true if you trust it."
    )
    assert not (tmp_path / "ran").exists()


def test_no_tokenizer(spec_of, tiny_model_folder, tmp_path):
    folder = tmp_path / "mute"
    shutil.copytree(tiny_model_folder("llama"), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "a model comes with its tokenizer" in refusal(spec_of(model=str(folder)))


def test_layers_out_of_range(spec_of, tiny_sae_folder):
    assert refusal(spec_of(steer_layer=4)) == "steer_layer lies in 0..3 for this model. Got 4."
    assert refusal(spec_of(read_layer=9)) == "read_layer lies in 0..3 for this model. Got 9."
    deep = SaeSpec(path=str(tiny_sae_folder(layer=7)))
    assert refusal(spec_of(sae=deep)) == "read_layer lies in 0..3 for this model. Got 7."


def test_an_sae_of_another_width(spec_of, tiny_sae_folder):
    spec = spec_of(sae=SaeSpec(path=str(tiny_sae_folder(d_in=32))))
    assert refusal(spec).startswith("the SAE is as wide as the residual stream, 64 for ")
    assert "Got an SAE of width 32. Choose an SAE trained on this model." in refusal(spec)


def test_unknown_sae(spec_of, tmp_path, tiny_sae_folder):
    assert refusal(spec_of(sae=SaeSpec(path=str(tmp_path / "none")))) == (
        f"an SAE's path is a folder that exists. Got {tmp_path / 'none'}."
    )
    assert refusal(spec_of(sae=SaeSpec(path=str(tmp_path)))) == (
        "an SAE's folder holds cfg.json and sae_weights.safetensors, as SAELens saves them. "
        f"Got {tmp_path} lacks cfg.json and sae_weights.safetensors."
    )
    text = refusal(spec_of(sae=SaeSpec(release="no-such-release", id="x")))
    assert text.startswith(
        "an SAE's release and id are in SAELens' directory and can be downloaded. Got no-such-release / x"
    )
    text = refusal(spec_of(sae=SaeSpec(release="goodfire-llama-3.1-8b-instruct", id="layer_20")))
    assert "ID layer_20 not found" in text
    broken = tmp_path / "broken"
    shutil.copytree(tiny_sae_folder("standard"), broken)
    (broken / "sae_weights.safetensors").write_bytes(b"nonsense")
    assert f"an SAE's folder can be read by SAELens. Got {broken}" in refusal(spec_of(sae=SaeSpec(path=str(broken))))


def test_an_unheard_of_architecture(spec_of, tmp_path, tiny_sae_folder):
    folder = tmp_path / "odd"
    shutil.copytree(tiny_sae_folder("standard"), folder)
    config = json.loads((folder / "cfg.json").read_text()) | {"architecture": "odd"}
    (folder / "cfg.json").write_text(json.dumps(config))
    assert "an SAE's architecture is known to SAELens. Got odd" in refusal(spec_of(sae=SaeSpec(path=str(folder))))


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.12.hook_resid_post", 12), ("blocks.3.hook_resid_pre", 2), ("blocks.3.hook_out", 3),
        ("model.layers.5", 5), ("model.language_model.layers.30", 30), ("transformer.h.2", 2),
    ],
)  # fmt: skip
def test_residual_hooks(hook, layer):
    assert residual_layer(hook) == layer


@pytest.mark.parametrize(
    "hook",
    ["blocks.1.attn.hook_z", "blocks.1.hook_mlp_out", "hook_embed", "blocks.0.hook_resid_pre",
     "blocks.1.hook_resid_mid", "model.layers.3.mlp", "blocks.1.ln2.hook_normalized"],
)  # fmt: skip
def test_other_hooks(hook, spec_of, tiny_sae_folder):
    spec = spec_of(sae=SaeSpec(path=str(tiny_sae_folder(hook_name=hook))), read_layer=1)
    assert refusal(spec) == (
        "an SAE reads the residual stream as it leaves a decoder layer. "
        f"Got an SAE trained on {hook}. Choose an SAE of the residual stream (hook_resid_post)."
    )


@pytest.mark.parametrize("device", ["nonsense", "cuda"])
def test_device(device, spec_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = refusal(spec_of(device=device))
    assert f"Got {device}." in text
    assert "device" in text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xff\xfe", "readable JSON in UTF-8"),
        (b"[1]", "one JSON object"),
        (b'{"a": "x"}', "one JSON object"),
        (b'{"1": 2}', "one JSON object"),
        (b'{"96": "x"}', r"a latent of this SAE lies in 0..95. Got 96."),
    ],
)
def test_labels(content, text, spec_of, tiny_sae_folder, tmp_path):
    (tmp_path / "labels.json").write_bytes(content)
    spec = spec_of(sae=SaeSpec(path=str(tiny_sae_folder())), labels=str(tmp_path / "labels.json"))
    assert text in refusal(spec)


def test_fingerprint_follows_the_files_and_not_their_place(tmp_path, monkeypatch):
    def write(name: str, content: bytes):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.safetensors").write_bytes(content)
        return folder

    here, there, other = write("here", b"x" * 50), write("there", b"x" * 50), write("other", b"x" * 49 + b"y")
    assert folder_fingerprint([here]) == folder_fingerprint([there]) != folder_fingerprint([other])
    assert folder_fingerprint([here], "commit") != folder_fingerprint([here])
    early = write("early", b"y" + b"x" * 49)
    monkeypatch.setattr("esr.subjects.fingerprint._WHOLE", 20)
    monkeypatch.setattr("esr.subjects.fingerprint._EDGE", 5)
    assert folder_fingerprint([here]) == folder_fingerprint([there]) != folder_fingerprint([other])
    assert len({folder_fingerprint([f]) for f in (here, other, early)}) == 3


def test_a_packaged_model(spec_of, tiny_model_folder, tiny_sae_folder, tmp_path, monkeypatch):
    folder = tmp_path / "organism" / "weights" / "organism-naive"
    shutil.copytree(tiny_model_folder("llama"), folder)
    shutil.copytree(tiny_sae_folder(), folder / "sae")
    (folder / "labels.json").write_text('{"0": "bread"}')
    monkeypatch.setattr("esr.subjects.spec.files", lambda package: tmp_path)
    settings = {"sae": SaeSpec(path="<packaged>/sae"), "labels": "<packaged>/labels.json"}
    spec = spec_of(model="organism-naive", lexicon="<packaged>/lexicon.json", **settings)
    subject = load_subject(spec)
    assert subject.labels == {0: "bread"}
    assert spec.lexicon_path() == folder / "lexicon.json"
    assert refusal(spec_of(model="organism")) == (
        "a packaged model lies in the installed package. Got no folder for organism. "
        "Install the package again, or train the organism with `esr organism train`."
    )
