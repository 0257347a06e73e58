"""``study.toml``: all settings of a study, as one validated record. Its hash is in every key of the store."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from esr.errors import UserError
from esr.steering.settings import EngineSettings
from esr.studies.calibration.records import CalibrationSettings
from esr.studies.mistakes import in_words, meant
from esr.subjects.spec import ORGANISMS, SubjectSpec

if TYPE_CHECKING:
    from esr.studies.experiments.registry import Settings

FORMAT = 1
"""Version of the study folder. A study of another version is refused."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingSettings(_Section):
    """How responses are drawn; the fields of ``esr.steering.engine.Sampling``."""

    temperature: float = Field(0.6, ge=0)
    """Divides the logits; 0 is greedy. Published: 0.6."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the smallest set of most likely tokens whose probability reaches this."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Logits of tokens already seen are divided (if positive) or multiplied (if negative) by it; 1 is off."""
    penalty_over: Literal["all", "generated"] = "all"
    """Which tokens count as seen: ``all``, prompt and response; ``generated``, the response only."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest response, in tokens; calibration answers are half as long."""


class PromptSettings(_Section):
    """Which prompts, and how many of them each direction meets."""

    file: str = "how-to"
    """A file with one prompt per line (relative to the study), or a bundled set: ``how-to``, ``how-to-held-out``,
    ``organism``."""
    per_direction: int = Field(5, ge=1)
    """Trials per direction and condition: prompts are drawn without replacement, one seed each."""


class DirectionSettings(_Section):
    """Which directions are steered with. Every exclusion is counted and shown in the report."""

    vectors: str | None = None
    """A safetensors file of vectors instead of SAE latents (relative to the study)."""
    latents: tuple[int, ...] | None = None
    """Consider these latents only."""
    count: int = Field(40, ge=1)
    """How many directions the study uses; fewer when fewer pass."""
    relevance: Literal["paper", "released", "none"] = "paper"
    """``paper``: drop the latents most active on any unsteered response; ``released``: keep latents that are zero on
    every prompt's tokens (the released code); ``none``: keep all."""
    relevance_drop: int = Field(100, ge=0)
    """How many latents the paper rule drops."""
    concreteness: Literal["paper", "released", "none"] = "none"
    """``paper``: the upper half by concreteness of the label; ``released``: at least ``concreteness_minimum``."""
    concreteness_minimum: float = Field(65, ge=0, le=100)
    """What ``released`` asks for, 0 to 100."""
    exclude_promoted: bool = False
    """Leave out directions that directly raise the logits of restart words (always reported as a column)."""
    efficacy_boosts: tuple[float, ...] = ()
    """Gate: a direction must lower the score by ``efficacy_drop`` at one of these boosts; empty: no gate."""
    efficacy_drop: float = Field(20, gt=0, le=100)
    """Score points by which the gate wants the mean score lowered."""
    efficacy_prompts: int = Field(4, ge=1)
    """Prompts the gate tries each boost with."""
    baseline_per_prompt: int = Field(2, ge=1)
    """Unsteered responses per prompt, for relevance and the unsteered score."""


class JudgeSettings(_Section):
    """Who grades, and how much of the study."""

    name: str = "rule"
    """``rule`` (no network; scores well only with a lexicon, the organism's), or PROVIDER/MODEL as inspect_ai names it
    (extra ``judge``). Keys come from the provider's environment variable."""
    rubric: str | None = None
    """Markdown file to judge by instead of the bundled rubric (relative to the study)."""
    segments: bool = False
    """Also score the thirds of each response, for implicit recovery. Never part of ESR."""
    cover: Literal["all", "screened"] = "all"
    """``screened``: the grid's responses with a restart phrase, and a random ``cover_share`` of the others; rates are
    reweighted."""
    cover_share: float = Field(0.25, gt=0, le=1)
    """Share of the responses without a restart phrase that ``screened`` judges."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server."""
    batch: bool = False
    """The provider's batch mode: cheaper, and may take a day."""
    max_connections: int = Field(32, ge=1)
    """Most calls in flight."""
    max_tries: int = Field(3, ge=1)
    """Verdicts asked for until one has the right form."""
    timeout: float = Field(60, ge=1)
    """Seconds per call."""


TRANSPORT = {"base_url", "batch", "max_connections", "max_tries", "timeout"}
"""Settings of the judge that say how verdicts are fetched, not which."""


class StudyConfig(_Section):
    """Everything in ``study.toml``."""

    name: str = Field(min_length=1, max_length=200)
    """What the report calls the study."""
    format: int = FORMAT
    """Version of the study folder."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Master seed: everything random in the study hangs off it."""
    experiments: tuple[str, ...] = ("no-steering", "incidence")
    """What `esr run` runs when it is not told; keys from `esr experiments`, or "all"."""
    subject: SubjectSpec
    sampling: SamplingSettings = SamplingSettings()
    prompts: PromptSettings = PromptSettings()
    directions: DirectionSettings = DirectionSettings()
    calibration: CalibrationSettings
    judge: JudgeSettings = JudgeSettings()
    engine: EngineSettings = EngineSettings()
    experiment: dict[str, dict[str, Any]] = {}
    """Settings of experiments by key. Each is fixed when its experiment first runs."""

    @model_validator(mode="after")
    def _experiments_are_known(self) -> StudyConfig:
        for key in self.experiment:
            self.settings_of(key)
        return self

    @model_validator(mode="after")
    def _needs_directions(self) -> StudyConfig:
        if self.directions.vectors is None and self.subject.sae is None:
            raise ValueError("directions come from an SAE ([subject.sae]) or a vectors file ([directions] vectors)")
        return self

    def settings_of(self, key: str) -> Settings:
        """An experiment's settings, validated. Raises UserError for an unknown experiment or a wrong setting."""
        from esr.studies.experiments.registry import experiment

        try:
            return experiment(key).settings.model_validate(self.experiment.get(key, {}))
        except ValidationError as error:
            wrong = in_words(error, experiment(key).settings)
            raise UserError(f"every setting of [experiment] {key} is as it must be", wrong) from None

    def locked(self) -> dict[str, Any]:
        """The settings that determine results, as plain data: all but what concerns experiments, how the judge is
        reached, and [engine], of which only a backend that draws tokens in its own way counts."""
        settings = self.model_dump(
            mode="json", exclude={"engine": True, "experiments": True, "experiment": True, "judge": TRANSPORT}
        )
        settings["calibration"] = self.calibration.describe()
        if self.engine.backend != "hf" and self.sampling.temperature > 0:
            settings["engine"] = {"backend": self.engine.backend}
        return settings

    def selection_key(self) -> str:
        """Hash of the settings that determine which directions are chosen."""
        return _digest({k: v for k, v in self.locked().items() if k != "calibration"})

    def digest(self) -> str:
        """SHA-256 of ``locked()``, 16 hex digits."""
        return _digest(self.locked())


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def read_config(folder: Path) -> StudyConfig:
    """Read and validate ``folder/study.toml``.

    Raises UserError for a missing file, broken TOML, an unknown or wrong setting, or another format version.
    """
    path = folder / "study.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("a study is a folder with a study.toml", str(folder), "Make one with `esr new`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError("study.toml is valid TOML", f"{error} in {path}") from None
    except OSError as error:
        raise UserError("study.toml can be read", f"{error.strerror}: {path}") from None
    if data.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"this version of esr reads study format {FORMAT}",
            data["format"],
            "Use the version that made the study",
        )
    return parse_config(data, str(path))


def parse_config(data: dict[str, Any], where: str) -> StudyConfig:
    """Validate settings. A ``subject.preset`` supplies defaults for the subject, sampling and calibration.

    Raises UserError that lists every wrong setting.
    """
    try:
        return StudyConfig.model_validate(with_preset(data))
    except ValidationError as error:
        raise UserError(f"every setting in {where} is as it must be", in_words(error, StudyConfig)) from None


def with_preset(data: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a published or bundled subject supplies; what the user wrote wins."""
    if not isinstance(data.get("subject", {}), dict):
        return data  # validation names what is wrong
    subject = dict(data.get("subject", {}))
    key = subject.pop("preset", None)
    if key is None:
        return data
    from esr.subjects.published import ORGANISM_DIRECTIONS, published_subjects

    presets = published_subjects()
    if not isinstance(key, str) or key not in presets:
        raise UserError("subject.preset names a known subject", key, meant(key, presets))
    preset = presets[key]
    defaults = {
        "subject": preset.spec.model_dump(mode="json", exclude_none=True),
        "sampling": {
            "temperature": preset.temperature,
            "repetition_penalty": preset.repetition_penalty,
            "max_new_tokens": preset.max_new_tokens,
        },
        "calibration": {
            "prior_mean": preset.prior_mean, "prior_sd": preset.prior_sd,
            "lower": 0.0, "upper": preset.upper_bound,
        },
        "directions": ORGANISM_DIRECTIONS if key in ORGANISMS else {},
    }  # fmt: skip
    filled = {**data, "subject": {**defaults["subject"], **subject}}
    for section in ("sampling", "calibration", "directions"):
        if isinstance(given := data.get(section, {}), dict):
            filled[section] = {**defaults[section], **given}
    return filled
