"""GET /v1/models and /v1/models/{id}: only what the key may use. GET /v1/limits: the caller's own limits."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from weir.admission import Admission
from weir.auth import Authenticator
from weir.core.asgi import Headers
from weir.core.errors import ModelNotFound
from weir.core.types import Principal, Route, Window
from weir.routing import RouteTable

CREATED = 1_700_000_000  # OpenAI's field is a date; ours are configured, not made
CREATED_AT = "2023-11-14T22:13:20Z"  # the same in Anthropic's form

Json = dict[str, Any]


def router(
    auth: Authenticator, admission: Admission, routes: RouteTable, limit_headers: Any, read_head: Any
) -> APIRouter:
    """`limit_headers` makes headers from windows, `read_head` reads a request; the gateway's both, brought by `app`."""
    api = APIRouter()

    async def caller(request: Request, response: Response) -> tuple[Principal, Sequence[Window]]:
        principal = await auth.authenticate(read_head(request.scope).authorization)
        windows = await admission.standing(principal)
        headers: Headers = limit_headers(windows)
        for name, value in headers:
            response.headers[name.decode()] = value.decode()
        return principal, windows

    @api.get("/models", summary="The models that your key may use")
    async def models(request: Request, response: Response) -> Json:
        principal, _ = await caller(request, response)
        named = dict(routes.names())
        allowed = await _allowed(auth, principal, named)
        data = [_model(name, named[name]) for name in named if name in allowed]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return {"object": "list", "data": data, "has_more": False, **ends}

    @api.get("/models/{model:path}", summary="One model")
    async def model(model: str, request: Request, response: Response) -> Json:
        principal, _ = await caller(request, response)
        named = dict(routes.names())
        if model not in named or model not in await _allowed(auth, principal, named):
            raise ModelNotFound(param="model")
        return _model(model, named[model])

    @api.get("/limits", summary="Your limits: how much is left, and when it is back")
    async def limits(request: Request, response: Response) -> Json:
        principal, windows = await caller(request, response)
        return {
            "object": "limits",
            "team": principal.team,
            "key_id": principal.key_id,
            "limits": [_limit(window) for window in windows],
        }

    return api


async def _allowed(auth: Authenticator, principal: Principal, named: dict[str, Route]) -> set[str]:
    """Names whose own name or whose model is allowed; admission decides the same way."""
    allowed = await auth.may_use(principal, named)
    return {name for name, route in named.items() if name in allowed or route.model in allowed}


def _model(name: str, route: Route) -> Json:
    """OpenAI's fields and Anthropic's in one: each client finds its own."""
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": route.owned_by,
        "type": "model",
        "display_name": name,
        "created_at": CREATED_AT,
    }


def _limit(window: Window) -> Json:
    said: Json = {
        "scope": window.scope,
        "unit": window.unit,
        "limit": window.limit,
        "remaining": window.remaining,
        "shadow": window.shadow,
    }
    if window.seconds:
        said |= {"window_seconds": window.seconds, "reset_seconds": round(window.reset, 3)}
    return said
