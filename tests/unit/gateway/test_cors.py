"""Which pages in browsers may read what we say (Fetch standard, "CORS protocol")."""

import asyncio
from typing import Any

import pytest

from weir.core.asgi import Headers, Message, Scope
from weir.gateway.cors import Cors

CHAT, OTHER = b"https://chat.example.com", b"https://evil.example.com"
ONE = Cors(["https://chat.example.com", "http://localhost:3000"])
ALL = Cors(["*"])


def scope(*headers: tuple[bytes, bytes], method: str = "POST") -> Scope:
    return {"type": "http", "method": method, "path": "/v1/chat/completions", "headers": list(headers)}


def allowed(headers: Headers) -> bytes | None:
    return dict(headers).get(b"access-control-allow-origin")


ROWS = [
    pytest.param(ONE, CHAT, CHAT, id="named"),
    pytest.param(ONE, b"http://localhost:3000", b"http://localhost:3000", id="named-with-a-port"),
    pytest.param(ONE, OTHER, None, id="another"),
    pytest.param(ONE, b"https://chat.example.com.evil.com", None, id="begins-like-one"),
    pytest.param(ONE, b"http://chat.example.com", None, id="another-scheme"),
    pytest.param(ONE, b"null", None, id="null"),
    pytest.param(ONE, None, None, id="no-browser"),
    pytest.param(ALL, OTHER, b"*", id="all"),
    pytest.param(ALL, None, None, id="all-without-a-browser"),
]


@pytest.mark.parametrize(("cors", "origin", "answer"), ROWS)
def test_who_may_read_an_answer(cors: Cors, origin: bytes | None, answer: bytes | None) -> None:
    headers = cors.headers_of(scope(*([(b"origin", origin)] if origin else [])))
    assert allowed(headers) == answer
    assert b"access-control-allow-credentials" not in dict(headers)
    assert cors is ALL or (b"vary", b"origin") in headers, "a cache must not give one page's answer to another"


def test_a_script_may_read_what_sdks_look_for() -> None:
    readable = dict(ONE.headers_of(scope((b"origin", CHAT))))[b"access-control-expose-headers"].split(b", ")
    assert {b"x-request-id", b"retry-after", b"retry-after-ms", b"x-ratelimit-remaining-tokens"} <= set(readable)


def asked(cors: Cors, *headers: tuple[bytes, bytes], method: str = "OPTIONS") -> list[Message]:
    said: list[Message] = []

    async def inner(_: Scope, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 405, "headers": []})

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read of it")

    asyncio.run(cors.preflight(inner)(scope(*headers, method=method), receive, send))  # type: ignore[arg-type]
    return said


WANTS = (
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization,content-type"),
)


def test_the_question_before_the_request() -> None:
    head, body = asked(ONE, (b"origin", CHAT), *WANTS)
    said = dict(head["headers"])
    assert (head["status"], body["body"]) == (204, b"")
    assert allowed(head["headers"]) == CHAT
    assert b"POST" in said[b"access-control-allow-methods"]
    assert said[b"access-control-allow-headers"] == b"authorization,content-type"
    assert int(said[b"access-control-max-age"]) > 0


def test_the_question_of_another_page() -> None:
    head, _ = asked(ONE, (b"origin", OTHER), *WANTS)
    assert head["status"] == 204
    assert allowed(head["headers"]) is None


@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_what_is_no_such_question_goes_on(method: str) -> None:
    headers = WANTS if method == "GET" else ((b"origin", CHAT),)
    assert asked(ONE, *headers, method=method)[0]["status"] == 405
