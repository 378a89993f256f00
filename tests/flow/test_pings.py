"""Comments in the silence: between events only, in streams only, and no excuse for a silent upstream."""

import asyncio

import pytest

from tests.fakes.backend import HANG, JSON, Head, Pause, Silence
from tests.fakes.clock import run
from tests.flow.house import House, chat, open_house, route

PING = b": ping\n\n"
A = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = chat(stream=True)
STREAM_WITH_USAGE = chat(stream=True, stream_options={"include_usage": True})


def ping_everybody(house: House) -> None:
    """What the timer does when it finds silence, now."""
    for watch in house.rooms.watches:
        assert watch.ping is not None
        house.rooms.watches.finish(watch.ping())


class TestPings:
    @pytest.mark.parametrize(
        ("silence", "pings"),
        [pytest.param(2, 0, id="short"), pytest.param(4, 1, id="one"), pytest.param(7, 2, id="two")],
    )
    def test_fill_silence(self, *, silence: float, pings: int) -> None:
        async def scene() -> None:
            async with open_house(A, Silence(silence), A, USAGE, DONE, ping_seconds=3) as house:
                answer = await house.ask(STREAM).over()
                assert answer.body == A + PING * pings + A + DONE
                assert await house.charged() == (1, 14)

        run(scene)

    def test_begin_when_the_head_is_there(self) -> None:
        async def scene() -> None:
            async with open_house(Silence(20), Head(), Silence(4), A, USAGE, DONE, ping_seconds=3) as house:
                answer = await house.ask(STREAM).over()
                assert answer.body.endswith(PING + A + DONE)
                assert answer.chunks[0] == PING

        run(scene)

    @pytest.mark.parametrize("body", [STREAM, STREAM_WITH_USAGE], ids=["usage-taken-out", "as-it-is"])
    @pytest.mark.parametrize("cut", [1, 6, len(A) - 2, len(A) - 1])
    def test_never_stand_inside_an_event(self, *, body: bytes, cut: int) -> None:
        async def scene() -> None:
            async with open_house(A, A[:cut], Silence(9), A[cut:], DONE, ping_seconds=3) as house:
                assert (await house.ask(body).over()).body == A + A + DONE

        run(scene)

    def test_never_stand_inside_an_event_that_begins_in_the_same_moment(self) -> None:
        """The timer looks between two events; half of the next one passes before the comment is written."""

        async def scene() -> None:
            pause, second = Pause(), Pause()
            async with open_house(A, pause, A[:20], second, A[20:], DONE) as house:
                conversation = house.ask(STREAM_WITH_USAGE)
                await pause.reached.wait()
                pause.go()
                ping_everybody(house)
                await second.reached.wait()
                await asyncio.sleep(1)
                second.go()
                assert (await conversation.over()).body.replace(PING + A, A) == A + A + DONE

        run(scene)

    def test_do_not_follow_the_end(self) -> None:
        """The timer looks in silence, and in the same moment the stream ends: the client fails on any message more."""

        async def scene() -> None:
            pause = Pause()
            async with open_house(A, pause, DONE) as house:
                conversation = house.ask(STREAM_WITH_USAGE)
                await pause.reached.wait()
                pause.go()
                ping_everybody(house)
                assert (await conversation.over()).body.replace(PING, b"") == A + DONE
                await asyncio.sleep(1)

        run(scene)

    def test_are_not_in_a_whole_answer(self) -> None:
        async def scene() -> None:
            async with open_house(Head(200, JSON), b'{"a"', Silence(9), b": 1}", ping_seconds=3) as house:
                assert (await house.ask().over()).body == b'{"a": 1}'

        run(scene)

    def test_wait_for_a_client_that_does_not_read(self) -> None:
        async def scene() -> None:
            pause = Pause()
            async with open_house(pause, Head(), A, A, DONE, ping_seconds=3, write_seconds=1000) as house:
                conversation = house.ask(STREAM_WITH_USAGE)
                await pause.reached.wait()
                pause.go()
                await conversation.has(A)
                conversation.stop_reading()
                await asyncio.sleep(60)
                conversation.read_on()
                assert (await conversation.over()).body == A + A + DONE

        run(scene)


class TestTimeoutsInSpiteOfPings:
    """A comment of ours is no sign of life of the upstream."""

    def test_idle(self) -> None:
        async def scene() -> None:
            async with open_house(A, HANG, ping_seconds=3) as house:
                loop = asyncio.get_running_loop()
                since = loop.time()
                answer = await house.ask(STREAM).over()
                assert answer.body.startswith(A + PING * 3)
                assert b"(timeout phase: idle)" in answer.body
                assert 10 <= loop.time() - since < 11, "idle is ten seconds here"

        run(scene)

    def test_first_byte(self) -> None:
        async def scene() -> None:
            async with open_house(Head(), HANG, ping_seconds=3) as house:
                loop = asyncio.get_running_loop()
                since = loop.time()
                answer = await house.ask(STREAM).over()
                assert b"(timeout phase: first byte)" in answer.body
                assert 30 <= loop.time() - since < 31, "first byte is thirty seconds here"
                assert await house.untouched()

        run(scene)


EARLY = [route(early_headers=True)]
ANSWER = (Head(200, JSON), b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}')


class TestEarlyHeaders:
    """For a prefill of minutes: the head of a stream and comments, before upstream has said anything."""

    def test_fill_the_silence_before_the_answer(self) -> None:
        async def scene() -> None:
            async with open_house(Silence(10), Head(), A, USAGE, DONE, routes=EARLY, ping_seconds=3) as house:
                asked = house.ask(STREAM)
                await asyncio.sleep(3.5)
                assert asked.answer.status == 200
                assert asked.answer.header("content-type") == "text/event-stream"
                assert asked.answer.header("x-request-id")
                assert asked.answer.header("x-ratelimit-limit-requests")
                answer = await asked.over()
                assert answer.body == PING * 2 + A + DONE
                assert answer.complete
                assert await house.charged() == (1, 14)

        run(scene)

    def test_are_not_hurried(self) -> None:
        async def scene() -> None:
            async with open_house(Silence(2), Head(), A, USAGE, DONE, routes=EARLY, ping_seconds=3) as house:
                assert (await house.ask(STREAM).over()).body == A + DONE

        run(scene)

    def test_never_where_json_was_asked_for(self) -> None:
        async def scene() -> None:
            async with open_house(Silence(10), *ANSWER, routes=EARLY, ping_seconds=3) as house:
                asked = house.ask()
                await asyncio.sleep(9)
                assert asked.answer.status == 0
                assert (await asked.over()).header("content-type") == "application/json"

        run(scene)

    def test_a_failure_behind_them_is_an_event(self) -> None:
        async def scene() -> None:
            async with open_house(Silence(1000), Head(), routes=EARLY, ping_seconds=3) as house:
                answer = await house.ask(STREAM).over()
                assert answer.status == 200
                event = answer.body.replace(PING, b"")
                assert event.startswith(b'data: {"error":')
                assert b"upstream_timeout" in event
                assert b"[DONE]" not in event
                assert answer.complete
                assert house.record["outcome"] == "upstream_timeout"
                assert house.record["status"] == 200, "what the client was told, as of any stream that breaks off"
                assert await house.untouched()

        run(scene)

    def test_a_refusal_behind_them_is_an_event(self) -> None:
        refusal = b'{"error": {"message": "too\\nlong",\n "type": "invalid_request_error", "param": null, "code": "x"}}'
        head = Head(400, b"application/json")

        async def scene() -> None:
            async with open_house(Silence(5), head, refusal, routes=EARLY, ping_seconds=3) as house:
                answer = await house.ask(STREAM).over()
                assert answer.status == 200
                assert answer.body.startswith(b'data: {"error":{"message":"too\\nlong"')
                assert answer.body.endswith(b"}}\n\n")
                assert house.record["outcome"] == "upstream_refused"
                assert await house.untouched()

        run(scene)

    def test_an_answer_that_is_no_stream_is_an_event(self) -> None:
        async def scene() -> None:
            async with open_house(Silence(5), *ANSWER, routes=EARLY, ping_seconds=3) as house:
                answer = await house.ask(STREAM).over()
                assert b"upstream_error" in answer.body
                assert answer.complete

        run(scene)
