"""POST /responses, answered by a function. OpenAI's API description, `createResponse`."""

import time
from typing import Any
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response as HttpResponse

from weir.api.library.models import create_models_router
from weir.api.library.responses_events import ResponseEvents
from weir.api.library.routes import THREADS, EventStream, OpenAIRoute, add_route, as_json, error_of
from weir.api.library.types import (
    ChunkMapper,
    InputItem,
    ListModelsFn,
    PostHook,
    PreHook,
    Response,
    ResponseRequest,
    RunResponseFn,
)
from weir.backend.python_chat import begun, streamed
from weir.backend.python_run import Hooked, Run
from weir.backend.results import pieces_of, text_of

Json = dict[str, Any]


def create_responses_router(
    *,
    list_models: ListModelsFn,
    run_response: RunResponseFn,
    pre_hook: PreHook | None = None,
    post_hook: PostHook | None = None,
    chunk_mapper: ChunkMapper = text_of,
    owned_by: str = "custom",
    tags: list[str] | None = None,
    include_models_endpoints: bool = False,
    follow_stream: bool = False,
) -> APIRouter:
    """`run_response(model, input_items, body)` answers; where it takes `headers`, it is given the request's.

    All else is as in `create_chat_completion_router`, with `Response` and `ResponseRequest`.
    """
    hooked = Hooked.of(run_response, pre_hook, post_hook)
    router = APIRouter(route_class=OpenAIRoute)
    if include_models_endpoints:
        models = create_models_router(
            list_models=list_models, owned_by=owned_by, tags=tags, operation_id_prefix="responses_openai"
        )
        router.include_router(models)

    async def respond(asked: ResponseRequest, request: Request) -> HttpResponse:
        run = Run(THREADS)
        streaming = False
        try:
            changed, result = await hooked.ask(run, asked, _asked, dict(request.headers))
            made = await _answer(
                run, result, changed.model, chunk_mapper, stream=bool(asked.stream) if follow_stream else None
            )
            if isinstance(made, Response):
                return as_json(made.model_dump(mode="json"))
            streaming = True
            return made
        finally:
            if not streaming:
                await run.close()

    add_route(
        router,
        "/responses",
        respond,
        "openai_responses",
        tags=tags,
        response_model=Response,
        summary="Create a response",
    )
    return router


def _asked(asked: ResponseRequest) -> tuple[str, list[InputItem], Json]:
    given = asked.input
    items = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given or []
    return asked.model, items, asked.model_dump()


async def _answer(
    run: Run, result: Any, model: str, mapper: ChunkMapper, *, stream: bool | None
) -> Response | EventStream:
    """Whole, or as events; a text or a `Response` that is to be streamed is a stream of one piece."""
    if isinstance(result, Response) and not stream:
        return result
    # Wall time: OpenAI's `created_at` is a date.
    now = int(time.time())  # noqa: TID251
    events = ResponseEvents(
        Response(id=f"resp_{uuid4().hex}", created_at=now, model=model, output=[], status="in_progress"), mapper
    )
    whole = isinstance(result, str | Response)
    pieces = (result,) if whole else pieces_of(result, mapper if mapper is not text_of else None)
    if stream or (stream is None and not whole and pieces is result):
        written = streamed(run, pieces, lambda piece: _written(events.of(piece)), lambda: _written(events.end()))
        return EventStream(run, await begun(written), lambda error: _written([events.failed(error_of(error))]))
    last: Json = {}
    while (made := await run.next(pieces, events.of)) is not None:
        last = made[-1] if made else last
    ended = events.end()
    return Response.model_validate((ended[-1] if ended else last)["response"])


def _written(events: list[Json]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)
