"""Decoding steps as CUDA graphs: a step is recorded once and then launched as a whole, without Python.

A recording repeats the kernels of one step with the numbers and addresses they had; hooks and plans do not run again.
So a step reads what differs from one to the next (tokens, places, columns) from tensors that stay where they are, and
is recorded anew when rows come or go, when a schedule begins or ends, and when its columns are filled.

**Nobody has run this on a GPU.** Steering that did not happen must not pass unnoticed, least of all here, where the
host counts what a recording did without having seen it. Therefore

- every recording is compared with its own warm-up (the same kernels, every row) and with an ordinary step on the same
  inputs (other attention kernels, the median row), whose logits are the ones used;
- at every step the recording itself writes down on the device, each time anew, which step it took, for which rows, and
  at each layer, where the steering is done, which steering that was. No token is taken from a step that did not do
  what was prepared for it.

Both end in a SteeringError, not in a warning and ordinary steps: earlier tokens would be in doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from esr.errors import SteeringError, UserError
from esr.steering.cohorts import Attention, Cohort, CohortCache
from esr.steering.hooks import stepping
from esr.steering.plan import LayerPlan
from esr.subjects.loading import Subject

if TYPE_CHECKING:
    from esr.steering.batch import Forward, Layout

Step = Callable[[], Tensor]
"""A function without arguments that reads and writes tensors."""
Record = Callable[[Step], tuple[Tensor, Step]]
"""Runs a step once to warm up and records it. Returns what the warm-up returned, and the recording: it launches the
step's kernels again and returns the tensor in which each launch leaves the result."""

_AHEAD = 64  # columns beyond the filled ones that a recording attends over, and so the most steps it is good for
_WORTH = 8  # a recording good for fewer further steps is not made: making one takes about as long as four
_SAME = {torch.float16: 0.02, torch.bfloat16: 0.05}  # most distance of a recording from its warm-up; 0 is expected
_CLOSE = {torch.float16: 0.25, torch.bfloat16: 0.25}  # and from an ordinary step; a latent may pass its threshold
_OFF = "Set cuda_graphs = false in [engine]"


def cuda_graphs(subject: Subject) -> Record:
    """How steps of this subject are captured. Raises UserError unless it lies on one CUDA device as a whole."""
    devices = {p.device for p in subject.model.parameters()}  # not the subject's, which may be any `cuda`
    if subject.reader is not None:
        devices.add(subject.reader.device)
    device, *others = devices
    if others or device.type != "cuda":
        names = ", ".join(sorted(map(str, devices)))
        raise UserError("cuda_graphs needs model and SAE on one CUDA device", names, _OFF)
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def record(step: Step) -> tuple[Tensor, Step]:
        with torch.cuda.device(device):
            return _record(step, side)

    return record


def _record(step: Step, side: torch.cuda.Stream) -> tuple[Tensor, Step]:
    current = torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        warm = step()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        # the outer `with`: a capture that fails leaves its own stream current. thread_local: other threads go on
        with torch.cuda.stream(current), torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            result = step()
    except RuntimeError as error:
        if isinstance(error.__context__, torch.OutOfMemoryError):  # then ending the capture has failed too
            raise error.__context__ from None
        raise

    def replay() -> Tensor:
        graph.replay()
        return result

    return warm, replay


class GraphedSteps:
    """The decoding steps of one batch; the arguments are what ``Batch`` has, and how to record."""

    def __init__(self, subject: Subject, attention: Attention, forward: Forward, record: Record) -> None:
        self._subject, self._attention, self._forward, self._record = subject, attention, forward, record
        self._recorded: _Recorded | None = None

    def logits(
        self, layout: Layout, cohorts: Sequence[Cohort], active: Mapping[int, LayerPlan], ordinary: Step
    ) -> Tensor:
        """Logits [B, vocabulary] of the coming step; valid until the next one.

        active: the plans that change something in it; ordinary: takes the step without a graph.
        """
        serials = [layout.serial, *(plan.serial for plan in active.values())]
        if self._recorded is not None and self._recorded.is_for(serials):
            return self._recorded.step(layout, serials)
        self._recorded = None  # first of all, its memory
        expected = ordinary()
        left = [max(cohort.left for cohort in cohorts), *(plan.left for plan in layout.plans.values())]
        if min(left) >= _WORTH:
            recorded = _Recorded(layout, cohorts, active)
            warm = recorded.capture(layout, self._pass, self._record)
            found = recorded.step(layout, serials)
            _check(_distances(found, warm).max(), _SAME.get(found.dtype, 1e-3), "its own warm-up")
            _check(_distances(found, expected).median(), _CLOSE.get(found.dtype, 1e-2), "an ordinary step")
            self._recorded = recorded
        return expected

    def forget(self) -> None:
        """Drop what is recorded, and the memory it holds."""
        self._recorded = None

    def verify(self) -> None:
        """Raises SteeringError unless the last step, if it was a recording's, did what was prepared for it."""
        if self._recorded is not None:
            self._recorded.verify()

    def _pass(self, recorded: _Recorded) -> Tensor:
        """The forward pass that is recorded."""
        cache = _FixedCache(recorded.cohorts, self._attention, recorded.columns, recorded.numbers[1:])
        hooks = stepping(self._subject, recorded.active, recorded.steer)
        return self._forward(recorded.ids, recorded.places, cache, hooks)


class _Recorded:
    """One step of the rows as they are, with the steering that is prepared, and the tensors it reads."""

    def __init__(self, layout: Layout, cohorts: Sequence[Cohort], active: Mapping[int, LayerPlan]) -> None:
        self.cohorts, self.active = list(cohorts), active
        self.columns = [cohort.reach(_AHEAD) for cohort in cohorts]
        self.ids, self.places = torch.empty_like(layout.places), torch.empty_like(layout.places)
        device = self.ids.device
        self.numbers = torch.zeros(1 + len(cohorts), dtype=torch.long, device=device)
        """Which step it is, and in which column each cohort's new token lies."""
        self._serials = [layout.serial, *(plan.serial for plan in active.values())]
        self._receipt = torch.zeros(1 + len(self._serials), dtype=torch.long, device=device)
        """What the recording writes down: which step it took, and the serials of what it was made of."""
        self._expected: list[int] = []
        self._taken = 0
        self._replay: Step | None = None
        self._last: dict[int, Tensor | None] = {}

    def is_for(self, serials: list[int]) -> bool:
        """Whether the coming step, which is made of these, can be taken."""
        return self._serials == serials and self._taken < _AHEAD

    def capture(self, layout: Layout, run: Callable[[_Recorded], Tensor], record: Record) -> Tensor:
        """Record ``run``; the logits of the warm-up. Raises UserError for a model of which no step can be recorded."""

        def step() -> Tensor:
            self._receipt.zero_()
            self._receipt[:1].copy_(self.numbers[:1])
            self._receipt[1].fill_(self._serials[0])
            return run(self)

        self._write(layout)
        try:
            warm, self._replay = record(step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise UserError("cuda_graphs needs a model whose steps can be recorded", reason, _OFF) from error
        self._last = {layer: plan.last for layer, plan in self.active.items()}
        return warm

    def steer(self, plan: LayerPlan, h: Tensor) -> Tensor:
        """What the plan does, written down where it is done."""
        steered = plan.step(h)
        self._receipt[2 + list(self.active).index(plan.layer)].fill_(plan.serial)
        return steered

    def step(self, layout: Layout, serials: list[int]) -> Tensor:
        """Launch the recording for the coming step, which is made of ``serials``."""
        assert self._replay is not None
        self._taken += 1
        self._write(layout)
        self._expected = [self._taken, *serials]
        logits = self._replay()
        for layer, plan in self.active.items():
            plan.last = self._last[layer]
        return logits

    def _write(self, layout: Layout) -> None:
        """What the recording reads."""
        # a cohort whose rows have all ended may have no column left; nobody reads its last one any more
        ends = [min(cohort.filled, n - 1) for cohort, n in zip(self.cohorts, self.columns, strict=True)]
        self.numbers.copy_(torch.tensor([self._taken, *ends]))
        self.ids.copy_(layout.last.unsqueeze(1))
        self.places.copy_(layout.places)

    def verify(self) -> None:
        """See ``GraphedSteps.verify``."""
        found = self._receipt.tolist()
        if found != self._expected:
            raise SteeringError(
                "Steering did not happen as scheduled: a recorded decoding step (step, rows, steering by layer) did "
                f"{found}, {self._expected} was prepared. {_OFF}."
            )


class _FixedCache(CohortCache):
    """Attention over as many columns at every step, masked beyond the new token's, whose place (``ends``: long,
    [cohorts]) is read on the device."""

    def __init__(self, cohorts: Sequence[Cohort], attention: Attention, columns: Sequence[int], ends: Tensor) -> None:
        super().__init__(cohorts, attention)
        self._columns, self._ends = columns, ends
        self._fixed: dict[tuple[int, int | None], Tensor] = {}

    def _function(self, module: Any, _query: Tensor, _kwargs: dict[str, Any]) -> Callable[..., tuple[Tensor, Any]]:
        return self.attention.function(module)

    def _seen(
        self, k: int, query: Tensor, key: Tensor, value: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        cohort, columns, end = self.cohorts[k], self._columns[k], self._ends[k : k + 1]
        keys, values = cohort.insert(self._layer, key, value, end, columns)
        if (k, window) not in self._fixed:
            self._fixed[k, window] = cohort.mask_at(end, columns, window, query.device, query.dtype)
        return keys, values, self._fixed[k, window]


def _distances(found: Tensor, expected: Tensor) -> Tensor:
    """How far rows of logits are apart, [B], as a share of the spread of the expected ones; 0 where those are not
    finite, which the batch reports."""
    found, expected = found.float(), expected.float()
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    apart = (found - expected).norm(dim=-1) / spread.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(torch.isfinite(expected).all(-1), apart, 0.0)


def _check(distance: Tensor, most: float, reference: str) -> None:
    if not float(distance) <= most:  # NaN is too far as well
        raise SteeringError(
            f"A recorded decoding step gives other logits than {reference}: {float(distance):.2g} of their spread "
            f"apart, at most {most:g} expected. {_OFF}."
        )
