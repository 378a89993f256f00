"""The FastAPI application of the data port. Hot paths never come here, but they are documented here."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request

from weir import __version__
from weir.api.errors import install
from weir.core.errors import MethodNotAllowed

Json = dict[str, Any]

DESCRIPTION = (
    "One endpoint for every model. Point an OpenAI client at `/v1` with your team's key. "
    "Every answer says how much of your limits is left; `GET /v1/limits` says it on its own."
)


def create(api: APIRouter, *, docs: bool) -> FastAPI:
    """The application, with and without `/v1`."""
    app = FastAPI(
        title="Weir",
        version=__version__,
        description=DESCRIPTION,
        docs_url="/docs" if docs else None,
        openapi_url="/openapi.json" if docs else None,
        redoc_url=None,
    )
    install(app)
    app.include_router(api, prefix="/v1")
    app.include_router(api, include_in_schema=False)

    @app.get("/", include_in_schema=False)
    async def what_is_this() -> Json:
        return {
            "name": "weir",
            "version": __version__,
            "what": "An internal LLM endpoint that speaks OpenAI's API.",
            "base_url": "/v1",
            "docs": "/docs" if docs else None,
        }

    async def only_post(request: Request) -> None:
        raise MethodNotAllowed(f"{request.url.path} takes POST, not {request.method}.")

    for path in _hot_paths():
        for place in (path, path.removeprefix("/v1")):
            app.add_api_route(place, only_post, methods=["GET", "PUT", "PATCH", "DELETE"], include_in_schema=False)

    described = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is None:
            schema = described()
            schema["paths"] |= _hot_paths()
            schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
    return app


def _hot_paths() -> Json:
    """The request path in OpenAPI's words: the fields that Weir decides on; every other passes untouched."""
    text: Json = {"type": "string"}
    whole: Json = {"type": "integer", "minimum": 1}
    generating: Json = {
        "stream": {"type": "boolean"},
        "max_tokens": whole,
        "n": {"type": "integer", "minimum": 1, "maximum": 128},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    }
    texts: Json = {"oneOf": [text, {"type": "array", "items": {}}]}
    return {
        "/v1/chat/completions": _operation(
            "Chat with a model",
            "messages",
            {"type": "array", "items": {"type": "object"}, "minItems": 1},
            {**generating, "max_completion_tokens": whole},
            streams=True,
        ),
        "/v1/completions": _operation(
            "Complete a text", "prompt", texts, {**generating, "best_of": whole}, streams=True
        ),
        "/v1/embeddings": _operation("Embed texts", "input", texts, {}, streams=False),
    }


def _operation(summary: str, required: str, form: Json, fields: Json, *, streams: bool) -> Json:
    body = {
        "type": "object",
        "required": ["model", required],
        "properties": {
            "model": {"type": "string", "description": "GET /v1/models lists them."},
            required: form,
            **fields,
        },
        "additionalProperties": True,
    }
    error = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
            }
        },
    }
    answer: Json = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        answer["text/event-stream"] = {"schema": {"type": "string"}}
    refusals = {
        "400": "The request cannot be understood; `param` names the field.",
        "401": "No such key, or no longer.",
        "404": "No such model, or not for this key.",
        "413": "The body is too large.",
        "429": "A limit refuses: `code` says which, `retry-after` when to come back.",
        "502": "The model's server is not there, or answers nonsense.",
        "503": "Come back after `retry-after`.",
        "504": "The model's server took too long; the message says in which phase.",
    }
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "The model's answer, as it came.", "content": answer},
                **{
                    status: {"description": why, "content": {"application/json": {"schema": error}}}
                    for status, why in refusals.items()
                },
            },
        }
    }
