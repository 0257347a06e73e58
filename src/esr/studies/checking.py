"""The preflight: whether a study can work, before anything long is begun. A line per check: ok, warning or failed.

As little as possible is loaded: the configuration, the tokenizer, the SAE, and of the model the layers up to the one
the SAE reads, whatever the engine.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from esr.errors import UserError, missing_extra
from esr.steering.settings import BATCH
from esr.studies.config import StudyConfig, read_config
from esr.studies.experiments.registry import wanted
from esr.studies.judges import make_judge, preflight
from esr.studies.planning import plan_run
from esr.studies.progress import duration
from esr.studies.prompts import study_prompts
from esr.studies.study import Study

if TYPE_CHECKING:
    from esr.subjects.latents import LatentReader

State = Literal["ok", "warning", "failed"]

GOOD_FVU, WORST_FVU = 0.5, 1.0
"""Fraction of the residual stream's variance that an SAE leaves unexplained: above the first a warning, above the
second (worse than the mean of the activations) a failure. A fitting SAE is at 0.01 to 0.35."""
PROBED = 4
"""Prompts whose activations are reconstructed."""
STORED = 4_000
"""Bytes that the study file takes per response, about: text, tokens, verdict."""
_GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the preflight."""

    name: str
    state: State
    found: str
    """What was looked at and what it is; untrusted."""
    remedy: str = ""


def check_study(folder: Path, *, ask_judge: bool = True) -> Iterator[Check]:
    """Every check, as it is done. ``ask_judge``: have the judge judge one short text (one call).

    Never raises UserError: what a run would refuse is a failed check.
    """
    try:
        config = read_config(folder)
        Study.open(folder)
    except UserError as error:
        yield _failed("settings", error)
        return
    yield Check("settings", "ok", f"{len(config.experiments)} experiments, {config.directions.count} directions")
    looked = _Preflight(folder, config, ask_judge)
    for name, look in looked.checks():
        try:
            yield from look()
        except UserError as error:
            yield _failed(name, error)
        except _Missing as missing:
            yield Check(name, "warning", f"not checked: {missing}", "Put right what failed above, and check again")


def _failed(name: str, error: UserError) -> Check:
    got = "" if error.got is None else f". Got {error.got}"
    return Check(name, "failed", f"{error.rule.rstrip('.')}{got}", error.remedy)


class _Missing(Exception):  # noqa: N818
    """Something an earlier check could not find."""


@dataclass
class _Preflight:
    folder: Path
    config: StudyConfig
    ask_judge: bool
    _prompts: Sequence[str] = ()
    _model: Any = None
    """The model's configuration."""
    _tokenizer: Any = None
    _reader: LatentReader | None = None
    _ids: list[tuple[int, ...]] = field(default_factory=list)
    _rows: int = BATCH
    """Responses in flight that the time is reckoned with: no more than fit into any model's context as one text."""
    _step: tuple[float, int] | None = None
    """Seconds of one decoding step of the layers loaded, and how many these are."""

    def checks(self) -> list[tuple[str, Callable[[], Iterator[Check]]]]:
        """Name and work, in an order in which each finds what it needs."""
        checks = [
            ("engine", self.engine), ("prompts", self.prompts), ("experiments", self.experiments),
            ("model", self.model), ("tokenizer", self.tokenizer), ("room", self.room),
            ("SAE", self.sae), ("vectors", self.vectors), ("labels", self.labels), ("memory", self.memory),
            ("reconstruction", self.reconstruction), ("disk", self.disk), ("judge", self.judge),
            ("time and cost", self.cost),
        ]  # fmt: skip
        settings = self.config
        left_out = {"SAE", "reconstruction"} if settings.subject.sae is None else set()
        left_out |= {"vectors"} if settings.directions.vectors is None else set()
        left_out |= (
            {"labels"} if settings.subject.labels is None and settings.directions.concreteness == "none" else set()
        )
        return [(name, look) for name, look in checks if name not in left_out]

    # ---- engine, prompts, experiments

    def engine(self) -> Iterator[Check]:
        backend = self.config.engine.backend
        if backend == "vllm":
            from esr.steering.vllm.start import check_version

            yield Check("engine", "ok", f"vllm {check_version()}")
        else:
            yield Check("engine", "ok", f"hf: transformers {version('transformers')}, torch {version('torch')}")
        if self.config.subject.adapter:
            try:
                import peft
            except ImportError:
                raise missing_extra("adapters", "train", "peft") from None
            yield Check("adapter", "ok", f"{self.config.subject.adapter}, merged by peft {peft.__version__}")

    def prompts(self) -> Iterator[Check]:
        self._prompts = study_prompts(self.config.prompts.file, self.folder, self.config.subject.model)
        count, each = len(self._prompts), self.config.prompts.per_direction
        found = f"{count} in {self.config.prompts.file}, {each} per direction"
        if each > count:
            yield Check("prompts", "warning", found, "A direction meets a prompt more than once: give more prompts")
        else:
            yield Check("prompts", "ok", found)

    def experiments(self) -> Iterator[Check]:
        chosen = wanted(self.config.experiments, sae=self.config.subject.sae is not None)
        for experiment in chosen:
            if experiment.check is not None:
                experiment.check(self.folder, self.config, self.config.settings_of(experiment.key))
        yield Check("experiments", "ok", ", ".join(e.key for e in chosen))

    # ---- subject

    def model(self) -> Iterator[Check]:
        from esr.subjects.layers import check_layer
        from esr.subjects.loading import load_config

        spec = self.config.subject
        found = load_config(spec)
        text = found.get_text_config(decoder=True)
        check_layer("steer_layer", spec.steer_layer, int(text.num_hidden_layers))
        if spec.read_layer is not None:
            check_layer("read_layer", spec.read_layer, int(text.num_hidden_layers))
        self._model = found
        yield Check(
            "model", "ok",
            f"{spec.model}: {text.num_hidden_layers} layers of width {text.hidden_size}, steered at layer"
            f" {spec.steer_layer}, {spec.dtype}",
        )  # fmt: skip
        if spec.trust_remote_code:
            yield Check("code", "warning", "trust_remote_code is on", "The model's own Python code runs: read it first")

    def tokenizer(self) -> Iterator[Check]:
        from esr.subjects.chat import chat_ids
        from esr.subjects.loading import load_tokenizer

        spec = self.config.subject
        self._tokenizer = load_tokenizer(spec)
        if not self._prompts:
            raise _Missing("there are no prompts")
        ids = [chat_ids(self._tokenizer, spec, prompt) for prompt in self._prompts]
        self._ids = ids
        how = "its own chat template" if spec.template == "tokenizer" else "the template of study.toml"
        begins = self._tokenizer.decode(ids[0][:1])
        yield Check("tokenizer", "ok", f"{how}; a prompt begins with {begins!r}")
        start, ends = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if start is not None and list(ids[0]).count(start) > 1:
            yield Check(
                "special tokens", "warning", f"{self._tokenizer.bos_token!r} stands {list(ids[0]).count(start)} times",
                "The template and the tokenizer both add it: remove one",
            )  # fmt: skip
        elif ends is None:
            yield Check("special tokens", "warning", "the tokenizer has no end token", "Answers end at the limit only")
        else:
            yield Check("special tokens", "ok", f"end {self._tokenizer.eos_token!r}")
        spelt = [p for p in self._prompts if any(token in p for token in self._tokenizer.all_special_tokens)]
        if spelt:
            yield Check("special tokens in prompts", "warning", f"{len(spelt)} prompts spell one", "Reword them")

    def room(self) -> Iterator[Check]:
        if not self._ids or self._model is None:
            raise _Missing("model or tokenizer")
        longest, new = max(map(len, self._ids)), self.config.sampling.max_new_tokens
        context = getattr(self._model.get_text_config(decoder=True), "max_position_embeddings", None)
        found = f"the longest prompt has {longest} tokens, a response at most {new}"
        if context is not None and longest + new > context:
            rule = f"prompt and new tokens fit into the model's context of {context} tokens"
            raise UserError(rule, f"{longest} and {new}", "Lower max_new_tokens, or shorten the prompts")
        yield Check("room", "ok", found + (f"; the context has {context}" if context else ""))

    def sae(self) -> Iterator[Check]:
        from esr.subjects.sae import load_reader, read_layer_of, residual_layer

        spec = self.config.subject
        reader = load_reader(spec)
        if self._model is not None:
            width = int(self._model.get_text_config(decoder=True).hidden_size)
            if reader.d_in != width:
                raise UserError(
                    f"the SAE is as wide as the residual stream, {width}", f"an SAE of width {reader.d_in}",
                    "Choose an SAE trained on this model",
                )  # fmt: skip
        self._reader = reader
        layer = read_layer_of(reader, spec)
        trained = None if reader.hook_name is None else residual_layer(reader.hook_name)
        found = (
            f"{reader.architecture}, {reader.d_sae} latents of width {reader.d_in},"
            f" hook {reader.hook_name or 'unknown'}, read at layer {layer}"
        )
        if self._model is not None:
            from esr.subjects.layers import check_layer

            check_layer("read_layer", layer, int(self._model.get_text_config(decoder=True).num_hidden_layers))
        if trained is None:
            yield Check("SAE", "warning", found, "It does not say which layer it was trained on: make sure")
        elif trained != layer:
            yield Check("SAE", "warning", found, f"It was trained on layer {trained}: leave read_layer out, or be sure")
        else:
            yield Check("SAE", "ok", found)
        about = reader.sae.cfg.metadata
        named = getattr(about, "model_name", None)
        if named and not _same_model(str(named), spec.model):
            remedy = "Published SAEs of a base model are often used on its chat model: make sure it is meant"
            yield Check("SAE's model", "warning", f"trained on {named}, used on {spec.model}", remedy)

    def vectors(self) -> Iterator[Check]:
        from esr.subjects.vectors import read_vectors

        assert self.config.directions.vectors is not None
        width = None if self._model is None else int(self._model.get_text_config(decoder=True).hidden_size)
        found = read_vectors(self.folder / self.config.directions.vectors, d_model=width)
        state: State = "ok" if len(found) >= self.config.directions.count else "warning"
        remedy = "" if state == "ok" else f"{self.config.directions.count} directions are asked for: give more vectors"
        yield Check("vectors", state, f"{len(found)} in {self.config.directions.vectors}", remedy)

    def labels(self) -> Iterator[Check]:
        from esr.subjects.labels import read_labels

        path = self.config.subject.labels_path()
        if path is None:
            rule = "concreteness is judged by labels"
            raise UserError(rule, "no labels", 'Name a file ([subject] labels), or set concreteness = "none"')
        found = read_labels(path, None if self._reader is None else self._reader.d_sae)
        yield Check("labels", "ok", f"{len(found)} latents have one")

    # ---- what it takes

    def memory(self) -> Iterator[Check]:
        if self._model is None:
            raise _Missing("the model's configuration")
        from esr.studies.memory import memory_need

        sae = 0
        if self._reader is not None:
            sae = sum(p.numel() * p.element_size() for p in self._reader.sae.parameters())
        need = memory_need(self.config, self._model, max(map(len, self._ids), default=0), sae)
        self._rows, found = min(need.rows, BATCH), str(need)
        if need.free is None:
            yield Check("memory", "warning", f"{found}; how much is free on {need.where} is not known")
            return
        free = f"{need.free / _GIB:.1f} GiB"
        if need.loaded > need.free:
            rule = f"weights and SAE fit into the {free} that are free on {need.where}"
            fewer = ", fewer replicas" if need.copies > 1 else ""
            raise UserError(rule, found, f'Use a 16-bit dtype, device_map = "auto"{fewer}, or a larger machine')
        elif need.total > need.free:
            remedy = "Fewer responses will run at once: lower batch_size"
            yield Check("memory", "warning", f"{found}; {free} free on {need.where}", remedy)
        else:
            yield Check("memory", "ok", f"{found}; {free} free on {need.where}")

    def reconstruction(self) -> Iterator[Check]:
        if self._reader is None or not self._ids or self._model is None:
            raise _Missing("model, tokenizer or SAE")
        import torch

        from esr.subjects.part import load_lower_layers
        from esr.subjects.sae import read_layer_of

        layer = read_layer_of(self._reader, self.config.subject)
        part = load_lower_layers(self.config.subject, layer)
        rows = [part.residual(ids)[1:] for ids in self._ids[:PROBED]]  # the first token's is an outlier in many models
        h = torch.cat(rows).to(self._reader.device, self._reader.sae.dtype)
        with torch.no_grad():
            error = h - self._reader.sae.decode(self._reader.sae.encode(h))
            share = float(error.square().sum() / (h - h.mean(0)).square().sum())
        began = time.perf_counter()
        part.residual(self._ids[0][:1] * self._rows)
        self._step = (time.perf_counter() - began, layer + 1)
        found = f"{share:.1%} of the variance of {len(h)} tokens at layer {layer} unexplained (at most {GOOD_FVU:.0%})"
        remedy = "It does not fit this model at this layer: check model, layer and SAE"
        if not share <= WORST_FVU:
            yield Check("reconstruction", "failed", found, remedy)
        elif share > GOOD_FVU:
            yield Check("reconstruction", "warning", found, remedy)
        else:
            yield Check("reconstruction", "ok", found)

    def disk(self) -> Iterator[Check]:
        planned = plan_run(self.folder, self.config, self.config.experiments)
        free = shutil.disk_usage(self.folder).free
        needed = planned.responses * STORED
        if not os.access(self.folder, os.W_OK):
            raise UserError("the study's folder can be written", str(self.folder), "Change its permissions")
        found = f"about {needed / 1e6:.0f} MB for {planned.responses_in_words} responses; {free / 1e9:.1f} GB free"
        if needed > free:
            raise UserError("the disk has room for the study", found, "Free some space")
        yield Check("disk", "ok", found)

    def judge(self) -> Iterator[Check]:
        settings = self.config.judge
        judge = make_judge(settings, self.config.subject, self.folder)
        if settings.name == "rule":
            if self.config.subject.lexicon is None:
                remedy = "Good for trying things out: let a language model judge ([judge] name)"
                yield Check("judge", "warning", "rules without a lexicon: scores are word overlap", remedy)
            else:
                yield Check("judge", "ok", "rules, with the subject's lexicon")
            return
        preflight(judge)
        yield Check("judge's key", "ok", f"there is one for {settings.name}")
        if not self.ask_judge:
            yield Check("judge", "warning", "was not asked (--offline)")
            return
        from esr.judging.records import Exhibit, Scored
        from esr.studies.judges import make_judge as made

        short = settings.model_copy(update={"max_tries": 1, "timeout": min(settings.timeout, 30), "batch": False})
        asked = made(short, self.config.subject, self.folder)
        began = time.perf_counter()
        ((_, verdict),) = asked.judge(iter([Exhibit("preflight", "How do I boil an egg?", "Boil it for six minutes.")]))
        if isinstance(verdict, Scored):
            yield Check("judge", "ok", f"answered in {time.perf_counter() - began:.1f} s, in the right form")
        else:
            found = f"{verdict.reason}: {verdict.detail}".rstrip(": ")
            rule = f"the judge {settings.name} gives a verdict"
            raise UserError(rule, found, "Check its address, the network, and that the model follows a form")

    def cost(self) -> Iterator[Check]:
        planned = plan_run(self.folder, self.config, self.config.experiments)
        price = (
            "the judge's price is not known"
            if planned.dollars is None
            else f"judging up to about {planned.dollars:.2f} dollars"
        )
        seconds, basis = planned.seconds, "at this study's speed"
        if seconds is None and self._step is not None and self.config.engine.backend == "hf":
            step, layers = self._step
            whole = step * int(self._model.get_text_config(decoder=True).num_hidden_layers) / layers
            seconds = sum(s.tokens * s.expected / max(1, s.responses) for s in planned.stages) / self._rows * whole
            basis = f"very roughly, from one pass of {layers} layers over {self._rows} tokens"
        about = "time not known before it runs" if seconds is None else f"{duration(seconds)} ({basis})"
        yield Check("time and cost", "ok", f"{planned.responses_in_words} responses, {about}; {price}")


def _same_model(trained: str, used: str) -> bool:
    """Whether two names mean the same weights, organisation aside."""
    return trained.rsplit("/", 1)[-1].casefold() == used.rstrip("/").rsplit("/", 1)[-1].casefold()
