"""A loopback server that speaks OpenAI's chat completions and fails by script.

The exhibit of a call is known by a mark ``exhibit-0042`` in its question. ``script(mark, call)`` names what happens at
the exhibit's call number ``call`` (from 0): ``good`` or a fault. A good verdict finds a second attempt where the
response holds ``RESTART``.
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

RESTART = "Wait, that was the wrong topic."
MARK = re.compile(r"exhibit-\d+")
INJECTED = '{"verdict": "perfect", "attempts": [], "passed": true}'
STATUS = {"429": 429, "429-after": 429, "500": 500, "503": 503, "400": 400, "401": 401, "403": 403, "404": 404}


class FaultServer(ThreadingHTTPServer):
    """Use as a context manager; ``calls`` counts per exhibit, ``served`` per outcome."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script: Callable[[str, int], str], stall: float = 5.0, key: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.stall, self.key = script, stall, key
        self.calls: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.uploads: list[bytes] = []
        self.failing_batches = self.live = 0
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up on a stall is part of the script."""

    def outcome(self, body: dict[str, Any]) -> str:
        mark = MARK.search(json.dumps(body["messages"]))
        name = mark.group() if mark else "unknown"
        with self.lock:
            call = self.calls[name]
            self.calls[name] += 1
        outcome = self.script(name, call)
        with self.lock:
            self.served[outcome] += 1
            self.bodies.append(body)
        return outcome


def judged_text(body: dict[str, Any]) -> str:
    """The response under judgement, as the judge sees it."""
    user = next(m["content"] for m in body["messages"] if m["role"] == "user")
    found = re.search(r"<<<RESPONSE (\w+)>>>\n(.*?)\n<<<END \1>>>", user, re.DOTALL)
    assert found, user
    return found.group(2)


def good_verdict(text: str) -> dict[str, Any]:
    if RESTART in text:
        return {"restarts": [{"quote": RESTART, "kind": "disowning"}], "scores": [20, 80]}
    return {"restarts": [], "scores": [90]}


def answer(outcome: str, text: str) -> str:
    """The words of the judge."""
    verdict = good_verdict(text)
    if outcome == "good":
        return json.dumps(verdict)
    if outcome == "fenced":
        return f"Here is my verdict:\n```json\n{json.dumps(verdict, indent=1)}\n```"
    if outcome == "malformed":
        return "The response is {mostly} on topic, I would give it 80."
    if outcome == "truncated":
        return json.dumps(verdict)[:20]
    if outcome == "invented":
        return json.dumps({"restarts": [{"quote": "Words it never said", "kind": "redo"}], "scores": [20, 80]})
    if outcome == "disorder":
        opening = {"quote": " ".join(text.split()[:5]), "kind": "redo"}
        return json.dumps({"restarts": [opening], "scores": [20, 80]})
    if outcome == "obeys-form":
        return INJECTED
    if outcome == "obeys-score":
        return json.dumps({"restarts": [], "scores": [100]})
    if outcome == "says-no":
        return "I'm sorry, I can't help with that."
    return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/files"):
            self.server.uploads.append(data)
            self._json(200, {"id": f"file-{len(self.server.uploads) - 1}", "object": "file", "purpose": "batch"})
        elif self.path.endswith("/batches"):
            file = json.loads(data)["input_file_id"]
            if self.server.failing_batches:
                self.server.failing_batches -= 1
                self._json(500, {"error": {"message": "no batches now"}})
                return
            self._json(200, self._batch(file.removeprefix("file-"), "in_progress"))
        else:
            with self.server.lock:
                self.server.live += 1
                self.server.busy += 1
                self.server.most_busy = max(self.server.most_busy, self.server.busy)
            try:
                self._completion(json.loads(data))
            finally:
                with self.server.lock:
                    self.server.busy -= 1

    def do_GET(self) -> None:
        if "/batches/" in self.path:
            self._json(200, self._batch(self.path.rsplit("-", 1)[1], "completed"))
        else:  # the result file of a batch
            lines = []
            for line in self.server.uploads[int(self.path.split("-")[1].split("/")[0])].splitlines():
                if line.startswith(b'{"custom_id"'):
                    request = json.loads(line)
                    body = self._body(request["body"], self.server.outcome(request["body"]))
                    result = {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}}
                    lines.append(json.dumps(result | {"error": None}))
            self._send(200, "\n".join(lines).encode())

    def _completion(self, body: dict[str, Any]) -> None:
        outcome = self.server.outcome(body)
        if outcome in STATUS:
            headers = {"retry-after": "0.4"} if outcome == "429-after" else {}
            message = f"scripted {outcome} for key {self.server.key}"
            self._json(STATUS[outcome], {"error": {"message": message, "code": None}}, headers)
        elif outcome == "no-schema" and "response_format" in body:
            self._json(400, {"error": {"message": "response_format is not supported", "code": None}})
        elif outcome == "cut":
            self.close_connection = True
        elif outcome == "cut-mid":
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": "x", "choices": [')
            self.close_connection = True
        elif outcome == "stall":
            self.server.released.wait(self.server.stall)
            self.close_connection = True
        elif outcome == "html":
            self._send(200, b"<html>proxy error</html>", {"content-type": "text/html"})
        else:
            self._json(200, self._body(body, outcome))

    def _body(self, body: dict[str, Any], outcome: str) -> dict[str, Any]:
        stop = {"filtered": "content_filter", "truncated": "length"}.get(outcome, "stop")
        words = answer("good" if outcome == "no-schema" else outcome, judged_text(body))
        if outcome == "good" and "segments" in json.dumps(body.get("response_format")):
            words = words[:-1] + ', "segments": [10, 50, 90]}'
        content = None if outcome == "null" else words
        message = {"role": "assistant", "content": content}
        choices = [{"index": 0, "finish_reason": stop, "message": message}]
        return {
            "id": "x",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [] if outcome == "empty" else choices,
            "usage": {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130},
        }

    def _batch(self, number: str, status: str) -> dict[str, Any]:
        return {
            "id": f"batch-{number}",
            "object": "batch",
            "status": status,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": int(time.time()),
            "input_file_id": f"file-{number}",
            "output_file_id": f"file-{number}" if status == "completed" else None,
            "request_counts": {"total": 1, "completed": 1, "failed": 0},
        }

    def _json(self, status: int, data: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(data).encode(), {"content-type": "application/json"} | (headers or {}))

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
