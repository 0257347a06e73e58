"""Plain vectors as directions, from a safetensors file, and how one is added to such a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError

_ABOUT = "esr.vectors"  # entry of a file's metadata


def read_vectors(path: str | Path, d_model: int | None = None) -> dict[str, NDArray[np.float32]]:
    """Named vectors, float32, shape [d_model] each, exactly as stored.

    Every 1-D tensor is one vector under its own name. A 2-D tensor [n, d_model] is n vectors, named by the
    JSON list in the file's metadata entry ``names`` if it is the only tensor, else ``tensor:row``.

    Raises UserError for a file that is missing or no safetensors, holds no vector, another width than
    ``d_model``, NaN, infinity or integers, a tensor of other rank, or names that do not fit.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError("a file of vectors exists", str(path))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except SafetensorError as error:
        raise UserError(
            "a file of vectors is in the safetensors format",
            str(path),
            "Write it with safetensors.torch.save_file",
        ) from error
    vectors: dict[str, NDArray[np.float32]] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or tensor.numel() == 0:
            raise UserError(
                "a tensor of vectors holds floating-point numbers in shape [d_model] or [n, d_model]",
                f"{name}, {tensor.dtype}, shape {tuple(tensor.shape)}",
            )
        values: NDArray[np.float32] = tensor.float().numpy()
        if tensor.ndim == 1:
            vectors[name] = values
        else:
            vectors |= dict(zip(_row_names(name, len(values), metadata, alone=len(tensors) == 1), values, strict=True))
    if not vectors:
        raise UserError("a file of vectors holds at least one", f"none in {path}")
    for name, vector in vectors.items():
        if d_model is not None and len(vector) != d_model:
            raise UserError(
                f"a vector is as wide as the residual stream, {d_model}",
                f"width {len(vector)} for {name} in {path}",
            )
        if not np.isfinite(vector).all():
            raise UserError("a vector holds finite numbers only", f"NaN or infinity in {name} of {path}")
    return vectors


def _row_names(tensor: str, rows: int, metadata: dict[str, str], alone: bool) -> list[str]:
    if not (alone and "names" in metadata):
        return [f"{tensor}:{row}" for row in range(rows)]
    try:
        names = json.loads(metadata["names"])
    except ValueError:
        names = None
    if not isinstance(names, list) or len(names) != rows or len({str(n) for n in names}) != rows:
        raise UserError(f"the metadata entry names is a JSON list of {rows} different names", metadata["names"])
    return [str(name) for name in names]


def check_addable(path: str | Path, name: str, *, replace: bool = False, d_model: int | None = None) -> None:
    """Whether ``add_vector`` would take the name and the file.

    Raises UserError for a name that is empty or not printable, or that the file has already (unless ``replace``); a
    folder that is not there; and a file that holds no vectors, or vectors of another width than ``d_model``.
    """
    path = Path(path).expanduser()
    if not name.strip() or not name.isprintable() or name == "__metadata__":
        raise UserError("a vector has a name of printable characters", repr(name))
    if not path.parent.is_dir():
        raise UserError("a file of vectors is written into a folder that exists", str(path.parent))
    if path.exists() and name in read_vectors(path, d_model) and not replace:
        raise UserError("a vector's name is new in its file", f"{name} in {path}", "Choose another, or use --replace")


def read_about(path: str | Path) -> dict[str, dict[str, Any]]:
    """What ``add_vector`` wrote about the vectors of a file, by name; empty for a file it did not write.

    Raises UserError when that entry of the metadata is not as it was written.
    """
    from safetensors import safe_open

    path = Path(path).expanduser()
    read_vectors(path)
    with safe_open(path, framework="np") as file:
        entry = (file.metadata() or {}).get(_ABOUT, "{}")
    try:
        about = json.loads(entry)
    except ValueError:
        about = None
    if not isinstance(about, dict) or not all(isinstance(value, dict) for value in about.values()):
        raise UserError(f"the metadata entry {_ABOUT} is a JSON object of objects", f"{entry[:80]} in {path}")
    return about


def add_vector(
    path: str | Path, name: str, vector: NDArray[np.float32], about: Mapping[str, Any], *, replace: bool = False
) -> None:
    """Add a vector, shape [d_model], to a safetensors file, which is made if it is not there.

    What the file holds stays, every vector under the name ``read_vectors`` gives it. ``about`` (plain data) goes into
    the metadata entry ``about``, a JSON object by name. The file is replaced in one step: stopped at any moment, it is
    the old one or the new one. Raises UserError as ``check_addable`` does, for a vector that is not finite, and when
    the file cannot be written.
    """
    from safetensors import safe_open
    from safetensors.numpy import save

    path = Path(path).expanduser()
    vector = np.ascontiguousarray(vector, dtype=np.float32)
    if vector.ndim != 1 or vector.size == 0 or not np.isfinite(vector).all():
        raise UserError("a vector is finite numbers of shape [d_model]", f"shape {vector.shape} for {name}")
    check_addable(path, name, replace=replace, d_model=len(vector))
    vectors: dict[str, NDArray[np.float32]] = {}
    metadata: dict[str, str] = {}
    known: dict[str, Any] = {}
    if path.exists():
        vectors, known = read_vectors(path), read_about(path)
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
        metadata.pop("names", None)  # every vector is a tensor under its own name from now on
    metadata[_ABOUT] = json.dumps({**known, name: dict(about)}, allow_nan=False)
    content = save(vectors | {name: vector}, metadata=metadata)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError("a file of vectors can be written", f"{error.strerror}: {path}") from None
