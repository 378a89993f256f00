"""How an answer of the library ends: whole, refused, failed on either side of its first byte, or left by its client."""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from openai import APIError, AsyncOpenAI, BadRequestError, InternalServerError

from tests.fakes.streams import events_of
from weir import (
    ChatCompletion,
    Refused,
    create_chat_completion_router,
    create_files_router,
    create_models_router,
    create_openai_router,
    create_responses_router,
)
from weir.api.library.multipart import Malformed, Part, parts

MODEL = "m"
SECRET = "canary-of-a-prompt"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def names() -> list[str]:
    return [MODEL]


def application(run: Callable[..., Any], **options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(create_openai_router(list_models=names, run_completion=run, **options))
    app.include_router(create_responses_router(list_models=names, run_response=run, **options))
    return app


def asked(app: FastAPI, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    async def scene() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.post(path, json={"model": MODEL, "messages": HELLO, "input": "hello", **fields})

    return asyncio.run(scene())


# -- refused and failed


def breaks(*_: Any) -> str:
    raise ValueError(SECRET)


def breaks_first(*_: Any) -> Iterator[str]:
    raise ValueError(SECRET)
    yield


def refuses(*_: Any) -> str:
    raise Refused("Too long.", 413, code="too_long", param="messages")


def not_here(*_: Any) -> str:
    raise HTTPException(404, "no such pipeline", {"x-why": "gone"})


def away(*_: Any) -> str:
    raise HTTPException(503, "loading", {"retry-after": "7"})


FAILED = "The model's function failed."
STATUSES = [
    # function                      status  message             type                     code
    pytest.param(breaks, 500, FAILED, "server_error", "internal_error", id="fails"),
    pytest.param(breaks_first, 500, FAILED, "server_error", "internal_error", id="fails-before-the-first-piece"),
    pytest.param(lambda *_: None, 500, FAILED, "server_error", "internal_error", id="no-answer"),
    pytest.param(refuses, 413, "Too long.", "invalid_request_error", "too_long", id="refuses"),
    pytest.param(not_here, 404, "no such pipeline", "invalid_request_error", None, id="http-exception"),
    pytest.param(away, 503, "loading", "server_error", "internal_error", id="http-exception-5xx"),
]


@pytest.mark.parametrize(("run", "status", "message", "kind", "code"), STATUSES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_before_the_first_byte_it_is_a_status(
    run: Any, status: int, message: str, kind: str, code: str | None, path: str
) -> None:
    answer = asked(application(run), path, stream=True)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["message"], error["type"], error["code"]) == (message, kind, code)
    assert SECRET not in answer.text
    assert answer.headers.get("retry-after") == ("7" if run is away else None)
    assert answer.headers.get("x-why") == ("gone" if run is not_here else None)


def test_a_failure_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    asked(application(breaks))
    (record,) = [record for record in caplog.records if record.name == "weir.library"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


INVALID = [
    pytest.param({"messages": "hello"}, "messages", id="not-a-list"),
    pytest.param({"messages": ["hello"]}, "messages.0", id="not-an-object"),
    pytest.param({"model": None}, "model", id="no-model"),
    pytest.param({"stream": "maybe"}, "stream", id="not-a-boolean"),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
def test_what_cannot_be_read(fields: dict[str, Any], param: str) -> None:
    answer = asked(application(breaks), **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", param)
    assert error["message"].startswith(f"'{param}': ")
    assert "hello" not in error["message"]


def test_no_json() -> None:
    async def scene() -> httpx.Response:
        transport = httpx.ASGITransport(application(breaks))
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body")


def test_errors_of_dependencies_and_of_other_routes() -> None:
    """The router's errors are OpenAI's, those of the application around it stay its own."""

    def nobody() -> None:
        raise HTTPException(401, "no key", {"www-authenticate": "Bearer"})

    app = FastAPI()
    models = create_models_router(list_models=names)
    app.include_router(models, dependencies=[Depends(nobody)])

    @app.get("/own", dependencies=[Depends(nobody)])
    def own() -> None: ...

    async def scene() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return [await client.get(path) for path in ("/v1/models", "/own")]

    ours, theirs = asyncio.run(scene())
    assert (ours.status_code, ours.json()["error"]["message"]) == (401, "no key")
    assert ours.headers["www-authenticate"] == "Bearer"
    assert theirs.json() == {"detail": "no key"}


# -- after the first byte


def breaks_later(*_: Any) -> Iterator[str]:
    yield "a"
    raise ValueError(SECRET)


async def breaks_later_on_the_loop(*_: Any) -> AsyncIterator[str]:
    yield "a"
    raise ValueError(SECRET)


def refuses_later(*_: Any) -> Iterator[str]:
    yield "a"
    raise Refused("That is enough.", code="enough")


LATER = [
    pytest.param(breaks_later, FAILED, "internal_error", id="sync"),
    pytest.param(breaks_later_on_the_loop, FAILED, "internal_error", id="async"),
    pytest.param(refuses_later, "That is enough.", "enough", id="refusal"),
]


@pytest.mark.parametrize(("run", "message", "code"), LATER)
def test_after_the_first_byte_it_is_an_event(run: Any, message: str, code: str) -> None:
    answer = asked(application(run), stream=True)
    *chunks, error = [json.loads(event) for event in events_of(answer.content)]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["a"]
    assert (error["error"]["message"], error["error"]["code"]) == (message, code)
    assert SECRET not in answer.text


@pytest.mark.parametrize(("run", "message", "code"), LATER)
def test_of_a_response_it_is_an_error_event(run: Any, message: str, code: str) -> None:
    answer = asked(application(run), "/v1/responses", stream=True)
    last = answer.text.rstrip().split("\n\n")[-1]
    name, data = last.split("\n")
    assert name == "event: error"
    said = json.loads(data.removeprefix("data: "))
    assert (said["type"], said["message"], said["code"]) == ("error", message, code)
    assert SECRET not in answer.text


# -- usage


def with_usage(*_: Any) -> Iterator[Any]:
    yield "a"
    yield {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}


def test_usage_for_those_who_ask() -> None:
    *_, usage, done = events_of(
        asked(application(with_usage), stream=True, stream_options={"include_usage": True}).content
    )
    assert done == b"[DONE]"
    assert json.loads(usage)["usage"] == USAGE
    assert json.loads(usage)["choices"] == []
    *_, last, _ = events_of(asked(application(with_usage), stream=True).content)
    assert json.loads(last)["usage"] is None


# -- the client who leaves


class Endless:
    """Says when it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def blocking(self, *_: Any) -> Iterator[str]:
        try:
            while True:
                yield "word "
        finally:
            self.closed.set()

    async def waiting(self, *_: Any) -> AsyncIterator[str]:
        try:
            while True:
                yield "word "
                await asyncio.sleep(0.01)
        finally:
            self.closed.set()


KINDS = [pytest.param(Endless.blocking, id="sync"), pytest.param(Endless.waiting, id="async")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/responses"])
def test_its_generator_is_closed(kind: Any, path: str) -> None:
    endless = Endless()

    def run(model: str, messages: Any, body: Any) -> Any:
        return kind(endless)

    async def scene() -> None:
        async with serving(application(run)) as url, httpx.AsyncClient(base_url=url) as client:
            body = {"model": MODEL, "messages": HELLO, "input": "x", "stream": True}
            async with client.stream("POST", path, json=body) as answer:
                assert answer.headers["cache-control"] == "no-cache"
                async for _ in answer.aiter_bytes():
                    break
            assert await asyncio.to_thread(endless.closed.wait, 5)

    asyncio.run(scene())


class serving:  # noqa: N801 - it is used as a function
    """The application on a free port of this machine, until the block is left."""

    def __init__(self, app: FastAPI) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))

    async def __aenter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._serving
        self._socket.close()


def test_a_server_that_says_so_by_an_error() -> None:
    """ASGI 2.4: `send` raises OSError once the client is gone."""
    endless = Endless()
    app = application(lambda model, messages, body: endless.blocking())
    sent: list[Any] = []

    async def scene() -> None:
        body = json.dumps({"model": MODEL, "messages": HELLO}).encode()
        inbox = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if inbox:
                return inbox.pop()
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 3:
                raise OSError

        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": headers,
            "query_string": b"",
            "client": ("c", 1),
        }
        await app(scope, receive, send)
        assert await asyncio.to_thread(endless.closed.wait, 5)

    asyncio.run(scene())
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 2]


def test_background_tasks_run_behind_a_stream() -> None:
    told: list[str] = []

    def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(told.append, "done")

    app = FastAPI()
    router = create_openai_router(list_models=names, run_completion=lambda *_: iter(["a"]))
    app.include_router(router, dependencies=[Depends(later)])
    assert b"[DONE]" in asked(app).content
    assert told == ["done"]


# -- the SDK


def sdk(app: FastAPI, play: Callable[[AsyncOpenAI], Awaitable[Any]]) -> Any:
    async def scene() -> Any:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
        async with AsyncOpenAI(api_key="k", base_url="http://app/v1", http_client=http, max_retries=0) as client:
            return await play(client)

    return asyncio.run(scene())


def calls_weather(*_: Any) -> Iterator[Any]:
    class Chunk:
        content = ""

        def __init__(self, arguments: str, finish: str | None = None, **call: Any) -> None:
            self.tool_calls = [{"index": 0, "arguments": arguments, **call}]
            self.finish_reason = finish

    yield Chunk('{"city":', id="c1", name="weather")
    yield Chunk('"Paris"}', finish="tool_calls")


def test_the_sdk_joins_what_was_streamed() -> None:
    async def play(client: AsyncOpenAI) -> None:
        async with client.chat.completions.stream(model=MODEL, messages=HELLO) as stream:
            message = (await stream.get_final_completion()).choices[0].message
        assert message.role == "assistant"
        assert message.tool_calls is not None
        said = message.tool_calls[0]
        assert (said.id, said.function.name, said.function.arguments) == ("c1", "weather", '{"city":"Paris"}')

    sdk(application(calls_weather), play)


def test_the_sdk_streams_a_response() -> None:
    async def play(client: AsyncOpenAI) -> None:
        async with client.responses.stream(model=MODEL, input="x") as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
        (call,) = final.output
        assert call.type == "function_call"
        assert (call.call_id, call.arguments) == ("c1", '{"city":"Paris"}')

    sdk(application(calls_weather), play)


def test_the_sdk_gets_what_it_asks_for() -> None:
    async def play(client: AsyncOpenAI) -> None:
        whole = await client.chat.completions.create(model=MODEL, messages=HELLO)
        assert whole.choices[0].message.content == "hello"
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "hello"
        assert (await client.responses.create(model=MODEL, input="x")).output_text == "hello"
        assert [model.id async for model in client.models.list()] == [MODEL]

    sdk(application(lambda *_: "hello", follow_stream=True), play)
    sdk(application(lambda *_: iter(["hel", "lo"]), follow_stream=True), play)


def test_the_sdk_understands_how_it_failed() -> None:
    async def play(client: AsyncOpenAI) -> None:
        with pytest.raises(InternalServerError, match="function failed"):
            await client.chat.completions.create(model=MODEL, messages=HELLO)
        with pytest.raises(BadRequestError, match="messages"):
            await client.chat.completions.create(model=MODEL, messages="x")  # type: ignore[arg-type]  # the point

    async def broken_stream(client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        with pytest.raises(APIError, match="function failed"):
            [chunk async for chunk in stream]

    sdk(application(breaks), play)
    sdk(application(breaks_later), broken_stream)


def test_the_sdk_uploads_a_file() -> None:
    def take(filename: str, content_type: str, content: bytes, purpose: str) -> dict[str, Any]:
        return {"id": "f", "bytes": len(content), "created_at": 1, "filename": filename, "purpose": purpose}

    async def play(client: AsyncOpenAI) -> None:
        made = await client.files.create(file=("a.jsonl", b"{}\n{}\n"), purpose="batch")
        assert (made.filename, made.bytes, made.purpose) == ("a.jsonl", 6, "batch")

    app = FastAPI()
    app.include_router(create_files_router(run_file_upload=take))
    sdk(app, play)


# -- forms

BOUNDARY = "multipart/form-data; boundary=xx"
FORMS = [
    pytest.param(
        b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--xx--\r\n',
        [Part("a", None, None, b"1")],
        id="field",
    ),
    pytest.param(
        b'hi\r\n--xx  \r\ncontent-disposition: form-data; name=a; filename="b"\r\ncontent-type: x/y\r\n\r\n\r\n\r\n--xx--',
        [Part("a", "b", "x/y", b"\r\n")],
        id="preamble-blanks-and-a-line-end",
    ),
    pytest.param(b"--xx--", [], id="nothing"),
]


@pytest.mark.parametrize(("body", "found"), FORMS)
def test_forms(body: bytes, found: list[Part]) -> None:
    assert parts(BOUNDARY, body) == found


MALFORMED = [
    pytest.param("application/json", b"--xx--", id="another-type"),
    pytest.param("multipart/form-data", b"--xx--", id="no-boundary"),
    pytest.param(BOUNDARY, b"", id="nothing"),
    pytest.param(BOUNDARY, b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\n1', id="cut"),
    pytest.param(
        BOUNDARY, b'--xxy\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--xx--', id="another-boundary"
    ),
    pytest.param(BOUNDARY, b"--xx\r\nContent-Disposition: form-data\r\n\r\n1\r\n--xx--", id="no-name"),
    pytest.param(BOUNDARY, b"--xx\r\nContent-Disposition: form-data\r\n--xx--", id="no-content"),
]


@pytest.mark.parametrize(("content_type", "body"), MALFORMED)
def test_malformed_forms(content_type: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        parts(content_type, body)


FIELDS = [({"purpose": "x"}, "file"), ({"file": "x"}, "purpose")]


@pytest.mark.parametrize(("fields", "missing"), FIELDS)
def test_what_is_missing_in_a_form(fields: dict[str, str], missing: str) -> None:
    app = FastAPI()
    app.include_router(create_files_router(run_file_upload=breaks))

    async def scene() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            sent = {name: (None, value.encode()) for name, value in fields.items()}
            return await client.post("/v1/files", files=sent)

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, missing)


def test_a_type_of_ours_passes_a_mapper() -> None:
    """As it does in the library whose programs move here."""

    def run(*_: Any) -> Iterator[Any]:
        choices: list[Any] = [{"index": 0, "delta": {"role": "assistant", "content": "own"}}]
        yield ChatCompletion(id="i", object="chat.completion.chunk", created=1, model="m", choices=choices)
        yield {"text": "mapped"}

    router = create_chat_completion_router(
        list_models=names, run_completion=run, chunk_mapper=lambda chunk: chunk["text"]
    )
    app = FastAPI()
    app.include_router(router)
    said = [json.loads(event) for event in events_of(asked(app, stream=True).content)[:-1]]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in said] == ["own", "mapped", ""]
