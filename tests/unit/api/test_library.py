"""The documented examples of fastapi-openai-compat, with our import line: what they answered there, they answer here."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

import weir
from tests.fakes.streams import events_of
from weir import (
    ChatCompletion,
    ChatRequest,
    Choice,
    CompletionResult,
    FileObject,
    InputItem,
    Message,
    MessageParam,
    Response,
    ResponseRequest,
    ResponseResult,
    create_chat_completion_router,
    create_files_router,
    create_models_router,
    create_openai_router,
    create_responses_router,
)

MODEL = "my-pipeline"
NOW = 1_700_000_000
HELLO = [{"role": "user", "content": "Hello my friend"}]
PARIS = '{"city": "Paris"}'


def asked(router: APIRouter | FastAPI, path: str, body: Any = None, **more: Any) -> httpx.Response:
    """GET without a body, POST with one."""
    if isinstance(router, FastAPI):
        app = router
    else:
        app = FastAPI()
        app.include_router(router)

    async def scene() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            if body is None and not more:
                return await client.get(path)
            return await client.post(path, json=body, **more)

    return asyncio.run(scene())


def list_models() -> list[str]:
    return [MODEL]


async def list_models_later() -> list[str]:
    return [MODEL]


def chat(
    run: Callable[..., Any], body: Any = None, path: str = "/v1/chat/completions", **options: Any
) -> httpx.Response:
    router = create_openai_router(list_models=list_models, run_completion=run, **options)
    return asked(router, path, {"model": MODEL, "messages": HELLO, **(body or {})})


def completion(run: Callable[..., Any], body: Any = None, **options: Any) -> dict[str, Any]:
    answer = chat(run, body, **options)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    said: dict[str, Any] = answer.json()
    assert said["object"] == "chat.completion"
    assert said["model"] == MODEL
    return said


def chunks(run: Callable[..., Any], **options: Any) -> list[dict[str, Any]]:
    answer = chat(run, {"stream": True}, **options)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *events, done = events_of(answer.content)
    assert done == b"[DONE]"
    return [json.loads(event) for event in events]


def deltas(said: list[dict[str, Any]], key: str = "content") -> list[Any]:
    return [chunk["choices"][0]["delta"].get(key) for chunk in said if "choices" in chunk]


def finishes(said: list[dict[str, Any]]) -> list[str | None]:
    return [chunk["choices"][0]["finish_reason"] for chunk in said if "choices" in chunk]


# -- the forms of Haystack's, which need not be installed


@dataclass
class ToolCallDelta:
    index: int
    tool_name: str | None = None
    arguments: str | None = None
    id: str | None = None


@dataclass
class ReasoningContent:
    reasoning_text: str


@dataclass
class StreamingChunk:
    content: str
    meta: dict[str, Any] = field(default_factory=dict)
    index: int | None = None
    tool_calls: list[ToolCallDelta] | None = None
    finish_reason: str | None = None
    reasoning: ReasoningContent | None = None


# -- chat: quick start, and what a function is given


def quick(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
    return "Hello from Haystack!"


async def quick_later(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
    return "Hello from Haystack!"


@pytest.mark.parametrize("run", [quick, quick_later])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_quick_start(run: Any, path: str) -> None:
    said = completion(run, path=path)
    assert said["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello from Haystack!",
                "reasoning_content": None,
                "tool_calls": None,
                "refusal": None,
            },
            "delta": None,
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert said["usage"] is said["system_fingerprint"] is None


@pytest.mark.parametrize("names", [list_models, list_models_later])
@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_models(names: Any, path: str) -> None:
    answer = asked(create_openai_router(list_models=names, run_completion=quick, owned_by="me"), path)
    said = answer.json()
    assert said["data"][0].pop("created") > 0
    assert said == {"object": "list", "data": [{"id": MODEL, "name": MODEL, "object": "model", "owned_by": "me"}]}


def test_extra_fields_go_in_and_out() -> None:
    def run(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
        metadata = body.get("metadata", {})
        request_id = metadata.get("request_id", "unknown")
        return ChatCompletion(
            id=f"resp-{request_id}",
            object="chat.completion",
            created=NOW,
            model=model,
            choices=[Choice(index=0, message=Message(role="assistant", content="Hello!"), finish_reason="stop")],
            metadata={"request_id": request_id, "temperature_used": body.get("temperature", 1.0)},
        )

    said = completion(run, {"temperature": 0.7, "metadata": {"request_id": "abc-123", "user_tier": "premium"}})
    assert said["id"] == "resp-abc-123"
    assert said["metadata"] == {"request_id": "abc-123", "temperature_used": 0.7}


def test_headers_for_a_function_that_takes_them() -> None:
    def run(model: str, messages: list[Any], body: dict[str, Any], headers: dict[str, str]) -> str:
        return headers["host"]

    assert completion(run)["choices"][0]["message"]["content"] == "app"


# -- chat: what a function returns


def test_a_string() -> None:
    said = completion(lambda model, messages, body: f"You said: {messages[-1]['content']}")
    assert said["choices"][0]["message"]["content"] == "You said: Hello my friend"


def words(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
    last_msg = messages[-1]["content"]
    if body.get("stream", False):

        def stream() -> Generator[str, None, None]:
            for word in last_msg.split():
                yield word + " "

        return stream()
    return f"You said: {last_msg}"


def test_a_generator() -> None:
    said = chunks(words)
    assert deltas(said) == ["Hello ", "my ", "friend ", ""]
    assert finishes(said) == [None, None, None, "stop"]
    assert deltas(said, "role") == ["assistant", None, None, None]
    assert completion(words)["choices"][0]["message"]["content"] == "You said: Hello my friend"


async def words_later(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
    async def stream() -> AsyncGenerator[str, None]:
        for word in ["Hello", " from", " Haystack", "!"]:
            yield word

    return stream()


def test_an_async_generator() -> None:
    assert deltas(chunks(words_later)) == ["Hello", " from", " Haystack", "!", ""]


def test_the_function_decides_the_form_unless_it_is_to_follow_the_request() -> None:
    assert chat(words_later).headers["content-type"].startswith("text/event-stream")
    assert chat(quick, {"stream": True}).headers["content-type"] == "application/json"
    followed = completion(words_later, follow_stream=True)
    assert followed["choices"][0]["message"]["content"] == "Hello from Haystack!"
    assert deltas(chunks(quick, follow_stream=True)) == ["Hello from Haystack!", None]


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def full(message: Message, finish: str, **more: Any) -> Callable[..., CompletionResult]:
    def run(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
        return ChatCompletion(
            id="resp-1",
            object="chat.completion",
            created=NOW,
            model=model,
            choices=[Choice(index=0, message=message, finish_reason=finish)],
            **more,
        )

    return run


def test_a_completion() -> None:
    said = completion(full(Message(role="assistant", content="Hello!"), "stop", usage=USAGE))
    assert (said["id"], said["usage"]) == ("resp-1", USAGE)


def test_tool_calls() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": PARIS}}
    said = completion(full(Message(role="assistant", content=None, tool_calls=[call]), "tool_calls"))
    assert said["choices"][0]["message"]["tool_calls"] == [call]
    assert said["choices"][0]["finish_reason"] == "tool_calls"


def test_streamed_tool_calls() -> None:
    def run(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
        def chunk(finish_reason: str | None = None, **delta: Any) -> ChatCompletion:
            return ChatCompletion(
                id="resp-1",
                object="chat.completion.chunk",
                created=NOW,
                model=model,
                choices=[Choice(index=0, delta=Message(role="assistant", **delta), finish_reason=finish_reason)],
            )

        def stream() -> Generator[ChatCompletion, None, None]:
            function = {"name": "get_weather", "arguments": ""}
            yield chunk(tool_calls=[{"index": 0, "id": "call_1", "type": "function", "function": function}])
            yield chunk(tool_calls=[{"index": 0, "function": {"arguments": PARIS}}])
            yield chunk("tool_calls")

        return stream()

    said = chunks(run)
    assert {chunk["id"] for chunk in said} == {"resp-1"}
    assert "".join(call["function"]["arguments"] for (call,) in deltas(said, "tool_calls")[:2]) == PARIS
    assert finishes(said) == [None, None, "tool_calls"]


def haystack_calls(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
    def stream() -> Generator[StreamingChunk, None, None]:
        yield StreamingChunk(
            content="",
            tool_calls=[ToolCallDelta(index=0, id="call_1", tool_name="get_weather", arguments=PARIS)],
            index=0,
        )
        yield StreamingChunk(content="", finish_reason="tool_calls")

    return stream()


def test_streaming_chunks() -> None:
    said = chunks(haystack_calls)
    assert deltas(said, "tool_calls") == [
        [{"index": 0, "type": "function", "function": {"name": "get_weather", "arguments": PARIS}, "id": "call_1"}],
        None,
    ]
    assert finishes(said) == [None, "tool_calls"]


def test_reasoning() -> None:
    def run(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
        def stream() -> Generator[StreamingChunk, None, None]:
            yield StreamingChunk(content="", reasoning=ReasoningContent("Let me think..."), index=0)
            yield StreamingChunk(content="", reasoning=ReasoningContent(" The answer is 42."), index=0)
            yield StreamingChunk(content="The answer is 42.")

        return stream()

    said = chunks(run)
    assert deltas(said, "reasoning_content") == ["Let me think...", " The answer is 42.", None, None]
    assert deltas(said) == [None, None, "The answer is 42.", ""]


class StatusEvent:
    def __init__(self, description: str, done: bool = False) -> None:
        self.description = description
        self.done = done

    def to_event_dict(self) -> dict[str, Any]:
        return {"type": "status", "data": {"description": self.description, "done": self.done}}


def test_events_of_its_own() -> None:
    def run(model: str, messages: list[MessageParam], body: dict[str, Any]) -> CompletionResult:
        def stream() -> Generator[str | StatusEvent, None, None]:
            yield StatusEvent("Processing your request...")
            yield from ["Hello", " from", " Haystack", "!"]
            yield StatusEvent("Done", done=True)

        return stream()

    said = chunks(run)
    events = [chunk["event"]["data"]["description"] for chunk in said if "event" in chunk]
    assert events == ["Processing your request...", "Done"]
    assert deltas(said) == ["Hello", " from", " Haystack", "!", ""]


# -- chat: hooks and mappers


def test_hooks_that_transform() -> None:
    async def pre_hook(request: ChatRequest) -> ChatRequest:
        request.messages = [{"role": "user", "content": "injected"}]
        return request

    async def post_hook(result: CompletionResult) -> CompletionResult:
        return f"{result}!"

    said = completion(words, pre_hook=pre_hook, post_hook=post_hook)
    assert said["choices"][0]["message"]["content"] == "You said: injected!"


def test_hooks_that_observe() -> None:
    seen: list[str] = []

    def log_request(request: ChatRequest) -> None:
        seen.append(f"Request for model: {request.model}")

    def log_result(result: CompletionResult) -> None:
        seen.append(f"Got result type: {type(result).__name__}")

    said = completion(words, pre_hook=log_request, post_hook=log_result)
    assert said["choices"][0]["message"]["content"] == "You said: Hello my friend"
    assert seen == [f"Request for model: {MODEL}", "Got result type: str"]


@dataclass
class MyChunk:
    text: str
    score: float


MAPPERS = [
    pytest.param([MyChunk("a", 1.0), MyChunk("b", 0.5)], lambda chunk: chunk.text, id="dataclass"),
    pytest.param([{"payload": "a"}, {"payload": "b"}], lambda chunk: chunk["payload"], id="dictionary"),
]


@pytest.mark.parametrize(("given", "mapper"), MAPPERS)
def test_mappers(given: list[Any], mapper: Callable[[Any], str]) -> None:
    assert deltas(chunks(lambda model, messages, body: (chunk for chunk in given), chunk_mapper=mapper)) == [
        "a",
        "b",
        "",
    ]


# -- responses


def respond(run: Callable[..., Any], body: Any = None, path: str = "/v1/responses", **options: Any) -> httpx.Response:
    router = create_responses_router(list_models=list_models, run_response=run, **options)
    return asked(router, path, {"model": MODEL, "input": "hi", **(body or {})})


def events(run: Callable[..., Any], **options: Any) -> list[dict[str, Any]]:
    answer = respond(run, {"stream": True}, **options)
    assert answer.status_code == 200
    said = []
    for event in answer.text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        said.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {said[-1]['type']}"
    assert [event["sequence_number"] for event in said if "sequence_number" in event] == list(range(len(said)))
    return said


def told_items(model: str, input_items: list[InputItem], body: dict[str, Any]) -> ResponseResult:
    return json.dumps(input_items)


INPUTS = [
    pytest.param("hi", [{"type": "message", "role": "user", "content": "hi"}], id="text"),
    pytest.param(
        [{"type": "function_call_output", "call_id": "c"}],
        [{"type": "function_call_output", "call_id": "c"}],
        id="items",
    ),
    pytest.param(None, [], id="none"),
]


@pytest.mark.parametrize(("given", "items"), INPUTS)
@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
def test_a_response(given: Any, items: list[Any], path: str) -> None:
    said = respond(told_items, {"input": given}, path).json()
    assert (said["object"], said["status"], said["model"]) == ("response", "completed", MODEL)
    (item,) = said["output"]
    assert item.pop("id").startswith("msg_")
    part = {"type": "output_text", "text": json.dumps(items), "annotations": []}
    assert item == {"type": "message", "status": "completed", "role": "assistant", "content": [part]}


def test_a_streamed_response() -> None:
    def run(model: str, input_items: list[InputItem], body: dict[str, Any]) -> ResponseResult:
        if body.get("stream", False):
            return (word for word in ["Hello", " from", " streaming", "!"])
        return "Hello!"

    said = events(run)
    assert [event["type"] for event in said] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 4,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert said[-1]["response"]["output"][0]["content"][0]["text"] == "Hello from streaming!"
    assert respond(run).json()["output"][0]["content"][0]["text"] == "Hello!"
    assert len({event["response"]["id"] for event in said if "response" in event}) == 1


class FunctionCallChunk:
    def __init__(self, *, call_id: str, name: str | None, arguments: str | None) -> None:
        self.function_call_id = call_id
        self.function_call_name = name
        self.function_call_arguments = arguments


def response_calls(model: str, input_items: list[InputItem], body: dict[str, Any]) -> ResponseResult:
    def stream() -> Generator[FunctionCallChunk, None, None]:
        yield FunctionCallChunk(call_id="call_1", name="get_weather", arguments='{"city":')
        yield FunctionCallChunk(call_id="call_1", name=None, arguments=' "Paris"}')

    return stream()


@pytest.mark.parametrize("run", [response_calls, haystack_calls])
def test_streamed_function_calls(run: Any) -> None:
    said = events(run)
    (item,) = said[-1]["response"]["output"]
    assert item.pop("id").startswith("fc_")
    assert item == {
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "get_weather",
        "arguments": PARIS,
    }
    assert "".join(event["delta"] for event in said if event["type"].endswith("arguments.delta")) == PARIS


def test_streamed_reasoning() -> None:
    def run(model: str, input_items: list[InputItem], body: dict[str, Any]) -> ResponseResult:
        def stream() -> Generator[StreamingChunk, None, None]:
            yield StreamingChunk(content="", reasoning=ReasoningContent(reasoning_text="Step 1: "))
            yield StreamingChunk(content="", reasoning=ReasoningContent(reasoning_text="analyze the input."))
            yield StreamingChunk(content="Here is the answer.")

        return stream()

    said = events(run)
    reasoning, message = said[-1]["response"]["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Step 1: analyze the input."}]
    assert message["content"][0]["text"] == "Here is the answer."
    assert [event["type"] for event in said if "reasoning" in event["type"]] == [
        "response.reasoning_summary_part.added",
        *["response.reasoning_summary_text.delta"] * 2,
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
    ]


def a_response(model: str, input_items: list[InputItem], body: dict[str, Any]) -> ResponseResult:
    return Response(
        id=f"resp_{uuid.uuid4().hex}",
        created_at=NOW,
        model=model,
        output=[
            {
                "id": f"msg_{uuid.uuid4().hex}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello!", "annotations": []}],
            }
        ],
    )


def test_a_response_object() -> None:
    said = respond(a_response).json()
    assert said["output"][0]["content"][0]["text"] == "Hello!"
    assert said["usage"] is said["error"] is said["incomplete_details"] is None


def test_responses_in_the_form_that_was_asked_for() -> None:
    assert respond(response_calls, follow_stream=True).json()["output"][0]["arguments"] == PARIS
    assert events(told_items, follow_stream=True)[-1]["response"]["output"][0]["type"] == "message"
    (only,) = events(a_response, follow_stream=True)[2:]
    assert only["type"] == "response.completed"


def test_hooks_of_responses() -> None:
    async def pre_hook(request: ResponseRequest) -> ResponseRequest:
        request.input = "changed"
        return request

    said = respond(told_items, pre_hook=pre_hook, post_hook=lambda result: result.upper()).json()
    assert "CHANGED" in said["output"][0]["content"][0]["text"]


def test_a_response_tells_usage_in_its_own_words() -> None:
    def run(model: str, input_items: list[InputItem], body: dict[str, Any]) -> Any:
        return iter([StreamingChunk("hi"), StreamingChunk("", meta={"usage": USAGE})])

    assert events(run)[-1]["response"]["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }


# -- all of it together


def upload(filename: str | None, content_type: str | None, content: bytes, purpose: str) -> FileObject:
    return FileObject(
        id="file-1", bytes=len(content), created_at=1, filename=filename, purpose=purpose, type=content_type
    )


def upload_as_dictionary(*given: Any) -> dict[str, Any]:
    return upload(*given).model_dump()


@pytest.mark.parametrize("run", [upload, upload_as_dictionary])
@pytest.mark.parametrize("path", ["/v1/files", "/files"])
def test_files(run: Any, path: str) -> None:
    file = ("my fïle.txt", b"\x00a\r\n\r\nb--\r\n", "text/plain")
    answer = asked(create_files_router(run_file_upload=run), path, files={"file": file}, data={"purpose": "user_data"})
    assert answer.json() == {
        "id": "file-1",
        "object": "file",
        "bytes": 11,
        "created_at": 1,
        "filename": "my fïle.txt",
        "purpose": "user_data",
        "status": "processed",
        "type": "text/plain",
    }


def combined() -> FastAPI:
    app = FastAPI()
    app.include_router(create_models_router(list_models=list_models))
    app.include_router(
        create_chat_completion_router(list_models=list_models, run_completion=quick, include_models_endpoints=False)
    )
    app.include_router(
        create_responses_router(list_models=list_models, run_response=told_items, include_models_endpoints=False)
    )
    app.include_router(create_files_router(run_file_upload=upload))
    return app


def test_routers_beside_each_other() -> None:
    app = combined()
    assert asked(app, "/v1/models").json()["data"][0]["id"] == MODEL
    described = app.openapi()
    operations = {
        (method, path): operation["operationId"]
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert operations == {
        ("get", "/models"): "openai_models_alias",
        ("get", "/v1/models"): "openai_models",
        ("post", "/chat/completions"): "openai_chat_completions_alias",
        ("post", "/files"): "openai_files_create_alias",
        ("post", "/responses"): "openai_responses_alias",
        ("post", "/v1/chat/completions"): "openai_chat_completions",
        ("post", "/v1/files"): "openai_files_create",
        ("post", "/v1/responses"): "openai_responses",
    }
    assert {"ChatRequest", "ChatCompletion", "ResponseRequest", "FileObject"} <= set(described["components"]["schemas"])


def test_every_name_is_there() -> None:
    for name in weir.__all__:
        assert getattr(weir, name) is not None
    assert set(weir.__all__) <= set(dir(weir))
    with pytest.raises(AttributeError, match="create_nothing"):
        _ = weir.create_nothing


def test_the_library_is_imported_only_where_it_is_asked_for() -> None:
    looked = (
        "import sys, weir; weir.__version__, weir.Refused; print('fastapi' in sys.modules, 'pydantic' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
