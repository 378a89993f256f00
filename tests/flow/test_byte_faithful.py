"""Streams as the engines write them, through the whole request path: what the client gets is what the upstream sent."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

import pytest

from tests.fakes.backend import JSON, Die, Head
from tests.fakes.client import Answer
from tests.fakes.clock import run
from tests.fakes.streams import STREAMS, Stream, events_of
from tests.flow.house import KEY, House, chat, error_of, open_house, route
from weir.core.errors import UpstreamFailed

CUTS = 12  # places at which each stream is cut, drawn anew for each stream and the same in every run
ASKS = pytest.mark.parametrize("asks", [False, True], ids=["usage-not-asked-for", "usage-asked-for"])


def cuttings(body: bytes, name: str) -> Iterator[Sequence[bytes]]:
    """The body whole, in two pieces at several places, in many pieces, and if it is small in single bytes."""
    drawn = random.Random(name)
    yield [body] if body else []
    for _ in range(CUTS if len(body) < 10_000 else 3):
        at = drawn.randrange(len(body) + 1)
        yield [part for part in (body[:at], body[at:]) if part]
    places = sorted(drawn.randrange(len(body) + 1) for _ in range(20))
    yield [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True) if a < b]
    if len(body) < 3_000:
        yield [bytes([byte]) for byte in body]


async def relayed(house: House, pieces: Sequence[bytes], *, asks: bool, content_type: bytes) -> Answer:
    house.backend.script = [Head(200, content_type), *pieces]
    options = {"stream_options": {"include_usage": True}} if asks else {}
    return await house.ask(chat(stream=True, **options)).over()


@ASKS
@pytest.mark.parametrize("stream", STREAMS, ids=attrgetter("name"))
def test_stream(stream: Stream, *, asks: bool) -> None:
    expected = stream.body if asks else stream.stripped

    async def scene() -> None:
        for pieces in cuttings(stream.body, stream.name):
            async with open_house() as house:
                answer = await relayed(house, pieces, asks=asks, content_type=b"text/event-stream; charset=utf-8")
                assert answer.status == 200
                assert answer.header("content-type") == "text/event-stream; charset=utf-8"
                if stream.finished or stream.error:
                    assert answer.body == expected
                else:
                    assert_ends_with_our_error(answer.body, stream, asks=asks)
                assert_charged(house, stream, await house.charged())

    run(scene)


def assert_ends_with_our_error(body: bytes, stream: Stream, *, asks: bool) -> None:
    """An unfinished event that may still become the usage chunk is held back; otherwise all that came is there."""
    came = stream.body if asks else stream.stripped
    assert error_of(events_of(body)[-1])["code"] == "upstream_error"
    before = events_of(body)[:-1]
    assert before[: len(events_of(came))] == events_of(came)
    assert len(before) <= len(events_of(came)) + 1, "at most the event that was cut off is there besides"
    if asks:
        assert body.startswith(came)


def assert_charged(house: House, stream: Stream, charged: tuple[int, int]) -> None:
    if stream.usage is not None:
        assert charged == (1, stream.usage[0] + stream.usage[1])
        assert house.record["tokens_from"] == "reported"
    else:
        assert house.record["tokens_from"] in {"counted", "none"}
        assert charged[1] == house.record["input_tokens"] + house.record["output_tokens"]


@ASKS
def test_an_upstream_that_dies_anywhere_loses_no_event_that_was_complete(*, asks: bool) -> None:
    stream = STREAMS[0]
    end = stream.body.index(b"data: [DONE]")

    async def scene() -> None:
        for at in range(0, end, 7):
            came = stream.body[:at]
            async with open_house(Head(), came, Die(UpstreamFailed(reason="reset"))) as house:
                options = {"stream_options": {"include_usage": True}} if asks else {}
                answer = await house.ask(chat(stream=True, **options)).over()
                sent = events_of(came)
                if not asks:
                    sent = [event for event in sent if b'"choices":[]' not in event]
                events = events_of(answer.body)
                assert events[: len(sent)] == sent
                assert error_of(events[-1])["code"] == "upstream_error"
                assert len(events) - 1 in {len(sent), len(sent) + 1}

    run(scene)


WHOLE = [
    pytest.param(b'{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}', 7, id="compact"),
    pytest.param(
        '{ "vendor" : {"x": [1, {}]},\n "big": 123456789012345678901234567890, "reasoning_content": "\\u00fc\u00fc",\n'
        ' "usage" : { "completion_tokens": 4 , "prompt_tokens": 3 } }\n'.encode(),
        7,
        id="odd-spaces-numbers-escapes",
    ),
    pytest.param(b'{"data":["' + b"A" * (3 << 20) + b'"],"usage":{"prompt_tokens":8,"total_tokens":8}}', 8, id="3-mib"),
]


@pytest.mark.parametrize(("body", "tokens"), WHOLE)
def test_whole_answer(*, body: bytes, tokens: int) -> None:
    async def scene() -> None:
        for pieces in cuttings(body, "whole"):
            async with open_house(Head(200, JSON, ((b"openai-processing-ms", b"12"),)), *pieces) as house:
                answer = await house.ask().over()
                assert answer.body == body
                assert answer.header("openai-processing-ms") == "12"
                assert await house.charged() == (1, tokens)

    run(scene)


def text(headers: Iterable[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    """Each once, as text."""
    said: dict[str, str] = {}
    for header in headers:
        name, value = (part.decode("latin-1") if isinstance(part, bytes) else part for part in header)
        assert name not in said
        said[name] = value
    return said


class TestWhatGoesUpstream:
    def test_is_the_bytes_of_the_client_where_nothing_is_to_change(self) -> None:
        body = (
            b' {"x" : [ 1.0e-1, {"model":"other"} ],\t"messages":[{"content":"\\u0068\\/"}],'
            b'"model":"m","max_tokens":5}\n'
        )

        async def scene() -> None:
            async with open_house(Head(200, JSON), b"{}") as house:
                await house.ask(body).over()
                assert house.backend.visit.call.body == body
                assert house.backend.visit.call.path == "/chat/completions"

        run(scene)

    def test_has_the_name_that_the_upstream_knows_and_the_usage_that_we_need(self) -> None:
        async def scene() -> None:
            async with open_house(
                b"data: [DONE]\n\n", routes=[route(upstream_model="vendor/M", aliases=("alias",))]
            ) as house:
                body = chat(model="alias", stream=True, vendor={"model": "alias"})
                await house.ask(body).over()
                sent = json.loads(house.backend.visit.call.body)
                assert sent == json.loads(body) | {"model": "vendor/M", "stream_options": {"include_usage": True}}
                assert house.record["model"] == "m"

        run(scene)

    def test_has_our_headers_and_none_of_the_client(self) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

        async def scene() -> None:
            async with open_house(Head(200, JSON), b"{}") as house:
                headers = [
                    ("cookie", "a=b"),
                    ("x-forwarded-for", "10.0.0.1"),
                    ("user-agent", "of-the-client"),
                    ("x-request-id", "mine"),
                    ("traceparent", trace),
                    ("tracestate", "a=1"),
                ]
                await house.ask(headers=headers).over()
                sent = text(house.backend.visit.call.headers)
                expected = {
                    "accept": "application/json",
                    "x-request-id": "mine",
                    "traceparent": trace,
                    "tracestate": "a=1",
                }
                assert sent.items() >= expected.items()
                assert not sent.keys() & {"authorization", "cookie", "x-forwarded-for", "host", "content-length"}
                assert sent.get("user-agent", "weir") == "weir"
                assert KEY not in str(sent)

        run(scene)
