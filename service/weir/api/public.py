"""The FastAPI application of the data port. Hot paths never come here, but they are documented here."""

from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

from weir import __version__
from weir.api.errors import install
from weir.core.errors import MethodNotAllowed
from weir.core.operations import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    IMAGE,
    MESSAGES,
    MODERATIONS,
    OPERATIONS,
    RERANK,
    RESPONSES,
    SPEECH,
    TEXT,
    TRANSCRIPTION,
    Operation,
)

Json = dict[str, Any]

DESCRIPTION = (
    "One endpoint for every model. Point an OpenAI client at `/v1` with your team's key. "
    "Where your key or its team has a limit on requests or tokens, answers say how much of it is left; "
    "`GET /v1/limits` says it of every limit."
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
        redirect_slashes=False,  # to an address of our own making: http, and the inner host's name
    )
    install(app)
    app.include_router(api, prefix="/v1")
    app.include_router(api, include_in_schema=False)

    @app.get("/", include_in_schema=False)
    async def what_is_this(request: Request) -> Any:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(
                _PAGE.format(base=escape(str(request.base_url).rstrip("/")), docs=_DOCS if docs else "")
            )
        return {
            "name": "weir",
            "version": __version__,
            "what": "An internal LLM endpoint that speaks OpenAI's API.",
            "base_url": "/v1",
            "docs": "/docs" if docs else None,
        }

    _refuse_other_methods(app)
    _describe_hot_paths(app)
    return app


def _refuse_other_methods(app: FastAPI) -> None:
    """POST never comes here: the door has taken it."""

    async def only_post(request: Request) -> None:
        raise MethodNotAllowed(f"{request.url.path} takes POST, not {request.method}.")

    for path in _hot_paths():
        for place in (path, path.removeprefix("/v1")):
            app.add_api_route(
                place, only_post, methods=["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"], include_in_schema=False
            )


def _describe_hot_paths(app: FastAPI) -> None:
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


_DOCS = '<p>Every address and field: <a href="/docs">/docs</a>.</p>'
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Weir</title>
<style>body{{font:16px/1.5 system-ui;max-width:42em;margin:4em auto;padding:0 1em}}pre{{overflow:auto}}</style>
<h1>Weir</h1><p>One endpoint for every model. Give your client this address and your team's key:</p>
<pre>OPENAI_BASE_URL={base}/v1
ANTHROPIC_BASE_URL={base}</pre>
<pre>curl {base}/v1/models -H "Authorization: Bearer $KEY"</pre>{docs}</html>
"""

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


_MESSAGES_ERROR: Json = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {name: {"type": "string"} for name in ("type", "message")},
        },
        "request_id": {"type": ["string", "null"]},
    },
}


def refusals(*statuses: str, form: Json = _ERROR) -> Json:
    """OpenAPI's responses for these statuses."""
    return {
        status: {"description": REFUSALS[status], "content": {"application/json": {"schema": form}}}
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
    some: Json = {"type": "array", "items": {"type": "object"}, "minItems": 1}
    stream: Json = {"stream": {"type": ["boolean", "null"]}}
    cap: Json = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
    described = {
        CHAT: ("Chat with a model", some, {**generating, "max_completion_tokens": tokens}),
        TEXT: ("Complete a text", texts, {**generating, "best_of": choices}),
        RESPONSES: ("Responses API, of what is stateless", texts, {**stream, "max_output_tokens": tokens}),
        MESSAGES: ("Messages API of Anthropic", some, {**stream, "max_tokens": cap}),
        COUNT_TOKENS: ("Count the tokens of a Messages request", some, {}),
        EMBEDDINGS: ("Embed texts", texts, {}),
        RERANK: ("Order documents by a query", texts, {"query": text}),
        MODERATIONS: ("Classify texts", texts, {}),
        IMAGE: ("Make images", texts, stream),
        SPEECH: ("Speak a text", texts, {"voice": {}}),
        TRANSCRIPTION: ("Write down what is said", {**text, "format": "binary"}, {"stream": {"type": "boolean"}}),
    }
    return {f"/v1{one.path}": _operation(one, *described[one]) for one in OPERATIONS}


def _operation(operation: Operation, summary: str, form: Json, fields: Json) -> Json:
    body: Json = {
        "type": "object",
        "required": ["model", operation.prompt, *(("max_tokens",) if operation is MESSAGES else ())],
        "properties": {
            "model": {"type": "string", "minLength": 1, "description": "GET /v1/models lists them."},
            operation.prompt: form,
            **fields,
        },
        "additionalProperties": True,
    }
    kind = "multipart/form-data" if operation.form else "application/json"
    if operation.form:  # gateway/form.py: a name that two readers could read in two ways is refused
        body["propertyNames"] = {"pattern": r"^[A-Za-z0-9_.\[\]-]+$"}
    answer: Json = {"*/*": {}} if operation.opaque else {"application/json": {"schema": {"type": "object"}}}
    if operation.streams:
        answer["text/event-stream"] = {"schema": {"type": "string"}}
    errors = refusals(*REFUSALS, form=_MESSAGES_ERROR if operation.dialect == "anthropic" else _ERROR)
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {kind: {"schema": body}}},
            "responses": {"200": {"description": "The model's answer.", "content": answer}, **errors},
        }
    }
