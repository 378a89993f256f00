"""Errors of the FastAPI side, in the same dialect as those of the request path."""

import secrets
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from weir.core.asgi import App, Message, Receive, Scope, Send
from weir.core.errors import BadRequest, GatewayError, InternalError, MethodNotAllowed, NotFound

RequestIdOf = Any  # gateway.head.request_id: the two halls do not know each other, `app` brings it


def install(app: FastAPI) -> None:
    """Every way to fail as OpenAI's error object."""

    @app.exception_handler(GatewayError)
    async def refused(_: Request, error: GatewayError) -> JSONResponse:
        return as_response(error)

    @app.exception_handler(HTTPException)
    async def not_here(request: Request, error: HTTPException) -> JSONResponse:
        path = request.url.path
        if error.status_code == 404:
            return as_response(NotFound(f"There is nothing at {path[:200]}. The API is under /v1, described at /docs."))
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            answer = as_response(MethodNotAllowed(f"{path[:200]} does not take {request.method}, but {allowed}."))
            answer.headers["allow"] = allowed
            return answer
        return as_response(BadRequest(str(error.detail)))

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Exception) -> JSONResponse:
        return as_response(InternalError())


def as_response(error: GatewayError) -> JSONResponse:
    body = {"error": {"message": error.text, "type": error.type, "param": error.param, "code": error.code}}
    headers = {"retry-after": "1"} if error.retry_after else {"allow": "POST"} if error.status == 405 else None
    return JSONResponse(body, error.status, headers)


class WithRequestId:
    """Raw ASGI around the FastAPI application: x-request-id on every answer, a client's own where it has one."""

    def __init__(self, app: App, request_id: RequestIdOf = lambda scope: secrets.token_hex(16)) -> None:  # noqa: ARG005
        self._app = app
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope).encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        await self._app(scope, receive, named)
