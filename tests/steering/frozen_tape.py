"""What a CUDA graph does, on a CPU: operations recorded with the numbers and the memory they had, run again without
Python. What a GPU refuses while recording is refused too: waiting for a result, tensors made of Python's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

REFUSED = "operation not permitted when stream is capturing"
_WAITING = {"item", "tolist", "numpy", "cpu", "tensor", "from_numpy", "as_tensor", "__bool__", "__int__", "__float__"}
_DYNAMIC = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Tape:
    """A ``Record``. ``recorded``: how many steps were; ``replayed``: how often they ran again."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], Tensor]]:
        warm = step()
        tape = _Recorder()
        with tape, _NoWaiting():
            result = step()
        tape.undo()
        self.recorded += 1

        def replay() -> Tensor:
            self.replayed += 1
            tape.run()
            return result

        return warm, replay


@dataclass
class _Operation:
    function: Any
    args: Any
    kwargs: Any
    results: list[Tensor]
    """New memory that the results are written to; empty if the operation writes to memory it was given."""

    def run(self) -> None:
        fresh = tree_leaves(self.function(*self.args, **self.kwargs))
        for old, new in zip(self.results, fresh, strict=bool(self.results)):
            old.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._operations: list[_Operation] = []
        self._own: dict[int, Tensor] = {}  # by address of the memory
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        picks = func is torch.ops.aten.index.Tensor and not any(t.dtype == torch.bool for t in given[1:])
        if (_DYNAMIC & set(func.tags) and not picks) or func is torch.ops.aten.lift_fresh.default:
            raise RuntimeError(f"{REFUSED}: {func}")
        writes = func._schema.is_mutable
        if writes:
            self._remember(given)
        out = func(*args, **kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        shared = {_address(t) for t in given} & {_address(t) for t in results}
        if not writes and not shared:
            self._own |= {_address(t): t for t in results}
        if writes or not shared:  # what only looks at memory in another way has nothing to do
            args, kwargs = tree_map(lambda x: x, (args, kwargs))  # lists as they are now
            self._operations.append(_Operation(func, args, kwargs, [] if writes else results))
        return out

    def _remember(self, given: list[Tensor]) -> None:
        for t in given:
            if _address(t) not in self._own and _address(t) not in self._before:
                whole = torch.empty(0, dtype=t.dtype).set_(t.untyped_storage())
                self._before[_address(t)] = whole, whole.clone()

    def undo(self) -> None:
        """As if nothing had been computed yet: recording does not run anything."""
        for whole, before in self._before.values():
            whole.copy_(before)
        for t in self._own.values():
            t.fill_(torch.nan) if t.is_floating_point() else t.zero_()

    @torch.no_grad()
    def run(self) -> None:
        for operation in self._operations:
            operation.run()


class _NoWaiting(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _WAITING:
            raise RuntimeError(f"{REFUSED}: {func.__name__}")
        return func(*args, **(kwargs or {}))


def _address(t: Tensor) -> int:
    return t.untyped_storage().data_ptr() or id(t)
