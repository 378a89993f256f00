"""A model that is a Python function in this process: `(model, messages, body)`, and what it gives is the answer.

It may be synchronous or asynchronous, and give a text, a completion, or an iterator of pieces; `results.py` knows the
forms. A function is our own code: it is trusted with the process, but its errors' texts are not for clients.
"""

from collections.abc import AsyncGenerator, Callable
from importlib import import_module
from types import TracebackType
from typing import Any

import orjson

from weir.backend.backend import BackendResponse, Call, Sink
from weir.backend.python_chat import answer, wants_usage
from weir.backend.python_run import Hooked, Run
from weir.backend.python_threads import Threads
from weir.backend.results import ChunkMapper, Json
from weir.backend.results_refused import Refusal, Refused, place_of, refusal_of
from weir.core.asgi import Headers
from weir.core.errors import UpstreamFailed
from weir.core.types import Endpoint

CHAT = "/chat/completions"
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
THREADS = 32
FAILED = "The model's function failed."

Target = str | Callable[..., Any]


class BadTarget(ValueError):
    """What a configuration names cannot be imported, or cannot be called."""


class PythonBackend:
    """See `Backend`. Raises BadTarget.

    `pre_hook(body)` and `post_hook(result)` stand around the function: what they return takes the place of what they
    were given, and None leaves it. Whatever is synchronous runs in at most `threads` threads.
    """

    serves = frozenset({"chat"})

    def __init__(
        self,
        target: Target,
        *,
        chunk_mapper: Target | None = None,
        pre_hook: Target | None = None,
        post_hook: Target | None = None,
        threads: int = THREADS,
    ) -> None:
        self.mapper: ChunkMapper | None = _resolved(chunk_mapper)
        self.hooked = Hooked.of(resolve(target), _resolved(pre_hook), _resolved(post_hook))
        self.threads = Threads(threads)

    def send(self, endpoint: Endpoint, call: Call) -> "_Answer":  # noqa: ARG002 - the port's form
        return _Answer(self, call)

    async def close(self) -> None:
        """What is under way goes on to its end, and its threads with it."""
        self.threads.close()


def resolve(target: Target) -> Callable[..., Any]:
    """What "module:callable" names; names may be dotted on either side. Raises BadTarget."""
    if callable(target):
        return target
    module, _, path = target.partition(":")
    if not module or not path:
        raise BadTarget(f'"{target}" is not of the form "module:callable".')
    try:
        found: Any = import_module(module)
    except (Exception, SystemExit) as error:  # a module may do anything while it is imported
        raise BadTarget(f'The module "{module}" cannot be imported: {type(error).__name__}: {error}') from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise BadTarget(f'The module "{module}" has no "{path}".') from error
    if not callable(found):
        raise BadTarget(f'"{target}" is {type(found).__name__}, and cannot be called.')
    return found  # type: ignore[no-any-return]  # seen to be callable above


def _resolved(target: Target | None) -> Callable[..., Any] | None:
    return None if target is None else resolve(target)


class _Answer:
    """The block and the answer in one."""

    __slots__ = ("_backend", "_call", "_pieces", "_run", "content_type", "headers", "status")

    def __init__(self, backend: PythonBackend, call: Call) -> None:
        self._backend = backend
        self._call = call
        self._run = Run(backend.threads)
        self._pieces: AsyncGenerator[bytes, None] = _nothing()
        self.status, self.content_type = 200, JSON
        self.headers: Headers = []

    async def __aenter__(self) -> BackendResponse:
        try:
            await self._begin()
        except Exception as error:
            await self._leave()
            refusal = refusal_of(error)
            if refusal is None:
                raise UpstreamFailed(FAILED, reason=place_of(error)) from error
            self._refuse(refusal)
        except BaseException:
            await self._leave()
            raise
        return self

    async def read(self) -> bytes:
        try:
            return await anext(self._pieces, b"")
        except Exception as error:
            refusal = refusal_of(error)
            message = FAILED if refusal is None else refusal.error["message"]
            raise UpstreamFailed(message, reason=place_of(error)) from error

    async def pump(self, sink: Sink) -> None:
        while piece := await self.read():
            rest = sink(piece)
            if rest is not None:
                await rest

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        await self._pieces.aclose()
        await self._run.close()

    def _refuse(self, refusal: Refusal) -> None:
        self.status, self.content_type = refusal.status, JSON
        if refusal.retry_after is not None:
            self.headers.append((b"retry-after", refusal.retry_after.encode("latin-1", "replace")))
        self._pieces = _once(orjson.dumps({"error": refusal.error}))

    async def _begin(self) -> None:
        """Ask, and wait for the first piece: until it is there, a failure is a status."""
        body = self._body()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._call.headers}
        _, result = await self._backend.hooked.ask(self._run, body, _asked, headers)
        answered = await answer(
            self._run,
            result,
            body["model"],
            self._backend.mapper,
            stream=bool(body.get("stream")),
            with_usage=wants_usage(body.get("stream_options")),
        )
        if isinstance(answered, dict):
            self._pieces = _once(orjson.dumps(answered))
        else:
            self.content_type, self._pieces = EVENTS, answered

    def _body(self) -> Json:
        """Raises Refused."""
        if self._call.path != CHAT:
            raise Refused("This model answers chat completions only.", 404, code="not_found")
        try:
            body = orjson.loads(self._call.whole)
        except orjson.JSONDecodeError as error:
            raise Refused("The request body is not valid JSON.", code="malformed_body") from error
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise Refused("'model' must be a string.", code="invalid_value", param="model")
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise Refused("'messages' must be a list of messages.", code="invalid_value", param="messages")
        return body


def _asked(body: Json) -> tuple[str, Any, Json]:
    return body["model"], body["messages"], body


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
