"""A function that serves a model, in every kind that Python has: what the client sees, and what becomes of the function."""

import asyncio
import contextvars
import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from tests.fakes.streams import events_of
from weir.backend import BackendResponse, Call
from weir.backend.python import BadTarget, PythonBackend, resolve
from weir.backend.results_refused import Refused
from weir.core.errors import UpstreamFailed
from weir.core.types import Endpoint, Timeouts

CHAT = "/chat/completions"
HELLO = [{"role": "user", "content": "hello there"}]
SECRET = "canary-of-a-prompt"
WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


def call(path: str = CHAT, headers: Any = (), **fields: Any) -> Call:
    body = {"model": "m", "messages": HELLO, **fields}
    return Call(path, json.dumps(body).encode(), list(headers), Timeouts())


def heard(target: Any, asked: Call | None = None, **options: Any) -> tuple[int, bytes, bytes]:
    """Status, content type and the whole answer."""

    async def scene() -> tuple[int, bytes, bytes]:
        backend = PythonBackend(target, **options)
        parts = []
        async with backend.send(Endpoint("python"), asked or call()) as response:
            while part := await response.read():
                parts.append(part)
            assert await response.read() == b"", "an end stays one"
        await backend.close()
        return response.status, response.content_type, b"".join(parts)

    return asyncio.run(scene())


def whole(target: Any, asked: Call | None = None, **options: Any) -> str:
    status, content_type, body = heard(target, asked, **options)
    assert (status, content_type) == (200, b"application/json"), body
    return json.loads(body)["choices"][0]["message"]["content"]


def events(target: Any, asked: Call | None = None, **options: Any) -> list[dict[str, Any]]:
    status, content_type, body = heard(target, asked or call(stream=True), **options)
    assert status == 200
    assert content_type.startswith(b"text/event-stream")
    *chunks, done = events_of(body)
    assert done == b"[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def joined(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


# -- the kinds of functions


def text(model: str, messages: list[Any], body: dict[str, Any]) -> str:
    return messages[-1]["content"]


async def async_text(model: str, messages: list[Any], body: dict[str, Any]) -> str:
    await asyncio.sleep(0)
    return messages[-1]["content"]


def generator(model: str, messages: list[Any], body: dict[str, Any]) -> Iterator[str]:
    yield from ("hello", " there")


async def async_generator(model: str, messages: list[Any], body: dict[str, Any]) -> AsyncIterator[str]:
    for word in ("hello", " there"):
        await asyncio.sleep(0)
        yield word


def gives_async(model: str, messages: list[Any], body: dict[str, Any]) -> Any:
    return async_generator(model, messages, body)


async def gives_sync(model: str, messages: list[Any], body: dict[str, Any]) -> Any:
    return generator(model, messages, body)


def awaitable(model: str, messages: list[Any], body: dict[str, Any]) -> Any:
    return async_text(model, messages, body)


class Plain:
    def __call__(self, model: str, messages: list[Any], body: dict[str, Any]) -> str:
        return text(model, messages, body)


class AsyncCallable:
    async def __call__(self, model: str, messages: list[Any], body: dict[str, Any]) -> str:
        return await async_text(model, messages, body)


class Iterating:
    """An iterator that is no generator."""

    def __init__(self, *_: Any) -> None:
        self._words = ["hello", " there"]

    def __iter__(self) -> "Iterating":
        return self

    def __next__(self) -> str:
        if not self._words:
            raise StopIteration
        return self._words.pop(0)


class AsyncIterating(Iterating):
    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> "AsyncIterating":
        return self

    async def __anext__(self) -> str:
        if not self._words:
            raise StopAsyncIteration
        return self._words.pop(0)


KINDS = [
    text,
    async_text,
    generator,
    async_generator,
    gives_async,
    gives_sync,
    awaitable,
    Plain(),
    AsyncCallable(),
    Iterating,
    AsyncIterating,
    functools.partial(async_text),
    lambda model, messages, body: ["hello", " there"],
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: getattr(kind, "__name__", type(kind).__name__))
def test_every_kind_answers_whole_and_as_a_stream(kind: Any) -> None:
    """Whatever it gives, the client gets what it asked for."""
    assert whole(kind) == "hello there"
    chunks = events(kind)
    assert joined(chunks) == "hello there"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_usage_is_told_as_the_function_tells_it() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}], "usage": usage}
    asked = call(stream=True, stream_options={"include_usage": True})
    assert events(lambda *_: answer, asked)[-1]["usage"] == usage
    assert "usage" not in events(lambda *_: answer)[-1]
    assert "usage" not in events(text, asked)[-1], "it was counted by nobody"


# -- what it is given


def keyword(model: str, messages: list[Any], body: dict[str, Any], *, headers: dict[str, str]) -> str:
    return headers["x-request-id"]


def fourth(model: str, messages: list[Any], body: dict[str, Any], told: dict[str, str]) -> str:
    return told["x-request-id"]


def anything(model: str, messages: list[Any], body: dict[str, Any], **more: Any) -> str:
    return more["headers"]["x-request-id"]


def option(model: str, messages: list[Any], body: dict[str, Any], cut: int | None = None) -> str:
    return "none" if cut is None else "an option of its own was taken for the headers"


HEADERS = [(keyword, "r1"), (fourth, "r1"), (anything, "r1"), (option, "none")]


@pytest.mark.parametrize(("function", "said"), HEADERS, ids=lambda value: getattr(value, "__name__", value))
def test_headers_for_those_who_take_them(function: Any, said: str) -> None:
    assert whole(function, call(headers=[(b"X-Request-Id", b"r1")])) == said


def test_the_body_is_all_that_the_client_sent() -> None:
    assert whole(lambda model, messages, body: json.dumps([model, body["top_k"]]), call(top_k=3)) == '["m", 3]'


BODIES = [
    pytest.param("/embeddings", b"{}", 404, "not_found", id="another-path"),
    pytest.param(CHAT, b"no", 400, "malformed_body", id="no-json"),
    pytest.param(CHAT, b"[]", 400, "invalid_value", id="no-object"),
    pytest.param(CHAT, b'{"model":"m"}', 400, "invalid_value", id="no-messages"),
    pytest.param(CHAT, b'{"model":"m","messages":["hi"]}', 400, "invalid_value", id="messages-of-text"),
    pytest.param(CHAT, b'{"messages":[]}', 400, "invalid_value", id="no-model"),
]


@pytest.mark.parametrize(("path", "body", "status", "code"), BODIES)
def test_what_it_cannot_answer(path: str, body: bytes, status: int, code: str) -> None:
    said, content_type, answer = heard(text, Call(path, body, [], Timeouts()))
    assert (said, content_type) == (status, b"application/json")
    assert json.loads(answer)["error"]["code"] == code


# -- hooks and mapper


def test_hooks_change_what_they_return_and_only_see_what_they_do_not() -> None:
    seen: list[Any] = []

    async def before(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "messages": [{"role": "user", "content": "changed"}]}

    assert whole(text, pre_hook=before, post_hook=lambda result: result + "!") == "changed!"
    assert whole(text, pre_hook=lambda body: seen.append(body["model"]), post_hook=seen.append) == "hello there"
    assert seen == ["m", "hello there"]


def test_a_mapper_reads_chunks_of_another_kind() -> None:
    chunks = [{"payload": "a"}, {"payload": "b"}]
    assert whole(lambda *_: iter(chunks), chunk_mapper=lambda chunk: chunk["payload"]) == "ab"


# -- how it fails


def broken(*_: Any) -> str:
    raise ValueError(SECRET)


async def async_broken(*_: Any) -> str:
    raise ValueError(SECRET)


def broken_first(*_: Any) -> Iterator[str]:
    raise ValueError(SECRET)
    yield


def leaves(*_: Any) -> str:
    raise SystemExit(SECRET)


async def cancels(*_: Any) -> str:
    raise asyncio.CancelledError(SECRET)


BROKEN = [
    pytest.param(broken, "ValueError at test_python.py:", id="sync"),
    pytest.param(async_broken, "ValueError at test_python.py:", id="async"),
    pytest.param(broken_first, "ValueError at test_python.py:", id="before-the-first-piece"),
    pytest.param(leaves, "Escaped at ", id="exit"),
    pytest.param(cancels, "Escaped at ", id="cancellation"),
    pytest.param(lambda *_: 5, "NoAnswer at results.py:", id="no-answer"),
    pytest.param(lambda *_: {"choices": [object()]}, "", id="not-json"),
]


@pytest.mark.parametrize(("function", "reason"), BROKEN)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_failure_before_the_first_piece(function: Any, reason: str, stream: bool) -> None:
    with pytest.raises(UpstreamFailed) as raised:
        heard(function, call(stream=stream))
    assert raised.value.reason is not None
    assert raised.value.reason.startswith(reason)
    assert SECRET not in raised.value.reason + raised.value.text


def broken_later(*_: Any) -> Iterator[str]:
    yield "a"
    raise ValueError(SECRET)


async def async_broken_later(*_: Any) -> AsyncIterator[str]:
    yield "a"
    raise ValueError(SECRET)


def refused_later(*_: Any) -> Iterator[str]:
    yield "a"
    raise Refused("You have seen enough.")


LATER = [
    pytest.param(broken_later, "The model's function failed.", id="sync"),
    pytest.param(async_broken_later, "The model's function failed.", id="async"),
    pytest.param(refused_later, "You have seen enough.", id="refusal"),
]


@pytest.mark.parametrize(("function", "message"), LATER)
@pytest.mark.parametrize("pump", [False, True], ids=["read", "pump"])
def test_a_failure_behind_the_first_piece(function: Any, message: str, pump: bool) -> None:
    async def scene() -> None:
        backend = PythonBackend(function)
        async with backend.send(Endpoint("python"), call(stream=True)) as response:
            taken: list[bytes] = []

            async def read_on() -> None:
                while True:
                    taken.append(await response.read())

            with pytest.raises(UpstreamFailed) as raised:
                await (response.pump(taken.append) if pump else read_on())
            assert b'"content":"a"' in b"".join(taken)
            assert raised.value.text == message
            assert raised.value.reason is not None
            assert SECRET not in raised.value.reason
        await backend.close()

    asyncio.run(scene())


def test_a_refusal_is_the_clients() -> None:
    def refuses(*_: Any) -> str:
        raise Refused("Too long.", 413, code="too_long", param="messages")

    status, content_type, body = heard(refuses, call(stream=True))
    assert (status, content_type) == (413, b"application/json")
    assert json.loads(body)["error"] == {
        "message": "Too long.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "too_long",
    }


class Unprintable:
    def __str__(self) -> str:
        raise ValueError(SECRET)


class Beyond(Refused):
    headers: Any = 5


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else []


ODD = [
    # what a function raises                                     and what the client reads of it
    pytest.param(HTTPException(422, {"code": Decimal(1)}), {"code": "1"}, id="decimal"),
    pytest.param(HTTPException(422, {"code": {1: Decimal(1)}}), {"code": {"1": "1"}}, id="keys"),
    pytest.param(HTTPException(422, {"code": 7}), {"code": 7}, id="number"),
    pytest.param(HTTPException(422, {"code": 10**30}), {"code": str(10**30)}, id="huge"),
    pytest.param(HTTPException(422, {"message": "m", "code": nested(300)}), {"message": "m"}, id="deep"),
    pytest.param(HTTPException(422, {"message": "m", "code": nested(900)}), {"message": "m"}, id="deeper"),
    pytest.param(HTTPException(422, {"message": "m", "code": Unprintable()}), {"code": "Unprintable"}, id="no-text"),
    pytest.param(HTTPException(422, Unprintable()), {"message": "Unprintable"}, id="no-text-at-all"),  # type: ignore[arg-type]  # as odd as it gets
    pytest.param(Refused("a\ud800b", 422, code="\ud800"), {"message": "a?b", "code": "?"}, id="surrogates"),
    pytest.param(Beyond("m", 422), {"message": "m"}, id="headers-that-are-none"),
]


@pytest.mark.parametrize(("error", "said"), ODD)
def test_a_refusal_with_odd_parts_is_still_one(error: Exception, said: Mapping[str, Any]) -> None:
    def refuses(*_: Any) -> str:
        raise error

    status, content_type, body = heard(refuses)
    assert (status, content_type) == (422, b"application/json")
    assert json.loads(body)["error"].items() >= said.items()


# -- the client's pace, and the client who leaves


class Counting:
    """A generator that says how far it was asked, and whether it was closed, and in which thread."""

    def __init__(self) -> None:
        self.given = 0
        self.threads: set[int] = set()
        self.closed = threading.Event()

    def __call__(self, *_: Any) -> Iterator[str]:
        try:
            while True:
                self.threads.add(threading.get_ident())
                self.given += 1
                yield "a"
        finally:
            self.threads.add(threading.get_ident())
            self.closed.set()


def test_the_sink_sets_the_pace() -> None:
    async def scene() -> None:
        function, release, taken = Counting(), asyncio.Event(), []
        backend = PythonBackend(function)

        def sink(piece: bytes) -> Any:
            taken.append(piece)
            return release.wait()

        async with backend.send(Endpoint("python"), call(stream=True)) as response:
            pumping = asyncio.ensure_future(response.pump(sink))
            await asyncio.sleep(0.05)
            assert (len(taken), function.given) == (1, 1)
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)
        await backend.close()

    asyncio.run(scene())


def test_a_client_that_leaves_ends_the_generator_in_its_own_thread() -> None:
    async def scene() -> None:
        function = Counting()
        backend = PythonBackend(function)
        async with backend.send(Endpoint("python"), call(stream=True)) as response:
            for _ in range(3):
                await response.read()
        assert await asyncio.to_thread(function.closed.wait, 5)
        assert len(function.threads) == 1
        assert threading.get_ident() not in function.threads
        await backend.close()

    asyncio.run(scene())


def test_a_client_that_leaves_in_the_middle_of_a_step() -> None:
    """The block is left at once; the step goes on, and then its generator is closed."""

    async def scene() -> None:
        entered, release, closed = threading.Event(), threading.Event(), threading.Event()

        def slow(*_: Any) -> Iterator[str]:
            try:
                yield "a"
                entered.set()
                release.wait(10)
                yield "b"
            finally:
                closed.set()

        backend = PythonBackend(slow)
        async with backend.send(Endpoint("python"), call(stream=True)) as response:
            await response.read()
            reading = asyncio.ensure_future(response.read())
            assert await asyncio.to_thread(entered.wait, 5)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert not closed.is_set()
        release.set()
        assert await asyncio.to_thread(closed.wait, 5)
        await backend.close()

    asyncio.run(scene())


def test_a_client_that_leaves_before_the_function_has_answered() -> None:
    """What it gives too late is closed too, and whoever waits in its line is never begun."""

    async def scene() -> None:
        entered, release, closed = threading.Event(), threading.Event(), threading.Event()
        begun: list[str] = []

        def slow(model: str, *_: Any) -> Any:
            begun.append(model)
            entered.set()
            release.wait(10)
            given = generator("", [], {})
            next(given)

            class Late:
                def __next__(self) -> str:
                    return next(given)

                def close(self) -> None:
                    closed.set()

            return Late()

        backend = PythonBackend(slow, threads=1)
        asking = [
            asyncio.ensure_future(backend.send(Endpoint("python"), call(model=name)).__aenter__())
            for name in ("first", "second")
        ]
        assert await asyncio.to_thread(entered.wait, 5)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        release.set()
        assert await asyncio.to_thread(closed.wait, 5)
        assert begun == ["first"]
        await backend.close()

    asyncio.run(scene())


def test_a_client_that_leaves_ends_an_async_generator() -> None:
    async def scene(leave: Callable[[Any], Any]) -> list[str]:
        told: list[str] = []

        async def function(*_: Any) -> AsyncIterator[str]:
            try:
                yield "a"
                await asyncio.sleep(60)
                yield "b"
            finally:
                await asyncio.sleep(0)
                told.append("closed")

        backend = PythonBackend(function)
        async with backend.send(Endpoint("python"), call(stream=True)) as response:
            await leave(response)
        await backend.close()
        return told

    async def at_once(_: Any) -> None:
        pass

    async def between(response: Any) -> None:
        await response.read()

    async def waiting(response: Any) -> None:
        await response.read()
        reading = asyncio.ensure_future(response.read())
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    for leave in (at_once, between, waiting):
        assert asyncio.run(scene(leave)) == ["closed"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_generator_that_fails_when_it_is_closed_is_only_logged(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def stubborn(*_: Any) -> Iterator[str]:
        try:
            yield "a"
        finally:
            raise ValueError(SECRET)

    async def async_stubborn(*_: Any) -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            raise ValueError(SECRET)

    async def scene() -> None:
        backend = PythonBackend(stubborn if kind == "sync" else async_stubborn)
        async with backend.send(Endpoint("python"), call(stream=True)) as response:
            await response.read()
        while not caplog.records:
            await asyncio.sleep(0.01)
        await backend.close()

    asyncio.run(scene())
    (record,) = caplog.records
    assert "ValueError at test_python.py" in record.getMessage()
    assert SECRET not in record.getMessage()


# -- threads


def test_a_function_that_blocks_does_not_block_the_loop() -> None:
    async def scene() -> None:
        release = threading.Event()
        backend = PythonBackend(lambda *_: release.wait(10) and "done")
        asking = asyncio.ensure_future(backend.send(Endpoint("python"), call()).__aenter__())
        await asyncio.sleep(0.01)
        assert not asking.done()
        release.set()
        assert b"done" in await (await asking).read()
        await backend.close()

    asyncio.run(scene())


def test_threads_are_bounded_and_streams_share_them() -> None:
    async def scene() -> None:
        functions = [Counting() for _ in range(6)]
        backends = PythonBackend(lambda model, *_: functions[int(model)](), threads=2)
        blocks = [backends.send(Endpoint("python"), call(stream=True, model=str(n))) for n in range(6)]
        answers = [await block.__aenter__() for block in blocks]
        for answer in answers:
            assert await answer.read()
        assert all(len(function.threads) == 1 for function in functions), "each stays in its own"
        assert len(set().union(*(function.threads for function in functions))) == 2
        for block in blocks:
            await block.__aexit__(None, None, None)
        for function in functions:
            assert await asyncio.to_thread(function.closed.wait, 5)
        await backends.close()

    asyncio.run(scene())


class Stuck:
    """A function whose calls by the name "stuck" stay in their thread until they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.entered, self.release = threading.Event(), threading.Event()

    def __call__(self, model: str, *_: Any) -> str:
        self.begun.append(model)
        if model == "stuck":
            self.entered.set()
            self.release.wait(30)
        else:
            time.sleep(0.01)
        return "said"

    async def occupy(self, backend: PythonBackend) -> "asyncio.Task[bytes]":
        asking = asyncio.ensure_future(answer(backend, "stuck"))
        assert await asyncio.to_thread(self.entered.wait, 5)
        return asking


async def answer(backend: PythonBackend, model: str, **fields: Any) -> bytes:
    async with backend.send(Endpoint("python"), call(model=model, **fields)) as response:
        return b"".join([part async for part in _parts(response)])


@pytest.mark.parametrize("left", [False, True], ids=["asked", "left"])
def test_nobody_waits_behind_a_call_that_never_ends_while_another_thread_is_free(left: bool) -> None:
    async def scene() -> None:
        function = Stuck()
        backend = PythonBackend(function, threads=2)
        stuck = await function.occupy(backend)
        if left:
            stuck.cancel()
        async with asyncio.timeout(5):
            for _ in range(3):
                short = await asyncio.gather(*(answer(backend, "short", stream=n % 2 == 0) for n in range(8)))
                assert all(b"said" in one for one in short)
        function.release.set()
        await asyncio.gather(stuck, return_exceptions=True)
        await backend.close()

    asyncio.run(scene())


def test_calls_begin_in_the_order_in_which_they_came_and_who_left_never_does() -> None:
    async def scene() -> None:
        function = Stuck()
        backend = PythonBackend(function, threads=1)
        stuck = await function.occupy(backend)
        asking = {name: asyncio.ensure_future(answer(backend, name)) for name in "abcd"}
        await asyncio.sleep(0.01)
        asking["b"].cancel()
        await asyncio.gather(asking["b"], return_exceptions=True)
        function.release.set()
        await asyncio.gather(stuck, *asking.values(), return_exceptions=True)
        assert function.begun == ["stuck", "a", "c", "d"]
        await backend.close()

    asyncio.run(scene())


def test_a_flood_of_new_calls_leaves_a_stream_its_turns() -> None:
    """What came first goes first, whether it is a new call or the next step of one that has begun."""

    async def scene() -> None:
        order: list[str] = []

        def function(model: str, *_: Any) -> Iterator[str]:
            for _ in range(3):
                order.append(model)
                time.sleep(0.01)
                yield model

        backend = PythonBackend(function, threads=1)
        async with asyncio.timeout(10):
            asking = [asyncio.ensure_future(answer(backend, name, stream=True)) for name in "abcdef"]
            await asyncio.gather(*asking)
        assert order[:6] == list("abcdef"), "each has begun before the first goes on"
        assert order.index("a", 1) < 9, "and then the first has its turn"
        await backend.close()

    asyncio.run(scene())


def test_what_waits_when_the_backend_ends_begins_all_the_same() -> None:
    async def scene() -> None:
        before = set(threading.enumerate())
        function = Stuck()
        backend = PythonBackend(function, threads=1)
        stuck = await function.occupy(backend)
        waiting = asyncio.ensure_future(answer(backend, "short"))
        await asyncio.sleep(0.01)
        await backend.close()
        function.release.set()
        assert b"said" in await waiting
        await stuck
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("weir-python"):
                await asyncio.to_thread(thread.join, 5)
                assert not thread.is_alive()

    asyncio.run(scene())


def test_a_generator_that_exits_when_it_is_closed_takes_no_thread_with_it(caplog: pytest.LogCaptureFixture) -> None:
    def exits(*_: Any) -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            raise SystemExit

    async def scene() -> None:
        backend = PythonBackend(exits, threads=1)
        async with asyncio.timeout(5):
            for _ in range(2):
                async with backend.send(Endpoint("python"), call(stream=True)) as response:
                    assert b'"a"' in await response.read()
            while len(caplog.records) < 2:
                await asyncio.sleep(0.01)
        await backend.close()

    asyncio.run(scene())


def test_threads_end_with_the_backend() -> None:
    async def scene() -> None:
        before = set(threading.enumerate())
        backend = PythonBackend(text)
        async with backend.send(Endpoint("python"), call()) as response:
            await response.read()
        (own,) = (thread for thread in set(threading.enumerate()) - before if thread.name.startswith("weir-python"))
        assert own.daemon, "a function that never returns must not keep the process"
        await backend.close()
        await asyncio.to_thread(own.join, 5)
        assert not own.is_alive()

    asyncio.run(scene())


def test_a_stream_outlives_its_backends_end() -> None:
    """A configuration that is loaded anew drops no stream; and what was about to begin begins."""

    async def scene() -> None:
        before = set(threading.enumerate())
        backend = PythonBackend(generator)
        under_way, late = (backend.send(Endpoint("python"), call(stream=True)) for _ in range(2))
        async with under_way as response:
            await backend.close()
            parts = [part async for part in _parts(response)]
        async with late as response:
            assert [part async for part in _parts(response)]
        assert parts[-1].endswith(b"data: [DONE]\n\n")
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("weir-python"):
                await asyncio.to_thread(thread.join, 5)
                assert not thread.is_alive()

    asyncio.run(scene())


async def _parts(response: BackendResponse) -> AsyncIterator[bytes]:
    while part := await response.read():
        yield part


def test_a_function_sees_the_requests_context() -> None:
    async def scene() -> bytes:
        WHO.set("team-a")
        backend = PythonBackend(lambda *_: (WHO.get() for _ in range(1)))
        async with backend.send(Endpoint("python"), call()) as response:
            said = await response.read()
        await backend.close()
        return said

    assert b"team-a" in asyncio.run(scene())


# -- the target


BAD = [
    pytest.param("json", "module:callable", id="no-colon"),
    pytest.param(":dumps", "module:callable", id="no-module"),
    pytest.param("json:", "module:callable", id="no-name"),
    pytest.param("weir_has_no_such_module:f", "cannot be imported", id="no-such-module"),
    pytest.param("json:nothing", 'has no "nothing"', id="no-such-name"),
    pytest.param("json:__name__", "cannot be called", id="not-callable"),
    pytest.param(".relative:f", "cannot be imported", id="relative"),
    pytest.param("weir_broken:f", "cannot be imported: ZeroDivisionError", id="a-module-that-fails"),
    pytest.param("weir_leaving:f", "cannot be imported: SystemExit", id="a-module-that-exits"),
]


@pytest.mark.parametrize(("target", "sentence"), BAD)
def test_bad_targets(target: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weir_broken.py").write_text("1 / 0")
    (tmp_path / "weir_leaving.py").write_text("raise SystemExit(1)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadTarget, match=sentence):
        PythonBackend(target)


def test_targets() -> None:
    assert resolve("json:dumps") is json.dumps
    assert resolve("json:JSONEncoder.encode") is json.JSONEncoder.encode
    assert resolve(time.sleep) is time.sleep
    assert PythonBackend.serves == {"chat"}
