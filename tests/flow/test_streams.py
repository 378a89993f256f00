"""Plays: what the backend says, what the client sees, what was charged, and what the log says. One row an ending."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import pytest

from tests.fakes.backend import HANG, JSON, Die, Head, Pause, Silence, Step
from tests.fakes.client import Conversation
from tests.fakes.clock import run
from tests.fakes.streams import events_of
from tests.flow.house import PRINCIPAL, House, chat, error_of, open_house, prompt_tokens, route
from weir.core.errors import UpstreamFailed, UpstreamTimeout, UpstreamUnreachable


def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "choices": choices, **more}).encode() + b"\n\n"


def word(text: str, finish: str | None = None, **more: Any) -> bytes:
    return event([{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more)


# All of one size, so that what is counted is one token an event.
AA, BB, STOP = word("aa"), word("bb"), word("", "stop")
USAGE_OBJECT = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
USAGE = event([], usage=USAGE_OBJECT)
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "the engine is dead", "type": "server_error", "param": null, "code": 500}}\n\n'
LAST_WITH_USAGE = word("", "stop", usage=USAGE_OBJECT)
WHOLE = json.dumps({"id": "c1", "choices": [{"message": {"content": "aa"}}], "usage": USAGE_OBJECT}).encode()
WITHOUT_USAGE = json.dumps({"id": "c1", "choices": [{"message": {"content": "aa"}}]}).encode()
LARGE = b'{"object":"list","data":["' + b"x" * (3 << 20) + b'"],"usage":{"prompt_tokens":11,"total_tokens":14}}'
REFUSED = b'{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context"}}'
HTML = b"<html><body>502 Bad Gateway</body></html>"
CUT = UpstreamFailed("The model's server broke off in the middle of its answer.", reason="reset")
OK_JSON = Head(200, JSON)


@dataclass(frozen=True)
class Charge:
    """What an ending costs, in tokens: the prompt's estimate if `prompt`, and `tokens`; up to `more` on top of that
    where only the bounds are promised. None instead of a charge: nothing at all.
    """

    tokens: int
    prompt: bool = False
    more: int = 0


NOTHING = None
REPORTED = Charge(14)
ALL = Charge(50, prompt=True)  # the whole reservation


BOUNDED = Charge(0, prompt=True, more=50)  # the prompt at least, the reservation at most


def counted(output: int) -> Charge:
    return Charge(output, prompt=True)


Does = Callable[[Conversation, House], Awaitable[None]]


@dataclass(frozen=True)
class Play:
    """`sees` is all that the client gets or, with `error` (a code), all before the error event that ends the stream.
    In a refusal before the first byte `error` is the code of the JSON body. `complete` False: the connection breaks.
    """

    id: str
    says: tuple[Step, ...]
    sees: bytes | None
    charged: Charge | None
    outcome: str = "ok"
    tokens_from: str = "reported"
    status: int = 200
    error: str | None = None
    complete: bool = True
    aborted: bool = False
    asks: dict[str, Any] = field(default_factory=lambda: {"stream": True})
    does: Does | None = None
    message: str = ""


WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
PLAIN: dict[str, Any] = {}


def leaves_after(part: bytes) -> Does:
    async def does(conversation: Conversation, house: House) -> None:
        await conversation.has(part)
        conversation.leave()

    return does


async def leaves_at_once(conversation: Conversation, house: House) -> None:
    await asyncio.sleep(1)  # the request is upstream by now
    conversation.leave()


async def stops_reading_after_the_first_event(conversation: Conversation, house: House) -> None:
    await conversation.has(AA)
    conversation.stop_reading()


async def stops_reading_at_once(conversation: Conversation, house: House) -> None:
    conversation.stop_reading()


async def drained_after_the_first_event(conversation: Conversation, house: House) -> None:
    await conversation.has(AA)
    await house.rooms.drain.run()


async def drained(conversation: Conversation, house: House) -> None:
    await asyncio.sleep(1)
    await house.rooms.drain.run()


async def killed_after_the_first_event(conversation: Conversation, house: House) -> None:
    await conversation.has(AA)
    conversation.kill()


def pauses(*says: Step) -> tuple[Step, ...]:
    """The same with a second before each step, so that the client can act in between."""
    return tuple(step for one in says for step in ((Silence(1), one) if isinstance(one, bytes) else (one,)))


COMPLETE = [
    Play("usage-not-asked-for", (AA, BB, STOP, USAGE, DONE), AA + BB + STOP + DONE, REPORTED),
    Play("usage-asked-for", (AA, BB, STOP, USAGE, DONE), AA + BB + STOP + USAGE + DONE, REPORTED, asks=WITH_USAGE),
    Play("usage-with-the-last-event", (AA, LAST_WITH_USAGE, DONE), AA + LAST_WITH_USAGE + DONE, REPORTED),
    Play(
        "usage-switched-off-by-the-client",
        (AA, STOP, USAGE, DONE),
        AA + STOP + DONE,
        REPORTED,
        asks={"stream": True, "stream_options": {"include_usage": False}},
    ),
    Play("no-usage", (AA, BB, STOP, DONE), AA + BB + STOP + DONE, counted(3), tokens_from="counted"),
    Play("no-usage-though-asked-for", (AA, DONE), AA + DONE, counted(1), tokens_from="counted", asks=WITH_USAGE),
    Play("all-in-one-chunk", (AA + BB + STOP + USAGE + DONE,), AA + BB + STOP + DONE, REPORTED),
    Play("every-byte-alone", tuple(bytes([b]) for b in AA + USAGE + DONE), AA + DONE, REPORTED),
    Play("no-blank-line-at-the-end", (AA, USAGE, DONE[:-2]), AA + DONE[:-2], REPORTED),
    Play("upstream-lingers-after-the-terminator", (AA, USAGE, DONE, HANG), AA + DONE, REPORTED, aborted=True),
    Play("upstream-dies-after-the-terminator", (AA, USAGE, DONE, Die(CUT)), AA + DONE, REPORTED),
    Play("slow-head", (Silence(29), Head(), AA, USAGE, DONE), AA + DONE, REPORTED),
    Play("slow-events", (Head(), Silence(29), AA, Silence(9), USAGE, Silence(9), DONE), AA + DONE, REPORTED),
    Play("whole", (OK_JSON, WHOLE), WHOLE, REPORTED, asks=PLAIN),
    Play("whole-in-pieces", (OK_JSON, WHOLE[:9], WHOLE[9:40], WHOLE[40:]), WHOLE, REPORTED, asks=PLAIN),
    Play("whole-and-large", (OK_JSON, LARGE[: 1 << 20], LARGE[1 << 20 :]), LARGE, REPORTED, asks=PLAIN),
    Play(
        "whole-without-usage",
        (OK_JSON, WITHOUT_USAGE),
        WITHOUT_USAGE,
        BOUNDED,
        tokens_from="counted",
        asks=PLAIN,
    ),
    Play("whole-though-a-stream-was-asked-for", (OK_JSON, WHOLE), WHOLE, REPORTED),
]

DIES: dict[str, Any] = {"outcome": "upstream_error", "error": "upstream_error"}
FREE: dict[str, Any] = {"charged": NOTHING, "tokens_from": "none", "sees": None}

UPSTREAM_FAILS = [
    Play(
        "nobody-there",
        (Die(UpstreamUnreachable(reason="refused")),),
        **FREE,
        status=502,
        outcome="upstream_unreachable",
        error="upstream_unreachable",
    ),
    Play(
        "nobody-takes-the-connection",
        (Die(UpstreamTimeout("connect", 2)),),
        **FREE,
        status=504,
        outcome="upstream_timeout",
        error="upstream_timeout",
        message="connect",
    ),
    Play("dies-before-its-head", (Die(CUT),), **FREE, status=502, **DIES),
    Play("dies-after-its-head", (Head(), Die(CUT)), b"", NOTHING, tokens_from="none", **DIES),
    Play("ends-after-its-head", (Head(),), b"", NOTHING, tokens_from="none", **DIES),
    Play("dies-in-its-first-event", (AA[:20], Die(CUT)), b"", NOTHING, tokens_from="none", **DIES),
    Play("dies-between-events", (AA, BB, Die(CUT)), AA + BB, counted(2), tokens_from="counted", **DIES),
    Play("dies-mid-event", (AA, BB[:30], Die(CUT)), AA, counted(1), tokens_from="counted", **DIES),
    Play(
        "dies-mid-event-that-the-client-has-the-half-of",
        (AA, BB[:30], Die(CUT)),
        AA + BB[:30],
        counted(1),
        tokens_from="counted",
        asks=WITH_USAGE,
        **DIES,
    ),
    Play("ends-without-its-end", (AA, STOP), AA + STOP, counted(2), tokens_from="counted", **DIES),
    Play("ends-without-its-end-after-usage", (AA, STOP, USAGE), AA + STOP, REPORTED, **DIES),
    Play(
        "says-done-inside-a-text-and-dies",
        (AA, word("[DONE]"), Die(CUT)),
        AA + word("[DONE]"),
        counted(2),
        tokens_from="counted",
        **DIES,
    ),
    Play(
        "an-error-event",
        (AA, ERROR),
        AA + ERROR,
        counted(1),
        outcome="upstream_error",
        tokens_from="counted",
    ),
    Play("an-error-event-and-then-death", (AA, ERROR, Die(CUT)), AA + ERROR, counted(1), "upstream_error", "counted"),
    Play("an-error-event-first-of-all", (ERROR,), ERROR, NOTHING, "upstream_error", "none"),
    Play("cut-body", (OK_JSON, WHOLE[:30], Die(CUT)), **FREE, status=502, **DIES, asks=PLAIN),
    Play("cut-body-with-a-proper-end", (OK_JSON, WHOLE[:30]), **FREE, status=502, **DIES, asks=PLAIN),
    Play(
        "cut-large-body",
        (OK_JSON, LARGE[: 2 << 20], Die(CUT)),
        LARGE[: 2 << 20],
        BOUNDED,
        tokens_from="counted",
        outcome="upstream_error",
        complete=False,
        asks=PLAIN,
    ),
    Play("empty-body", (OK_JSON,), **FREE, status=502, **DIES, asks=PLAIN),
    Play("html", (Head(200, b"text/html"), HTML), **FREE, status=502, **DIES, aborted=True, asks=PLAIN),
    Play("html-to-a-stream", (Head(200, b"text/html"), HTML), **FREE, status=502, **DIES, aborted=True),
    Play("no-content-type", (Head(200, b""), WHOLE), **FREE, status=502, **DIES, aborted=True, asks=PLAIN),
    Play("redirect", (Head(307, b""), HTML), **FREE, status=502, **DIES, aborted=True),
    Play("401", (Head(401, JSON), REFUSED), **FREE, status=502, **DIES, aborted=True),
    Play("403", (Head(403, JSON), REFUSED), **FREE, status=502, **DIES, aborted=True),
    Play("500", (Head(500, JSON), REFUSED), **FREE, status=502, **DIES, aborted=True),
    Play("502-html", (Head(502, b"text/html"), HTML), **FREE, status=502, **DIES, aborted=True),
    Play("404-html", (Head(404, b"text/html"), HTML), **FREE, status=502, **DIES, aborted=True),
    Play(
        "503",
        (Head(503, JSON, ((b"retry-after", b"7"),)), REFUSED),
        **FREE,
        status=503,
        outcome="upstream_error",
        error="upstream_overloaded",
        aborted=True,
    ),
    *(
        Play(
            f"{status}-passes",
            (Head(status, JSON), REFUSED[:10], REFUSED[10:]),
            REFUSED,
            NOTHING,
            tokens_from="none",
            outcome="upstream_refused",
            status=status,
        )
        for status in (400, 404, 413, 422, 429)
    ),
    Play("4xx-that-is-cut", (Head(400, JSON), REFUSED[:10], Die(CUT)), **FREE, status=502, **DIES),
]

SILENT: dict[str, Any] = {"outcome": "upstream_timeout", "error": "upstream_timeout", "aborted": True}

TOO_SLOW = [
    Play("no-head", (HANG,), **FREE, status=504, **SILENT, message="first byte"),
    Play("no-head-to-a-whole-answer", (HANG,), **FREE, status=504, **SILENT, message="first byte", asks=PLAIN),
    Play("no-first-byte", (Head(), HANG), b"", NOTHING, tokens_from="none", **SILENT, message="first byte"),
    Play("no-body", (OK_JSON, HANG), **FREE, status=504, **SILENT, message="first byte", asks=PLAIN),
    Play("falls-silent", (AA, BB, HANG), AA + BB, counted(2), tokens_from="counted", **SILENT, message="idle"),
    Play("falls-silent-mid-event", (AA, BB[:9], HANG), AA, counted(1), tokens_from="counted", **SILENT, message="idle"),
    Play(
        "falls-silent-in-a-body", (OK_JSON, WHOLE[:9], HANG), **FREE, status=504, **SILENT, message="idle", asks=PLAIN
    ),
    Play(
        "goes-on-for-ever",
        (Head(), *(step for _ in range(30) for step in (Silence(8), AA))),
        AA * 12,  # 12 times 8 seconds, and then the hundred are over
        counted(12),
        tokens_from="counted",
        **SILENT,
        message="total",
    ),
]

GONE: dict[str, Any] = {"outcome": "client_disconnect", "complete": False, "aborted": True}
STALLED: dict[str, Any] = {"outcome": "client_stalled", "complete": False, "aborted": True}
ESTIMATED: dict[str, Any] = {"charged": counted(0), "tokens_from": "estimated"}

CLIENT_ENDS_IT = [
    Play("leaves-before-the-head", (HANG,), b"", **ESTIMATED, status=0, **GONE, does=leaves_at_once),
    Play(
        "leaves-before-the-first-byte",
        (Head(), HANG),
        b"",
        counted(0),
        tokens_from="counted",
        **GONE,
        does=leaves_at_once,
    ),
    Play(
        "leaves-mid-stream", pauses(AA, BB, STOP), AA, counted(1), tokens_from="counted", **GONE, does=leaves_after(AA)
    ),
    Play(
        "leaves-mid-stream-that-reports-as-it-goes",
        pauses(word("aa", usage=USAGE_OBJECT), HANG),
        word("aa", usage=USAGE_OBJECT),
        REPORTED,
        **GONE,
        does=leaves_after(b"aa"),
    ),
    Play("leaves-before-a-whole-answer", (HANG,), b"", **ESTIMATED, status=0, **GONE, does=leaves_at_once, asks=PLAIN),
    Play(
        "leaves-during-a-whole-answer",
        (OK_JSON, WHOLE[:10], HANG),
        b"",
        **ESTIMATED,
        status=0,
        **GONE,
        does=leaves_at_once,
        asks=PLAIN,
    ),
    Play(
        "leaves-during-a-large-answer",
        (OK_JSON, LARGE[: 2 << 20], HANG),
        LARGE[: 2 << 20],
        BOUNDED,
        tokens_from="counted",
        **GONE,
        does=leaves_at_once,
        asks=PLAIN,
    ),
    Play(
        "leaves-after-the-terminator",
        (AA, USAGE, DONE, HANG),
        AA + DONE,
        REPORTED,
        complete=False,
        aborted=True,
        does=leaves_after(DONE),
    ),
    Play(
        "stops-reading",
        (*pauses(AA, BB), HANG),
        AA,
        counted(2),
        tokens_from="counted",
        **STALLED,
        does=stops_reading_after_the_first_event,
    ),
    Play(
        "stops-reading-before-a-whole-answer",
        (Silence(1), OK_JSON, WHOLE),
        b"",
        REPORTED,
        **STALLED | {"aborted": False},
        status=0,
        does=stops_reading_at_once,
        asks=PLAIN,
    ),
]

DRAINED: dict[str, Any] = {"outcome": "drained", "error": "server_draining", "aborted": True}
STREAM_OF_TEN: tuple[Step, ...] = (AA, Silence(9), BB, USAGE, DONE)
EVERLASTING: tuple[Step, ...] = tuple(step for _ in range(11) for step in (AA, Silence(9)))

WE_END_IT = [
    Play("drained-in-time", STREAM_OF_TEN, AA + BB + DONE, REPORTED, does=drained_after_the_first_event),
    Play(
        "drained-too-late",
        EVERLASTING,
        AA * 7,
        counted(7),
        tokens_from="counted",
        **DRAINED,
        does=drained_after_the_first_event,
    ),
    Play(
        "drained-before-the-head",
        (Silence(10_000),),
        None,
        counted(0),
        **DRAINED,
        tokens_from="estimated",
        status=503,
        does=drained,
    ),
    Play("a-bug", (Die(RuntimeError("canary-in-a-bug")),), None, ALL, "internal_error", "none", 500, "internal_error"),
    Play(
        "a-bug-mid-stream",
        (AA, Die(RuntimeError("canary-in-a-bug"))),
        AA,
        ALL,
        "internal_error",
        "none",
        error="internal_error",
    ),
]  # fmt: skip

ENDINGS = [*COMPLETE, *UPSTREAM_FAILS, *TOO_SLOW, *CLIENT_ENDS_IT, *WE_END_IT]


@pytest.mark.parametrize("play", ENDINGS, ids=[play.id for play in ENDINGS])
def test_ending(play: Play) -> None:
    body = chat(**play.asks)

    async def scene() -> None:
        # Long enough that only the drains of this table end a request before its own timeouts.
        patient = "drained-before" in play.id
        async with open_house(*play.says, deadline=20 if patient else 60) as house:
            conversation = house.ask(body)
            if play.does is not None:
                await play.does(conversation, house)
            answer = await conversation.over()

            assert house.backend.visit.aborted == play.aborted
            assert answer.status == play.status
            assert answer.complete == play.complete
            assert answer.cut or answer.complete or play.outcome == "ok", "an answer that stays unfinished is cut off"
            if play.status in (0, 200) and play.error is None:
                assert answer.body == play.sees
            elif play.status == 200:
                assert_ends_with_error(answer.body, play)
            elif play.error is not None:
                assert answer.error["code"] == play.error
                assert play.message in answer.error["message"]
            else:
                assert answer.body == play.sees
            assert_charged(play, body, await house.charged())
            record = house.record
            assert (record["outcome"], record["tokens_from"]) == (play.outcome, play.tokens_from)
            assert record["status"] == (play.status or {"client_stalled": 200}.get(play.outcome, 499))
            assert record["stream"] == bool(play.asks.get("stream"))

    run(scene)


def assert_ends_with_error(body: bytes, play: Play) -> None:
    assert play.sees is not None
    assert body.startswith(play.sees)
    *_, last = events_of(body)
    error = error_of(last)
    assert error["code"] == play.error
    assert play.message in error["message"]
    rest = body[len(play.sees) :]
    assert events_of(rest.lstrip(b"\n")) == [last], "after what came before there is the error, and nothing else"
    assert body.endswith(b"\n\n")
    assert b"data: [DONE]\n\n" not in body


def assert_charged(play: Play, body: bytes, charged: tuple[int, int]) -> None:
    if play.charged is None:
        assert charged == (0, 0)
    else:
        least = play.charged.tokens + (prompt_tokens(body) if play.charged.prompt else 0)
        assert charged[0] == 1
        assert least <= charged[1] <= least + play.charged.more


LOGPROBS = {"content": [{"token": "aa", "logprob": -0.1, "top_logprobs": [{"token": "b" * 20, "logprob": -9.0}] * 20}]}
RICH = event([{"index": 0, "delta": {"content": "aa"}, "finish_reason": None, "logprobs": LOGPROBS}])
VECTORS = b'{"object":"list","data":[{"embedding":[' + b"0.0123456789," * 2_000


class TestWhatIsCounted:
    """Where nobody reports, what is counted can be wrong; but never above what was reserved, which is a true bound."""

    @pytest.mark.parametrize("n", [1, 2])
    def test_of_events_that_are_mostly_envelope(self, *, n: int) -> None:
        async def scene() -> None:
            body = chat(stream=True, max_tokens=10, n=n, logprobs=True)
            async with open_house(AA, *[RICH] * 9, DONE) as house:
                await house.ask(body).over()
                _, tokens = await house.charged()
                assert prompt_tokens(body) + 10 <= tokens <= prompt_tokens(body) + 10 * n

        run(scene)

    @pytest.mark.parametrize("leaves", [True, False], ids=["client-leaves", "complete"])
    def test_of_embeddings_is_the_prompt(self, *, leaves: bool) -> None:
        async def scene() -> None:
            body = b'{"model": "m", "input": "hello"}'
            ending: Step = HANG if leaves else b"0]}]}"
            async with open_house(OK_JSON, *[VECTORS] * 50, ending) as house:
                conversation = house.ask(body, path="/v1/embeddings")
                await asyncio.sleep(1)
                conversation.leave()
                await conversation.over()
                assert await house.charged() == (1, prompt_tokens(body))

        run(scene)


class TestWhatTheLogSays:
    def test_of_a_complete_stream(self) -> None:
        async def scene() -> None:
            async with open_house(AA, STOP, USAGE, DONE) as house:
                await house.ask(chat(stream=True), headers=[("x-request-id", "of-the-client.7")]).over()
                record = {"trace_id": None} | house.record
            assert record.pop("client") == "127.0.0.1"
            assert record.pop("timestamp").tzinfo is UTC
            assert 0 < record.pop("ttft_ms") <= record["duration_ms"]
            assert 0 <= record.pop("overhead_ms") <= record.pop("duration_ms")
            assert record == {
                "event": "request",
                "log_level": "info",
                "request_id": "of-the-client.7",
                "trace_id": None,
                "team": "search",
                "key_id": "key1",
                "operation": "chat",
                "model": "m",
                "endpoint": "http://upstream/v1",
                "stream": True,
                "status": 200,
                "outcome": "ok",
                "input_tokens": 11,
                "output_tokens": 3,
                "tokens_from": "reported",
                "finish_reason": "stop",
            }

        run(scene)

    def test_of_a_bug_where_it_was_and_not_what_it_said(self) -> None:
        async def scene() -> None:
            async with open_house(Die(RuntimeError("canary-in-a-bug"))) as house:
                answer = await house.ask().over()
                bugs = [line for line in house.logged if line["event"] == "bug"]
                assert len(bugs) == 1
                assert bugs[0]["kind"] == "RuntimeError"
                assert bugs[0]["request_id"] == answer.header("x-request-id")
                assert any("completions.py" in line for line in bugs[0]["where"])
                assert "canary" not in repr(house.logged)
                assert b"canary" not in answer.body

        run(scene)

    def test_of_a_bug_before_a_server_heard_of_it_nothing_is_charged(self) -> None:
        async def scene() -> None:
            broken = route(endpoints=[])  # as no configuration makes one
            async with open_house(routes=[broken]) as house:
                answer = await house.ask().over()
                assert (answer.status, house.record["code"]) == (500, "internal_error")
                assert house.record["team"] == PRINCIPAL.team, "it came as far as the admission"
                assert house.backend.visits == []
                assert await house.untouched()

        run(scene)

    def test_of_a_killed_request_that_it_was_not_well(self) -> None:
        async def scene() -> None:
            async with open_house(*pauses(AA, BB), HANG) as house:
                conversation = house.ask(chat(stream=True))
                await killed_after_the_first_event(conversation, house)
                with pytest.raises(asyncio.CancelledError):
                    await conversation.over()
                assert await house.charged() == (1, prompt_tokens(chat(stream=True)) + 50), "the safe side"
                assert house.record["outcome"] != "ok"

        run(scene)


class TestLeaving:
    @pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
    def test_ends_the_upstream_in_the_same_moment(self, *, stream: bool) -> None:
        async def scene() -> None:
            async with open_house(HANG) as house:
                conversation = house.ask(chat(stream=stream))
                await asyncio.sleep(1)
                assert house.backend.visit.entered
                conversation.leave()
                for _ in range(5):
                    await asyncio.sleep(0)
                assert house.backend.visit.aborted
                await conversation.over()

        run(scene)

    def test_while_the_body_is_sent_costs_nothing(self) -> None:
        async def scene() -> None:
            async with open_house(AA, DONE) as house:
                conversation = house.ask([b'{"model":', None])
                await asyncio.sleep(1)
                conversation.leave()
                await conversation.over()
                assert house.backend.visits == []
                assert await house.untouched()
                assert house.record["outcome"] == "client_disconnect"

        run(scene)

    def test_in_a_loop_is_never_free(self) -> None:
        """The attack of leaving right after dispatch: each time the prompt is paid, and in the end nothing is left."""

        async def scene() -> None:
            async with open_house(HANG) as house:
                before = [window.remaining for window in await house.windows()]
                for _ in range(20):
                    conversation = house.ask()
                    await asyncio.sleep(0.01)
                    conversation.leave()
                    await conversation.over()
                requests, tokens = await house.charged()
                assert requests == 20
                assert tokens == 20 * prompt_tokens(chat()) > 0
                assert before != [window.remaining for window in await house.windows()]

        run(scene)


class TestStopsReading:
    def test_and_the_upstream_dies_ends_too(self) -> None:
        """There is an error to tell and nobody who reads it; that must not hold the request for ever."""

        async def scene() -> None:
            async with open_house(*pauses(AA), Silence(1), Die(CUT)) as house:
                conversation = house.ask(chat(stream=True))
                await stops_reading_after_the_first_event(conversation, house)
                answer = await conversation.over()
                assert answer.body == AA
                assert await house.charged() == (1, prompt_tokens(chat(stream=True)) + 1)
                assert house.record["outcome"] in {"upstream_error", "client_stalled"}

        run(scene)

    def test_at_the_very_end_is_its_own_fault(self) -> None:
        """The last, empty message finds nobody who reads: the client stalled, the upstream did nothing wrong."""

        async def scene() -> None:
            pause = Pause()
            async with open_house(AA, USAGE, DONE, pause) as house:
                conversation = house.ask(chat(stream=True))
                await pause.reached.wait()
                conversation.stop_reading()
                pause.go()
                answer = await conversation.over()
                assert answer.body == AA + DONE
                assert await house.charged() == (1, 14)
                assert house.record["outcome"] in {"ok", "client_stalled"}

        run(scene)

    def test_for_less_than_the_timeout_loses_nothing(self) -> None:
        async def scene() -> None:
            async with open_house(*pauses(AA, BB), USAGE, DONE) as house:
                conversation = house.ask(chat(stream=True))
                await stops_reading_after_the_first_event(conversation, house)
                await asyncio.sleep(4)
                conversation.read_on()
                assert (await conversation.over()).body == AA + BB + DONE
                assert house.record["outcome"] == "ok"

        run(scene)


class TestDraining:
    def test_refuses_new_work_with_the_time_to_come_back(self) -> None:
        async def scene() -> None:
            pause = Pause()
            async with open_house(pause, Head(), AA, USAGE, DONE) as house:
                running = house.ask(chat(stream=True))
                await pause.reached.wait()
                drain = asyncio.ensure_future(house.rooms.drain.run())
                await asyncio.sleep(1)
                refused = await house.ask().over()
                assert refused.status == 503
                assert refused.error["code"] == "server_draining"
                assert refused.header("retry-after") == "1"
                assert not drain.done()
                pause.go()
                assert (await running.over()).body == AA + DONE
                await drain

        run(scene)

    def test_takes_work_while_it_is_announced_and_asks_to_reconnect(self) -> None:
        async def scene() -> None:
            async with open_house(AA, USAGE, DONE, announce=5) as house:
                assert (await house.ask(chat(stream=True)).over()).header("connection") is None
                drain = asyncio.ensure_future(house.rooms.drain.run())
                await asyncio.sleep(1)
                announced = await house.ask(chat(stream=True)).over()
                assert announced.status == 200
                assert announced.header("connection") == "close"
                bad = await house.ask(b"no json").over()
                assert bad.status == 400
                assert bad.header("connection") == "close", "once, however many reasons there are"
                assert not drain.done()
                await drain

        run(scene)

    def test_of_nothing_waits_for_the_announcement_only(self) -> None:
        async def scene() -> None:
            async with open_house(announce=5) as house:
                loop = asyncio.get_running_loop()
                since = loop.time()
                await house.rooms.drain.run()
                assert 5 <= loop.time() - since < 6

        run(scene)

    def test_told_twice_waits_no_more(self) -> None:
        async def scene() -> None:
            async with open_house(HANG, announce=500, deadline=5_000) as house:
                conversation = house.ask()
                drain = asyncio.ensure_future(house.rooms.drain.run())
                await asyncio.sleep(1)
                loop = asyncio.get_running_loop()
                since = loop.time()
                house.rooms.drain.hurry()
                await drain
                assert loop.time() - since < 1
                assert (await conversation.over()).status == 503

        run(scene)
