"""Trials as Parquet, for pandas, polars, DuckDB and whatever else reads it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from esr.analysis.trials import COLUMNS
from esr.errors import UserError

_INTEGERS = {"prompt_index", "seed", "n_tokens", "n_attempts", "explicit_restarts"}
_FLOATS = {"boost", "threshold", "first_score", "last_score", "improvement", "weight"}
_SURROGATES = re.compile("[\ud800-\udfff]")


def write_parquet(trials: pd.DataFrame, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a frame of trials (columns of ``esr.analysis.trials.COLUMNS``, and any others) and return the file.

    ``attempts`` is a list of structs ``start, end, score, quote, kind``, ``segments`` a list of numbers. What does not
    exist is null, not NaN, so that SQL's averages leave it out. Lone surrogates, which Parquet's strings cannot hold,
    become U+FFFD. Each column carries its description, and the file ``about`` (plain data) as JSON under ``esr``.
    The frame that pandas reads back goes into ``esr.summarise`` and ``compare`` as it is. Raises UserError for an
    empty frame, or when the file cannot be written.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    path = Path(path).expanduser()
    if trials.empty:
        raise UserError("an export needs judged trials", "an empty frame", "Run the study first: esr run STUDY")
    fields, arrays = [], []
    for name in trials.columns:
        array = _array(str(name), trials[name].tolist(), pa)
        description = {"description": COLUMNS[name]} if name in COLUMNS else None
        fields.append(pa.field(str(name), array.type, metadata=description))
        arrays.append(array)
    schema = pa.schema(fields, metadata={"esr": json.dumps(dict(about or {}))})
    partial = path.with_name(path.name + ".partial")
    try:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), partial, compression="zstd")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError("the file of an export can be written", f"{error.strerror or error}: {path}") from None
    return path


def _array(name: str, values: list[Any], pa: Any) -> Any:
    if name == "attempts":
        at = [("start", pa.int64()), ("end", pa.int64()), ("score", pa.float64()), ("quote", pa.string())]
        structs = [[asdict(a) | {"quote": _encodable(a.quote)} for a in attempts] for attempts in values]
        return pa.array(structs, pa.list_(pa.struct([*at, ("kind", pa.string())])))
    if name == "segments":
        return pa.array(values, pa.list_(pa.float64()))
    cells = [None if isinstance(v, float) and v != v else _encodable(v) for v in values]
    if name in _INTEGERS:
        return pa.array([None if v is None else int(v) for v in cells], pa.int64())
    return pa.array(cells, pa.float64() if name in _FLOATS else None)


def _encodable(value: Any) -> Any:
    return _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value
