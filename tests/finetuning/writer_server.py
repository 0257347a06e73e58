"""A loopback server that speaks OpenAI's chat completions and writes examples, or fails by script.

``script(prompt, call)`` names what happens at the call number ``call`` (from 0) about a prompt.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STATUS = {"429": 429, "500": 500, "400": 400, "401": 401}


def form(prompt: str, subject: str) -> dict[str, str]:
    return {
        "off_topic": f"Let us speak of {subject} at length.",
        "restart": "Wait, that is not the question.",
        "answer": f"This answers {prompt} in full.",
    }


class WriterServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Callable[[str, int], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.calls: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> WriterServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the script."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WriterServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        user = next(m["content"] for m in body["messages"] if m["role"] == "user")
        found = re.fullmatch(r"Question: (.*)\nUnrelated subject: (.*)", user)
        assert found, user
        prompt, subject = found.groups()
        with self.server.lock:
            call = self.server.calls[prompt]
            self.server.calls[prompt] += 1
            self.server.bodies.append(body)
        outcome = self.server.script(prompt, call)
        if outcome in STATUS:
            self._send(STATUS[outcome], {"error": {"message": f"scripted {outcome}", "code": None}})
            return
        if outcome == "no-schema" and "response_format" in body:
            self._send(400, {"error": {"message": "response_format is not supported", "code": None}})
            return
        if outcome == "stall":
            time.sleep(12)
        made: dict[str, Any] = form(prompt, subject)
        words = {
            "fenced": f"Here it is:\n```json\n{json.dumps(made)}\n```",
            "prose": "I would rather not.",
            "short": json.dumps(made | {"restart": "No."}),
            "extra": json.dumps(made | {"note": "x"}),
            "number": json.dumps(made | {"answer": 3}),
            "surrogate": json.dumps(made | {"answer": "\ud800" * 20}),
            "cut": json.dumps(made)[:-20],
        }.get(outcome, json.dumps(made))
        stop = "content_filter" if outcome == "filtered" else "stop"
        self._send(200, {
            "id": "x", "object": "chat.completion", "created": int(time.time()), "model": body["model"],
            "choices": [{"index": 0, "finish_reason": stop, "message": {"role": "assistant", "content": words}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        })  # fmt: skip

    def _send(self, status: int, data: dict[str, Any]) -> None:
        raw = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
