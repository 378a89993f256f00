"""Errors of the FastAPI side, in the same dialects as those of the request path: Anthropic's at its addresses."""

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from weir.core.asgi import App, Headers, Message, Receive, Scope, Send
from weir.core.errors import BadRequest, GatewayError, InternalError, MethodNotAllowed, NotFound
from weir.core.operations import MESSAGES
from weir.dialect import anthropic_errors

_log = logging.getLogger("weir.api")


API = "The API is under /v1, described at /docs."
OPS = "Health and metrics are at the ops port: server.ops_port, 9090 unless it is set."
TWICE = "/v1 is there twice: a client that adds it by itself wants an address without it."
AT_OPS = ("/metrics", "/livez", "/readyz", "/healthz", "/health", "/requests", "/drain")


def at_the_api(path: str) -> str:
    """What helps whoever asked the API's port where there is nothing."""
    if path.startswith("/v1/v1/"):
        return TWICE
    return OPS if path.rstrip("/") in AT_OPS else API


def install(app: FastAPI, hint: Callable[[str], str] = at_the_api) -> None:
    """Every way to fail as an error object of its address's dialect. `hint` is for who asked where there is nothing."""

    @app.exception_handler(GatewayError)
    async def refused(request: Request, error: GatewayError) -> JSONResponse:
        return as_response(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def not_here(request: Request, error: HTTPException) -> JSONResponse:
        path = request.url.path
        if error.status_code == 404:
            return as_response(NotFound(f"There is nothing at {path[:200]}. {hint(path)}"), path)
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            answer = as_response(MethodNotAllowed(f"{path[:200]} does not take {request.method}, but {allowed}."), path)
            answer.headers["allow"] = allowed
            return answer
        return as_response(BadRequest(str(error.detail)), path)

    app.add_middleware(Reported)  # type: ignore[arg-type]  # our Scope is a dict, starlette's any mapping


def as_response(error: GatewayError, path: str) -> JSONResponse:
    body: dict[str, object]
    if f"{path.removeprefix('/v1')}/".startswith(f"{MESSAGES.path}/"):
        body = anthropic_errors.error(error.status, error.text)
    else:
        body = {"error": {"message": error.text, "type": error.type, "param": error.param, "code": error.code}}
    headers = {"retry-after": "1"} if error.retry_after else {"allow": "POST"} if error.status == 405 else None
    return JSONResponse(body, error.status, headers)


class Reported:
    """Raw ASGI inside of everything else: a bug ends here, as a 500 and a line that says where it was.

    Left to itself it would travel on, and the spans of the instrumentation would repeat its text, which may quote a
    request.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as bug:  # noqa: BLE001 - as the conductor on the request path
            _log.error("bug", exc_info=bug)  # telemetry writes its kind and place, never its text
            if started:
                raise InternalError from None
            await as_response(InternalError(), scope["path"])(scope, receive, send)


class WithHeaders:
    """Raw ASGI around the FastAPI application: what `headers_of` gives for a request stands on its answer."""

    def __init__(self, app: App, headers_of: Callable[[Scope], Headers]) -> None:
        self._app = app
        self._headers_of = headers_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers_of(scope)]
            await send(message)

        await self._app(scope, receive, named)
