"""The command that makes a vector to steer with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from esr.cli.app import app, console
from esr.errors import UserError


@app.command()
def vectors(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Safetensors file the vector is added to.")],
    name: Annotated[str, typer.Option(help="The vector's name; its label in tables.")],
    positive: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Texts that have it: one per line.")],
    negative: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Texts that do not: one per line.")],
    preset: Annotated[str | None, typer.Option(help="A known subject; see `esr subjects`.")] = None,
    model: Annotated[str | None, typer.Option(help="Hugging Face id or folder of a causal LM.")] = None,
    layer: Annotated[
        int | None, typer.Option(min=0, help="Decoder layer to read, from 0. Default: the one the preset steers.")
    ] = None,
    position: Annotated[
        str, typer.Option(help="Tokens of a text that are averaged: mean (all but the first), last, or last:N.")
    ] = "mean",
    chat: Annotated[
        bool, typer.Option("--chat", help="Texts are a user's turn in the chat template. Default: as they are.")
    ] = False,
    template: Annotated[
        str | None, typer.Option(help="With --chat: text with {prompt}, for a model without a chat template.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 (default of --model), bfloat16 or float16.")] = None,
    paragraphs: Annotated[bool, typer.Option("--paragraphs", help="Blank lines, not line ends, part texts.")] = False,
    scale: Annotated[
        bool, typer.Option("--scale", help="Give it the mean length of the residual stream. Default: as it comes.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a vector of the same name.")] = False,
) -> None:
    """Make a contrastive vector: mean residual stream on positive texts minus that on negative ones.

    A study steers with it through `esr new --vectors FILE`, or vectors in [directions] of study.toml. Example:
    esr vectors cities.safetensors --model google/gemma-2-2b-it --layer 16 --name paris --positive paris.txt
    --negative others.txt
    """
    from esr.directions.contrastive import make_vector
    from esr.reporting.untrusted import printable

    made = make_vector(
        _subject({"preset": preset, "model": model, "layer": layer, "template": template, "dtype": dtype}),
        out, name, positive, negative, layer=layer, position=position, chat=chat, scale=scale,
        paragraphs=paragraphs, replace=replace,
    )  # fmt: skip
    typer.echo(f"Added {printable(name)} to {printable(str(out))}")
    lines = (
        f"Layer {made.layer}, {made.position} of {made.tokens[0]} and {made.tokens[1]} tokens in {made.texts[0]}"
        f" positive and {made.texts[1]} negative texts.",
        f"Length {made.norm:.4g}; the residual stream's is {made.residual_norm:.4g} on average, so a boost of"
        f" {made.residual_norm / made.norm:.3g} adds as much as is there.",
        "Separation of held-out texts is not known: it takes two texts on each side."
        if math.isnan(made.auc)
        else f"Separation of held-out texts (every second one, by the difference of means of the others): AUC"
        f" {made.auc:.3f}, {made.held_out[0]} positive and {made.held_out[1]} negative; 0.5 is chance.",
    )
    for line in lines:
        console().print(line)


def _subject(options: dict[str, Any]) -> Any:
    """The spec of the options. Raises UserError unless it is clear which model and which layer."""
    from esr.subjects.published import published_subject
    from esr.subjects.spec import SubjectSpec

    if (options["preset"] is None) == (options["model"] is None):
        both = "both" if options["preset"] else "neither"
        raise UserError("a vector is read from the subject of --preset or of --model", both, "See `esr subjects`")
    if options["dtype"] not in (None, "float32", "bfloat16", "float16"):
        raise UserError("a dtype is float32, bfloat16 or float16", options["dtype"])
    changes = {key: options[key] for key in ("template", "dtype") if options[key] is not None}
    if options["preset"] is not None:
        spec = published_subject(options["preset"]).spec
        return SubjectSpec.model_validate(spec.model_dump() | changes)
    if options["layer"] is None:
        raise UserError("--model needs --layer, the decoder layer to read", None)
    return SubjectSpec(model=options["model"], steer_layer=options["layer"], **changes)
