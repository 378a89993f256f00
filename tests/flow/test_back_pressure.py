"""The next read from upstream waits for the client: a slow reader slows its model down and fills no memory of ours."""

import asyncio

from tests.fakes.backend import JSON, Head, Silence
from tests.fakes.clock import run
from tests.flow.house import chat, open_house, route
from weir.core.types import Timeouts
from weir.gateway.replies import PING

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}\n\n'
DONE = b"data: [DONE]\n\n"
MIB = b"x" * (1 << 20)


def test_a_stream_is_not_read_further_while_the_client_does_not_read() -> None:
    async def scene() -> None:
        async with open_house(*[EVENT] * 100, USAGE, DONE, write_seconds=1_000) as house:
            conversation = house.ask(chat(stream=True))
            conversation.stop_reading()
            await asyncio.sleep(1)
            conversation.read_on()
            await conversation.has(EVENT)
            conversation.stop_reading()
            await asyncio.sleep(1)
            reads = house.backend.visit.reads
            received = len(conversation.answer.chunks)
            assert reads <= received + 1, "at most one chunk is in our hands"
            await asyncio.sleep(100)
            assert house.backend.visit.reads == reads
            conversation.read_on()
            assert (await conversation.over()).body == EVENT * 100 + DONE
            assert await house.charged() == (1, 14)

    run(scene)


def test_a_stream_is_read_again_one_chunk_for_each_that_the_client_takes() -> None:
    async def scene() -> None:
        async with open_house(Head(), *[EVENT] * 10, DONE, write_seconds=1_000) as house:
            conversation = house.ask(chat(stream=True))
            conversation.stop_reading()
            for messages in range(8):  # the first of them is the head
                await conversation.until(lambda one: one.waiting_in_send)
                await asyncio.sleep(0.1)
                assert house.backend.visit.reads == messages
                conversation.read_on(1)
                await asyncio.sleep(0.1)
            conversation.read_on()
            await conversation.over()

    run(scene)


def test_a_large_answer_is_not_gathered() -> None:
    """Above the first mebibyte, which is read whole so that a cut answer is still a clean refusal."""

    async def scene() -> None:
        tail = b'"],"usage":{"prompt_tokens":11,"total_tokens":14}}'
        async with open_house(Head(200, JSON), b'{"data":["', *[MIB] * 20, tail, write_seconds=1_000) as house:
            conversation = house.ask()
            conversation.stop_reading()
            await conversation.until(lambda one: one.waiting_in_send)
            await asyncio.sleep(100)
            assert house.backend.visit.reads <= 3
            conversation.read_on()
            answer = await conversation.over()
            assert answer.body == b'{"data":["' + MIB * 20 + tail
            assert await house.charged() == (1, 14)

    run(scene)


def test_a_slow_client_is_no_silent_upstream() -> None:
    """The idle timeout is the upstream's; while the client does not read, only the write timeout runs."""

    async def scene() -> None:
        async with open_house(*[EVENT] * 3, DONE, write_seconds=1_000) as house:
            conversation = house.ask(chat(stream=True, stream_options={"include_usage": True}))
            await conversation.has(EVENT)
            conversation.stop_reading()
            await asyncio.sleep(500)
            conversation.read_on()
            assert (await conversation.over()).body == EVENT * 3 + DONE
            assert house.record["outcome"] == "ok"

    run(scene)


def test_one_client_that_does_not_read_holds_up_nobody_else() -> None:
    async def scene() -> None:
        async with open_house(*[EVENT] * 3, DONE, write_seconds=1_000) as house:
            stuck = house.ask(chat(stream=True))
            stuck.stop_reading()
            await asyncio.sleep(1)
            assert (await house.ask(chat(stream=True)).over()).body == EVENT * 3 + DONE
            stuck.read_on()
            await stuck.over()

    run(scene)


def test_a_client_that_was_slow_once_may_wait_for_a_model_that_pauses() -> None:
    """It has read everything: what there is to wait for is upstream's, and a comment says that we are still there."""

    async def scene() -> None:
        patient = route(timeouts=Timeouts(idle=120))
        script = (EVENT, EVENT, Silence(50), EVENT, DONE)
        async with open_house(*script, routes=[patient], write_seconds=5, ping_seconds=20) as house:
            conversation = house.ask(chat(stream=True))
            conversation.stop_reading()
            conversation.read_on(2)  # the head, and one event
            await conversation.has(EVENT)
            await conversation.until(lambda one: one.waiting_in_send)
            await asyncio.sleep(1)
            conversation.read_on()
            answer = await conversation.over()
            assert answer.body.endswith(DONE)
            assert answer.body.count(EVENT) == 3
            assert answer.body.count(PING) == 2
            assert house.record["outcome"] == "ok"

    run(scene)


def test_a_model_has_its_time_however_slowly_it_is_read() -> None:
    async def scene() -> None:
        slow = route(timeouts=Timeouts(total=30))
        async with open_house(*[EVENT] * 100, DONE, routes=[slow], write_seconds=5) as house:
            conversation = house.ask(chat(stream=True))
            conversation.stop_reading()
            for _ in range(40):
                conversation.read_on(1)
                await asyncio.sleep(1)
            conversation.read_on()
            await conversation.over()
            assert house.record["outcome"] == "upstream_timeout"

    run(scene)
