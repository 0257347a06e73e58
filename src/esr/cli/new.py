"""The command that begins a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from esr.cli.app import StudyFolder, app
from esr.errors import UserError

BUNDLED = ("how-to", "how-to-held-out", "organism")


@app.command()
def new(
    study: StudyFolder,
    preset: Annotated[str | None, typer.Option(help="A known subject; see `esr subjects`.")] = None,
    model: Annotated[str | None, typer.Option(help="Hugging Face id or folder of a causal LM.")] = None,
    sae: Annotated[
        str | None, typer.Option(help="SAE: a folder saved by SAELens, or RELEASE:ID of one SAELens knows.")
    ] = None,
    vectors: Annotated[str | None, typer.Option(help="Safetensors file of vectors, instead of an SAE.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Decoder layer to steer, from 0.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Text with {prompt}, for a model without a chat template.")
    ] = None,
    upper: Annotated[float | None, typer.Option(help="Highest boost calibration may try.")] = None,
    target: Annotated[float, typer.Option(min=0, max=100, help="Mean score that defines the threshold.")] = 30.0,
    count: Annotated[int, typer.Option(min=1, help="Directions.")] = 40,
    prompts: Annotated[str, typer.Option(help="Prompt file, or a bundled set.")] = "how-to",
    per_direction: Annotated[int, typer.Option(min=1, help="Trials per direction and condition.")] = 5,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest response, in tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Master seed.")] = 0,
) -> None:
    """Write a commented study.toml.

    Example: esr new my-study --model google/gemma-2-2b-it --sae
    gemma-scope-2b-pt-res-canonical:layer_16/width_16k/canonical --layer 16 --upper 300
    """
    from esr.studies.new import write_study

    subject: dict[str, Any] = {"preset": preset, "model": model, "steer_layer": layer, "template": template}
    calibration: dict[str, Any] = {"target": target}
    directions: dict[str, Any] = {"count": count, "vectors": vectors}
    if preset is None:
        if model is None or layer is None:
            raise UserError("a new study names --preset, or --model and --layer", None, "See `esr subjects`")
        if upper is None:
            raise UserError(
                "a subject without published bounds needs --upper, the highest boost to try", None,
                "A boost of the residual stream's own norm is a good first guess",
            )  # fmt: skip
        if (sae is None) == (vectors is None):
            raise UserError(
                "a study steers with an SAE's latents or with vectors", "both" if sae else "neither",
                "Give --sae or --vectors",
            )  # fmt: skip
    for option, path in (("--vectors", vectors), ("--prompts", None if prompts in BUNDLED else prompts)):
        if path is not None and not Path(path).is_file():
            raise UserError(f"{option} names a file that exists", path)
    if sae is not None:
        release, colon, sae_id = sae.partition(":")
        by_id = colon and not Path(sae).exists()
        subject["sae"] = {"release": release, "id": sae_id} if by_id else {"path": str(Path(sae).resolve())}
    if model is not None and Path(model).is_dir():
        subject["model"] = str(Path(model).resolve())
    if vectors is not None:
        directions["vectors"] = str(Path(vectors).resolve())
    if Path(prompts).is_file():
        prompts = str(Path(prompts).resolve())
    if upper is not None:
        calibration |= {"lower": 0.0, "upper": upper, "prior_mean": upper / 2, "prior_sd": upper / 4}
    config = write_study(
        study,
        {
            "name": study.resolve().name,
            "format": 1,
            "seed": seed,
            "experiments": ["no-steering", "incidence"],
            "subject": {k: v for k, v in subject.items() if v is not None},
            "sampling": {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens},
            "prompts": {"file": prompts, "per_direction": per_direction},
            "directions": directions,
            "calibration": calibration,
            "judge": {"name": "rule"},
        },
    )
    typer.echo(f"Wrote {study / 'study.toml'} for {config.subject.model}. Next: esr run {study}")
