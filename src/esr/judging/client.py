"""One question to a model through inspect_ai: an answer, or a typed reason why there is none.

inspect_ai knows the providers, their batch interfaces, prompt caching and structured outputs, and adapts the
number of connections to rate limits. Left to itself it also retries and waits without end, keeps every call
in memory and puts whole requests into its errors; here each call is made once, with a limit in seconds, and
errors are cut down to what may be stored and printed. The module is importable without inspect_ai; opening a
client is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from esr.errors import UserError, missing_extra
from esr.judging.verdict import clip

BATCH_PROVIDERS = frozenset({"anthropic", "google", "grok", "openai", "together"})
BATCH_HOURS = 25.0
"""Providers promise a batch within 24 hours."""
BATCH_TICK: float | None = None
"""Seconds between looks at the provider's batches; None is inspect_ai's own."""
BATCH_RETRIES = 5
"""Repetitions of a failed upload, look or download of a batch, before its responses are sent again."""

_SDK_RETRIES_OFF = frozenset({"anthropic", "openai", "openai-api", "openrouter"})
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|rk)-[\w*-]{6,}|\bAIza[\w-]{20,}|(?<=Bearer )\S+|(?<=://)[^/\s@]+(?=@)")
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$")


@dataclass
class Usage:
    """What judging has cost so far."""

    calls: int = 0
    """Requests sent, failed ones included."""
    input_tokens: int = 0
    """As the provider counts them, cached ones included."""
    cached_tokens: int = 0
    """Input tokens the provider read from its cache, at its lower price."""
    output_tokens: int = 0


@dataclass(frozen=True)
class Call:
    """One request and what the provider counted for it; None where it said nothing, as for a call that failed."""

    about: str
    """What was asked about: the exhibit's id."""
    input_tokens: int | None = None
    """Cached ones included."""
    cached_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Reply:
    """The model's words."""

    text: str
    """Untrusted. Empty when the provider sent no choice."""
    stop: str
    """inspect_ai's stop reason: ``stop``, ``max_tokens``, ``model_length``, ``content_filter``, ..."""


class NoReplyError(Exception):
    """A call without an answer; the message is short, printable and free of keys."""

    def __init__(
        self,
        kind: Literal["timeout", "again", "refused by the server", "schema"],
        detail: str,
        wait: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        """``again``: may work when repeated (rate limit, server error, cut connection). ``schema``: the
        server does not know structured outputs."""
        self.wait = wait
        """Seconds the server asked to wait."""


class Client:
    """A model behind inspect_ai. Make one per event loop thread and close it there."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None,
        timeout: float,
        max_connections: int,
        temperature: float | None,
        max_tokens: int,
        schema: dict[str, Any] | None,
        batch: bool,
        usage: Usage,
        log: Callable[[Call], None] = lambda _: None,
    ) -> None:
        """``log`` is told of every call when it has ended, in the thread that asks.

        Raises UserError when the model cannot be asked: unknown provider, no key, a package missing."""
        self._model_name, self._base_url = model, base_url
        self._timeout, self._max_connections = timeout, max_connections
        self._temperature, self._max_tokens = temperature, max_tokens
        self._schema, self._batch, self._usage, self._log = schema, batch, usage, log
        self._secrets = _secrets()
        self._opened: list[Any] = []
        self.replies = 0
        """Calls that were answered."""
        self._model = self._open()
        # a provider that has once made a batch may put everything after it into batches
        self._live = self._open() if batch else self._model

    def _open(self) -> Any:
        try:
            from inspect_ai.model import get_model
        except ImportError:
            raise missing_extra("model judges", "judge", "inspect_ai") from None
        provider = self._model_name.split("/")[0]
        if self._batch and provider not in BATCH_PROVIDERS:
            raise UserError(
                f"batch mode needs one of the providers {', '.join(sorted(BATCH_PROVIDERS))}",
                self._model_name,
                "Judge without batch mode",
            )
        if self._batch:
            _silence_batches()
        options: dict[str, Any] = {"max_retries": 0} if provider in _SDK_RETRIES_OFF else {}
        excepthook = sys.excepthook  # inspect_ai replaces it for its own command line
        try:
            model = get_model(self._model_name, base_url=self._base_url, memoize=False, **options)
        except Exception as error:
            raise self._cannot_open(error) from None
        finally:
            sys.excepthook = excepthook
        key = getattr(model.api, "api_key", None)
        if isinstance(key, str) and len(key) >= 4:
            self._secrets.add(key)
        self._opened.append(model)
        model.api.generate = _without_tracebacks(model.api.generate)
        return model

    def _cannot_open(self, error: Exception) -> UserError:
        words = re.sub(r"\[/?[a-z ]*\]", "", str(getattr(error, "message", error)))  # rich markup
        detail = self._clean(re.sub(r"^ERROR:?\s*", "", words.strip())).rstrip(".")
        if "not recognized" in detail or "format of" in detail:
            return UserError(
                "a judge is named PROVIDER/MODEL and the provider is known to inspect_ai",
                self._model_name,
                "Examples: anthropic/claude-..., openai/gpt-..., openrouter/..., "
                "openai-api/NAME/MODEL for any OpenAI-compatible server",
            )
        if "defined in the environment" in detail or "api_key" in detail.lower():
            return UserError(
                f"the provider of {self._model_name} needs its settings in the environment",
                detail,
                "Set the variable named here and run again; esr never stores it",
            )
        return UserError(
            f"the judge {self._model_name} can be reached through inspect_ai",
            detail or type(error).__name__,
            "Install or set what is named here",
        )

    async def ask(self, messages: list[tuple[str, str]], *, live: bool = False, about: str = "") -> Reply:
        """Put (role, text) messages to the model once; roles are ``system``, ``user``, ``assistant``.

        ``live`` answers at once even in batch mode; ``about`` goes to the log of calls. Raises NoReplyError;
        UserError when asking anyone else would fail the same way (key refused, model unknown).
        """
        from inspect_ai.model import (
            BatchConfig,
            ChatMessageAssistant,
            ChatMessageSystem,
            ChatMessageUser,
            ContentText,
            GenerateConfig,
            ResponseSchema,
        )
        from inspect_ai.util import AdaptiveConcurrency, JSONSchema

        batch = self._batch and not live
        config = GenerateConfig(
            max_retries=BATCH_RETRIES if batch else 0,
            attempt_timeout=None if batch else max(1, round(self._timeout)),
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            adaptive_connections=AdaptiveConcurrency(max=self._max_connections),
            batch=BatchConfig(tick=BATCH_TICK, send_delay=BATCH_TICK) if batch else None,
        )
        schema = self._schema
        if schema is not None:
            config.response_schema = ResponseSchema(
                name="verdict", json_schema=JSONSchema.model_validate(schema), strict=True
            )
        chat: list[Any] = []
        for role, text in messages:
            if role == "system":  # the same for every response: the provider may keep it
                chat.append(ChatMessageSystem(content=[ContentText(text=text, cache_breakpoint=True)]))
            else:
                chat.append((ChatMessageUser if role == "user" else ChatMessageAssistant)(content=text))
        model = self._model if batch else self._live
        self._usage.calls += 1
        try:
            async with asyncio.timeout(BATCH_HOURS * 3600 if batch else None):
                output = await model.generate(chat, config=config)
        except Exception as error:
            self._log(Call(about))
            if batch and self._model is model:  # its batch worker does not outlive an error
                self._model = self._open()
            raise self._no_reply(error, batch=batch, with_schema=schema is not None) from None
        self.replies += 1
        if output.usage is None:
            self._log(Call(about))
        else:
            used = output.usage
            cached = used.input_tokens_cache_read or 0
            given = used.input_tokens + cached + (used.input_tokens_cache_write or 0)
            self._usage.input_tokens += given
            self._usage.cached_tokens += cached
            self._usage.output_tokens += used.output_tokens
            self._log(Call(about, given, cached, used.output_tokens))
        if not output.choices:
            return Reply("", "unknown")
        return Reply(output.choices[0].message.text, output.choices[0].stop_reason)

    async def close(self) -> None:
        """Close the connections."""
        for model in self._opened:
            with contextlib.suppress(Exception):
                await model.api.aclose()

    def without_schema(self) -> None:
        """Ask without a response schema from now on: the server knows none. The form is checked anyway."""
        self._schema = None

    def _no_reply(self, error: Exception, *, batch: bool, with_schema: bool) -> Exception:
        from tenacity import RetryError

        transient = isinstance(error, RetryError)  # the kind of failure that inspect_ai would have repeated
        if isinstance(error, RetryError):
            cause = error.last_attempt.exception()
            error = cause if isinstance(cause, Exception) else error
        name = type(error).__name__
        if isinstance(error, TimeoutError) or "Timeout" in name:
            limit = f"{BATCH_HOURS:g} hours" if batch else f"{self._timeout:g} s"
            return NoReplyError("timeout", f"no answer within {limit}")
        status = _status(error)
        words = getattr(error, "provider_message", None) or getattr(error, "message", None)
        if not isinstance(words, str):  # str(error) may hold the whole request
            words = "" if name == "ModelGenerateError" else str(error)
        detail = self._clean(f"{name}{f' {status}' if status else ''}: {words}")
        if status == 401:
            return UserError(
                f"the provider of {self._model_name} accepts the key", detail, "Correct the key and run again"
            )
        if status == 404:
            return UserError(f"the provider knows the model {self._model_name}", detail, "Correct the model's name")
        if status in (400, 422) and with_schema and re.search("response_format|schema", words):
            return NoReplyError("schema", detail)
        if transient or status is None or status >= 500 or status in (408, 409, 429):
            return NoReplyError("again", detail, _retry_after(error))
        return NoReplyError("refused by the server", detail)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return clip(_KEY_LIKE.sub("[key]", text), 300)


def _without_tracebacks(generate: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """inspect_ai renders the traceback of each failed call, which can take longer than the call.

    A batch that fails raises one exception for all its responses, each time with a longer traceback.
    """

    async def lean(*args: Any, **options: Any) -> Any:
        try:
            result = await generate(*args, **options)
        except Exception as error:
            raise error.with_traceback(None) from None
        if isinstance(result, tuple) and isinstance(result[0], Exception):
            result[0].with_traceback(None).__cause__ = None
        return result

    return lean


def _secrets() -> set[str]:
    return {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= 8}


def _status(error: BaseException | None) -> int | None:
    while error is not None:
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        wait = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return wait if wait >= 0 else None


def _silence_batches() -> None:
    """inspect_ai prints the progress of batches in the server's own words; here nothing foreign is printed."""
    with contextlib.suppress(ImportError):
        from inspect_ai.model._providers.util import batch_log

        batch_log.set_batch_log_callback(lambda _: None)
