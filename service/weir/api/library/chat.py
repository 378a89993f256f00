"""POST /chat/completions, answered by a function. OpenAI's API description, `createChatCompletion`."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response as HttpResponse

from weir.api.library.models import create_models_router
from weir.api.library.routes import THREADS, EventStream, OpenAIRoute, add_route, as_json, error_body
from weir.api.library.types import (
    ChatCompletion,
    ChatRequest,
    ChunkMapper,
    ListModelsFn,
    PostHook,
    PreHook,
    RunCompletionFn,
)
from weir.backend.python_chat import answer, wants_usage
from weir.backend.python_run import Hooked, Run
from weir.backend.results import text_of

Json = dict[str, Any]

# Keys that are null where nothing is to be said: programs that moved here read them without asking.
ABSENT: Json = {"usage": None, "system_fingerprint": None}
ABSENT_OF_CHOICE: Json = {"delta": None, "message": None, "finish_reason": None, "logprobs": None}
ABSENT_OF_MESSAGE: Json = {"content": None, "reasoning_content": None, "tool_calls": None, "refusal": None}


def create_chat_completion_router(
    *,
    list_models: ListModelsFn,
    run_completion: RunCompletionFn,
    pre_hook: PreHook | None = None,
    post_hook: PostHook | None = None,
    chunk_mapper: ChunkMapper = text_of,
    owned_by: str = "custom",
    tags: list[str] | None = None,
    include_models_endpoints: bool = True,
    follow_stream: bool = False,
) -> APIRouter:
    """`run_completion(model, messages, body)` answers; where it takes `headers`, it is given the request's.

    What it returns decides the form: a text or a `ChatCompletion` is one, a generator is a stream. With `follow_stream`
    the request's own `stream` decides, and the answer is brought into that form. Hooks get a `ChatRequest` and the
    result; what they return takes its place, and None leaves it. All of them may be asynchronous.
    """
    hooked = Hooked.of(run_completion, pre_hook, post_hook)
    mapper = None if chunk_mapper is text_of else chunk_mapper
    router = APIRouter(route_class=OpenAIRoute)
    if include_models_endpoints:
        router.include_router(create_models_router(list_models=list_models, owned_by=owned_by, tags=tags))

    async def complete(chat: ChatRequest, request: Request) -> HttpResponse:
        run = Run(THREADS)
        streaming = False
        try:
            changed, result = await hooked.ask(run, chat, _asked, dict(request.headers))
            answered = await answer(
                run,
                result,
                changed.model,
                mapper,
                stream=bool(chat.stream) if follow_stream else None,
                with_usage=wants_usage((chat.model_extra or {}).get("stream_options")),
                write=_written,
            )
            if isinstance(answered, dict):
                return as_json(filled(answered))
            streaming = True
            return EventStream(run, answered, _failed)
        finally:
            if not streaming:
                await run.close()

    add_route(
        router,
        "/chat/completions",
        complete,
        "openai_chat_completions",
        tags=tags,
        response_model=ChatCompletion,
        summary="Create a chat completion",
    )
    return router


# The name under which most programs know it.
create_openai_router = create_chat_completion_router


def _asked(chat: ChatRequest) -> tuple[str, Any, Json]:
    return chat.model, chat.messages, chat.model_dump()


def filled(chunk: Json) -> Json:
    """With null for what was not said; an event of the function's own stays as it is."""
    if "choices" not in chunk:
        return chunk
    return {**ABSENT, **chunk, "choices": [_filled_choice(choice) for choice in chunk["choices"]]}


def _filled_choice(choice: Json) -> Json:
    said = {key: {**ABSENT_OF_MESSAGE, **choice[key]} for key in ("delta", "message") if choice.get(key) is not None}
    return {**ABSENT_OF_CHOICE, **choice, **said}


def _written(chunk: Json) -> bytes:
    return orjson.dumps(filled(chunk))


def _failed(error: Exception) -> bytes:
    return b"data: " + orjson.dumps(error_body(error)) + b"\n\n"
