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
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop("422", None)  # FastAPI's own word; here nothing can be malformed
                    operation["responses"] |= refusals(*OF_LOOKING, *(("404",) if "{model}" in path else ()))
            schema["paths"] |= _hot_paths()
            schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
    return app


# What each status of our own says; OpenAPI lists them with every operation that can give it.
REFUSALS = {
    "400": "The request cannot be understood; `param` names the field.",
    "401": "No such key, or no longer.",
    "404": "No such model, or not for this key.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "429": "A limit refuses: `code` says which, `retry-after` when to come back.",
    "431": "The headers are too large.",
    "500": "A bug of Weir's own; report the `x-request-id`.",
    "502": "The model's server is not there, or answers nonsense.",
    "503": "Come back after `retry-after`.",
    "504": "The model's server took too long; the message says in which phase.",
}
OF_LOOKING = ("400", "401", "431", "500", "503")
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
        }
    },
}


def refusals(*statuses: str) -> Json:
    """OpenAPI's responses for these statuses."""
    return {
        status: {"description": REFUSALS[status], "content": {"application/json": {"schema": _ERROR}}}
        for status in statuses
    }


def _hot_paths() -> Json:
    """The request path in OpenAPI's words: the fields that Weir decides on; every other passes untouched."""
    text: Json = {"type": "string"}
    tokens: Json = {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1}
    choices: Json = {"type": ["integer", "null"], "minimum": 1, "maximum": 128}
    generating: Json = {
        "stream": {"type": ["boolean", "null"]},
        "max_tokens": tokens,
        "n": choices,
        "stream_options": {
            "type": ["object", "null"],
            "properties": {"include_usage": {"type": ["boolean", "null"]}},
        },
    }
    texts: Json = {"oneOf": [text, {"type": "array", "items": {}, "minItems": 1}]}
    return {
        "/v1/chat/completions": _operation(
            "Chat with a model",
            "messages",
            {"type": "array", "items": {"type": "object"}, "minItems": 1},
            {**generating, "max_completion_tokens": tokens},
            streams=True,
        ),
        "/v1/completions": _operation(
            "Complete a text", "prompt", texts, {**generating, "best_of": choices}, streams=True
        ),
        "/v1/embeddings": _operation("Embed texts", "input", texts, {}, streams=False),
    }


def _operation(summary: str, required: str, form: Json, fields: Json, *, streams: bool) -> Json:
    body = {
        "type": "object",
        "required": ["model", required],
        "properties": {
            "model": {"type": "string", "minLength": 1, "description": "GET /v1/models lists them."},
            required: form,
            **fields,
        },
        "additionalProperties": True,
    }
    answer: Json = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        answer["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "The model's answer, as it came.", "content": answer},
                **refusals(*REFUSALS),
            },
        }
    }
