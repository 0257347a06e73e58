"""Plain vectors as directions, from a safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError


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
