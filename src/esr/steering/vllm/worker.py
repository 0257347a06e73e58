"""The part of the engine that lives in vLLM's workers.

vLLM adds ``SteeringWorker`` to its worker class (``worker_extension_cls``); the engine calls its methods by name. It
wraps three things of the worker's own: the model runner's ``execute_model``, to see which requests are new and how many
tokens of each come next; the place where the order of the batch is known; and ``compute_logits``, to see that they are
finite. Forward hooks on the decoder layers do the steering, so the model must run eagerly: compiled code would call no
hook, and the positions counted would fall short of those scheduled. One on the whole model compares next-token
distributions, where a request asks for that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from esr.steering.vllm.layers import own_layers, residual_stream, with_stream
from esr.steering.vllm.owner import follow_owner
from esr.steering.vllm.table import RequestTable
from esr.steering.vllm.wire import EXTRA

follow_owner()  # vLLM imports this in its workers, and calls nothing of it until the weights are there


class SteeringWorker:
    """Methods the engine calls in every worker. Their names begin with ``esr_`` to stay clear of vLLM's."""

    def esr_install(self, spec: str, n_layers: int, read_layer: int) -> str:
        """Load the SAE, if the spec (JSON) names one, and set the hooks. Returns JSON: layers held, device, runner."""
        from vllm.distributed import get_tensor_model_parallel_rank

        from esr.subjects.sae import load_reader
        from esr.subjects.spec import SubjectSpec

        runner: Any = self.model_runner  # type: ignore[attr-defined]
        subject = SubjectSpec.model_validate_json(spec)
        reader = None if subject.sae is None else load_reader(subject, str(runner.device))
        layers = own_layers(runner.get_model(), n_layers)
        reads = get_tensor_model_parallel_rank() == 0
        self.esr_table = RequestTable(list(layers), runner.device, reader, read_layer, reads)
        install(runner, layers, self.esr_table)
        about = {"device": runner.device.type, "runner": type(runner).__module__}
        return json.dumps(about | {"layers": sorted(layers)})

    def esr_register(self, vectors: dict[str, bytes]) -> None:
        """See ``RequestTable.register``."""
        self.esr_table.register(vectors)

    def esr_forget(self, text: int) -> None:
        """See ``RequestTable.forget``."""
        self.esr_table.forget(text)

    def esr_take(self, keys: list[int]) -> list[list[Any]]:
        """See ``RequestTable.take``."""
        return self.esr_table.take(keys)


def install(runner: Any, layers: dict[int, nn.Module], table: RequestTable) -> None:
    """Connect a table with a model runner: the first (``gpu_model_runner``) or the second (``gpu.model_runner``).

    The second is written against the source of vLLM 0.32 and has not been run: it needs a GPU.
    """
    model = runner.get_model()
    for number, layer in layers.items():
        layer.register_forward_hook(_hook(table, number))
    schedule = _follow(runner, table)
    if hasattr(runner, "prepare_inputs"):
        _second_runner(runner, table, schedule)
    else:
        _first_runner(runner, model, table, schedule)
    compute_logits = model.compute_logits

    def looked_at(*args: Any, **kwargs: Any) -> Any:
        logits = compute_logits(*args, **kwargs)
        table.logits(logits)
        return logits

    model.compute_logits = looked_at

    def compare(_module: nn.Module, _args: Any, hidden: Any) -> None:
        if isinstance(hidden, Tensor):  # else the next pipeline stage has the last layers
            table.compare(hidden, compute_logits)

    model.register_forward_hook(compare)


def _hook(table: RequestTable, number: int) -> Callable[..., Any]:
    def steer(_module: Any, _args: Any, output: Any) -> Any:
        if not table.wants(number):
            return None
        steered: Tensor | None = table.steer(number, residual_stream(output))
        return None if steered is None else with_stream(output, steered)

    return steer


def _follow(runner: Any, table: RequestTable) -> dict[str, tuple[int, int]]:
    """Wrap ``execute_model``. Returns a dictionary that holds, during a step, {request: (first token, tokens)}."""
    execute_model = runner.execute_model
    schedule: dict[str, tuple[int, int]] = {}

    def followed(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dummy_run"):
            return execute_model(scheduler_output, *args, **kwargs)
        cached = scheduler_output.scheduled_cached_reqs
        starts = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        for new in scheduler_output.scheduled_new_reqs:
            starts[new.req_id] = new.num_computed_tokens
            table.add(new.req_id, new.sampling_params.extra_args[EXTRA], new.prompt_token_ids)
        schedule.update({id: (starts[id], n) for id, n in scheduler_output.num_scheduled_tokens.items()})
        try:
            return execute_model(scheduler_output, *args, **kwargs)
        finally:
            schedule.clear()
            table.end()

    runner.execute_model = followed
    return schedule


def _first_runner(runner: Any, model: nn.Module, table: RequestTable, schedule: dict[str, tuple[int, int]]) -> None:
    """Its persistent batch is in order when the model is called; outside of a step (profiling) nothing is noted."""

    def begin(*_: Any) -> None:
        if schedule:
            _begin(table, runner.input_batch.req_ids, schedule)

    model.register_forward_pre_hook(begin)


def _second_runner(runner: Any, table: RequestTable, schedule: dict[str, tuple[int, int]]) -> None:
    """It sorts the requests of each step anew and returns their order with the inputs."""
    prepare_inputs = runner.prepare_inputs

    def noted(*args: Any, **kwargs: Any) -> Any:
        batch = prepare_inputs(*args, **kwargs)
        if schedule:
            _begin(table, batch.req_ids, schedule)
        return batch

    runner.prepare_inputs = noted


def _begin(table: RequestTable, ids: list[str], schedule: dict[str, tuple[int, int]]) -> None:
    stretches = [schedule[id] for id in ids]
    table.begin(ids, [start for start, _ in stretches], [length for _, length in stretches])
