"""Every way to fail as OpenAI's error object, whatever the application around it does with its own errors.

Before the first byte it is a status, after it an event. Of an error that is no refusal nobody outside sees the text.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from weir.backend.python_run import Run
from weir.backend.python_threads import Threads
from weir.backend.results_refused import Refused, refusal_of
from weir.core.tasks import Tasks

# Of all routers in this process together. They are started as they are needed.
THREADS = Threads(40)
FAILED = "The model's function failed."
FAILURE = {"message": FAILED, "type": "server_error", "param": None, "code": "internal_error"}

Json = dict[str, Any]

_log = logging.getLogger("weir.library")


class OpenAIRoute(APIRoute):
    """A route whose errors are OpenAI's, those of its dependencies included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answered = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await answered(request)
            except RequestValidationError as error:
                return _refused(_invalid(error))
            except Exception as error:  # noqa: BLE001 - a function may raise anything
                return _refused(error)

        return told


def add_route(
    router: APIRouter,
    path: str,
    answers: Callable[..., Any],
    operation_id: str,
    *,
    tags: list[str] | None,
    methods: Sequence[str] = ("POST",),
    **described: Any,
) -> None:
    """With and without /v1, as clients come. `described` is what FastAPI's `add_api_route` takes besides."""
    for prefix, suffix in (("/v1", ""), ("", "_alias")):
        router.add_api_route(
            prefix + path,
            answers,
            methods=[*methods],
            tags=[*(tags or ["openai"])],
            operation_id=operation_id + suffix,
            **described,
        )


def error_of(error: Exception) -> Json:
    """What the client may know of it. A failure is logged, with its traceback: it is the application's own."""
    refusal = refusal_of(error)
    if refusal is not None:
        return refusal.error
    if isinstance(error, HTTPException):  # above 499, and meant for the client all the same
        return {**FAILURE, "message": str(error.detail)}
    _log.error("a function that answers for a model has failed", exc_info=error)
    return FAILURE


def _refused(error: Exception) -> Response:
    refusal = refusal_of(error)
    status = refusal.status if refusal else error.status_code if isinstance(error, HTTPException) else 500
    headers = dict((isinstance(error, HTTPException) and error.headers) or {})
    if refusal and refusal.retry_after:
        headers["retry-after"] = refusal.retry_after
    return as_json(error_body(error), status, headers)


def error_body(error: Exception) -> Json:
    return {"error": error_of(error)}


def as_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


def _invalid(error: RequestValidationError) -> Refused:
    """The first complaint, in one sentence: its field, and what is wrong with it. Never what was sent."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Refused("The request body is not valid JSON.", code="malformed_body")
    where = ".".join(str(step) for step in first["loc"][1:] if not str(step).startswith(("list[", "dict[")))
    return Refused(f"'{where}': {first['msg']}." if where else f"{first['msg']}.", code="invalid_value", param=where)


class EventStream(Response):
    """A stream that has begun, sent at the client's pace. Its function is ended with it, or when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, run: Run, events: AsyncGenerator[bytes, None], failed: Callable[[Exception], bytes]) -> None:
        self.status_code = 200
        self.background = None
        self._run = run
        self._events = events
        self._failed = failed
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        tasks = Tasks()
        sending = tasks.start(self._send(send), "events to a client")
        leaving = tasks.start(_client_leaves(receive), "client leaves")
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.stop()
            await self._events.aclose()
            await self._run.close()
        if self.background is not None:
            await self.background()

    async def _send(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            more = True
            while more:
                try:
                    events = await anext(self._events, b"")
                    more = bool(events)
                except Exception as error:  # noqa: BLE001 - as above
                    events, more = self._failed(error), False
                await send({"type": "http.response.body", "body": events, "more_body": more})
        except OSError:
            """The client is gone: by ASGI's specification `send` says so."""


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
