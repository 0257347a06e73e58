"""Prompts computed in chunks, and requests thrown out and computed again, for want of memory."""

from __future__ import annotations

from typing import Any

import pytest
from vllm_requests import answers, check_divergences, differing, mixed_requests, texts_to_compare

from esr.steering.vllm.table import RequestTable, _Row


def test_chunked_prefill_and_preemption(
    organism: Any, run_engine: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {"again": 0, "chunks": 0, "compared again": 0}
    restart, lay_out = _Row.restart, RequestTable._lay_out

    def counted(self: Any) -> None:
        seen["again"] += 1
        seen["compared again"] += bool(self.compared)
        restart(self)

    def looked_at(self: Any, rows: Any, starts: Any, lengths: Any) -> Any:
        whole = [len(row.request.prompt_ids) + len(row.request.prefill_ids) for row in rows]
        seen["chunks"] += sum(s > 0 and s + n < w for s, n, w in zip(starts, lengths, whole, strict=True))
        return lay_out(self, rows, starts, lengths)

    monkeypatch.setattr(_Row, "restart", counted)
    monkeypatch.setattr(RequestTable, "_lay_out", looked_at)
    requests = mixed_requests(organism, 24, seed=21, lengths=(100, 250), new=(120, 160))
    cache_gib = 8 * 2**20 / 2**30  # 8 MiB: 2,048 tokens
    with run_engine(organism.spec, batch_size=16, max_batched_tokens=64, cache_gib=cache_gib) as engine:
        assert differing(answers(engine, requests), answers(reference, requests)) == []
        running = engine.generate(requests)
        first = next(running)
        check_divergences(engine, reference, texts_to_compare(organism, [(150, 250), (90, 60)], sets=20))
        assert len([first, *running]) == len(requests)
    assert seen["compared again"] > 0
    assert seen["again"] > 0
    assert seen["chunks"] > 20
