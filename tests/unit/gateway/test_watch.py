"""The watch over a request: each phase has its limit, and what is found ends the task with the error that fits.

On virtual time: an hour's limit is waited for exactly, and takes no time.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.fakes.client import wire_of_client
from tests.fakes.clock import run
from weir.core.asgi import Message
from weir.core.errors import (
    BodyTimeout,
    ClientGone,
    ClientStalled,
    GatewayError,
    ServerDraining,
    UpstreamFailed,
    UpstreamTimeout,
)
from weir.core.types import Timeouts
from weir.gateway.watch import CLIENT, FIRST_BYTE, TICK, UPSTREAM, Watch, Watches

TIMEOUTS = Timeouts(connect=2, first_byte=30, idle=10, total=100)


def watches() -> Watches:
    return Watches(body_seconds=5, write_seconds=7, ping_seconds=3)


async def waits(all_of_them: Watches, phase: int) -> None:
    """A request that waits for this, for ever."""
    with all_of_them.answer(wire_of_client(), TIMEOUTS) as watch:
        watch.turn(phase)
        await asyncio.sleep(1_000_000)


async def ended_with(all_of_them: Watches, *errors: GatewayError) -> None:
    """A request that is ended for several reasons at once."""
    with all_of_them.answer(wire_of_client(), TIMEOUTS) as watch:
        for error in errors:
            watch.end(error)
        await asyncio.sleep(1)


PHASES = [
    pytest.param(FIRST_BYTE, 30, UpstreamTimeout, "first byte", id="first-byte"),
    pytest.param(UPSTREAM, 10, UpstreamTimeout, "idle", id="idle"),
    pytest.param(CLIENT, 7, ClientStalled, None, id="client"),
]


@pytest.mark.parametrize(("phase", "seconds", "error", "named"), PHASES)
def test_silence_ends_it(*, phase: int, seconds: float, error: type[GatewayError], named: str | None) -> None:
    async def scene() -> None:
        all_of_them = watches()
        loop = asyncio.get_running_loop()
        since = loop.time()
        with pytest.raises(error) as found:
            await waits(all_of_them, phase)
        assert type(found.value) is error
        assert seconds < loop.time() - since <= seconds + 2 * TICK
        if named:
            assert f"(timeout phase: {named})" in found.value.text
            assert f"{seconds:g} seconds" in found.value.text
        assert len(all_of_them) == 0
        all_of_them.close()

    run(scene)


def test_a_body_has_its_time_as_a_whole() -> None:
    async def scene() -> None:
        all_of_them = watches()
        loop = asyncio.get_running_loop()
        since = loop.time()

        async def drips() -> None:
            with all_of_them.body():
                while True:
                    await asyncio.sleep(1)

        with pytest.raises(BodyTimeout):
            await drips()
        assert 5 < loop.time() - since <= 5 + 2 * TICK
        all_of_them.close()

    run(scene)


def test_signs_of_life_keep_it_going_until_the_total() -> None:
    async def scene() -> None:
        all_of_them = watches()
        loop = asyncio.get_running_loop()
        since = loop.time()

        async def lives() -> None:
            with all_of_them.answer(wire_of_client(), TIMEOUTS) as watch:
                while True:
                    await asyncio.sleep(9)
                    watch.turn(UPSTREAM)

        with pytest.raises(UpstreamTimeout, match="timeout phase: total"):
            await lives()
        assert 100 < loop.time() - since <= 100 + 2 * TICK
        all_of_them.close()

    run(scene)


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param([(FIRST_BYTE, 29), (UPSTREAM, 9), (CLIENT, 6), (UPSTREAM, 9)], id="each-within-its-own"),
        pytest.param([], id="nothing-waited-for"),
    ],
)
def test_within_the_limits_nothing_happens(turns: list[tuple[int, float]]) -> None:
    async def scene() -> None:
        all_of_them = watches()
        with all_of_them.answer(wire_of_client(), TIMEOUTS) as watch:
            for phase, seconds in turns:
                watch.turn(phase)
                await asyncio.sleep(seconds)
        await asyncio.sleep(1_000)
        all_of_them.close()

    run(scene)


def test_a_place_is_waited_for_without_a_limit_of_the_watch() -> None:
    async def scene() -> None:
        all_of_them = watches()
        with all_of_them.answer(wire_of_client(), TIMEOUTS) as watch:
            await asyncio.sleep(1_000)
            watch.turn(FIRST_BYTE)
            assert watch.found is None
        all_of_them.close()

    run(scene)


class TestClient:
    def test_that_leaves_ends_it_at_once(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            loop = asyncio.get_running_loop()
            since = loop.time()

            async def leaves() -> Message:
                await asyncio.sleep(4)
                return {"type": "http.disconnect"}

            with pytest.raises(ClientGone), all_of_them.answer(wire_of_client(leaves), TIMEOUTS):
                await asyncio.sleep(1_000)
            assert loop.time() - since == pytest.approx(4, abs=0.001), "not only with the next tick"
            all_of_them.close()

        run(scene)

    def test_that_leaves_afterwards_is_nobodys_business(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            gone = asyncio.Event()

            async def leaves() -> Message:
                await gone.wait()
                return {"type": "http.disconnect"}

            with all_of_them.answer(wire_of_client(leaves), TIMEOUTS):
                await asyncio.sleep(1)
            gone.set()
            await asyncio.sleep(10)
            all_of_them.close()

        run(scene)


class TestEnd:
    def test_the_first_reason_counts(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            with pytest.raises(ServerDraining):
                await ended_with(all_of_them, ServerDraining(), ClientGone())
            all_of_them.close()

        run(scene)

    def test_leaves_no_cancellation_behind(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            with pytest.raises(ClientGone):
                await ended_with(all_of_them, ClientGone())
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()
            async with asyncio.timeout(1):
                await asyncio.sleep(0.5)
            all_of_them.close()

        run(scene)

    def test_another_error_of_the_block_comes_through(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            with pytest.raises(UpstreamFailed), all_of_them.answer(wire_of_client(), TIMEOUTS):
                raise UpstreamFailed
            all_of_them.close()

        run(scene)

    def test_a_cancellation_from_elsewhere_stays_one(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            ready = asyncio.Event()

            async def request() -> None:
                with all_of_them.answer(wire_of_client(), TIMEOUTS):
                    ready.set()
                    await asyncio.sleep(1_000)

            task = asyncio.ensure_future(request())
            await ready.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            all_of_them.close()

        run(scene)


class TestAll:
    def test_are_known_while_they_last(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            with all_of_them.answer(wire_of_client(), TIMEOUTS) as one, all_of_them.body() as two:
                assert set(all_of_them) == {one, two}
            assert len(all_of_them) == 0
            all_of_them.close()

        run(scene)

    def test_each_is_ended_by_its_own(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            ended: list[str] = []

            def request(name: str, timeouts: Timeouts) -> Awaitable[None]:
                async def work() -> None:
                    try:
                        with all_of_them.answer(wire_of_client(), timeouts) as watch:
                            watch.turn(FIRST_BYTE)
                            await asyncio.sleep(50)
                    except UpstreamTimeout:
                        ended.append(name)

                return asyncio.ensure_future(work())

            await asyncio.gather(request("short", Timeouts(first_byte=5)), request("long", Timeouts(first_byte=500)))
            assert ended == ["short"]
            all_of_them.close()

        run(scene)

    def test_stop_looking_when_closed(self) -> None:
        async def scene() -> None:
            all_of_them = watches()
            all_of_them.close()
            with all_of_them.answer(wire_of_client(), TIMEOUTS):
                await asyncio.sleep(1_000)

        run(scene)


def pinged(prepare: Callable[[Watch, list[float]], None], seconds: float) -> list[float]:
    """At which seconds a ping was asked for."""
    times: list[float] = []

    async def scene() -> None:
        all_of_them = watches()
        loop = asyncio.get_running_loop()
        since = loop.time()
        with all_of_them.answer(wire_of_client(), Timeouts(first_byte=1_000, idle=1_000)) as watch:
            asked: list[float] = []
            prepare(watch, asked)
            await asyncio.sleep(seconds)
            times.extend(at - since for at in asked)
        all_of_them.close()

    run(scene)
    return times


class TestPing:
    def test_after_each_silence(self) -> None:
        def prepare(watch: Watch, asked: list[float]) -> None:
            async def ping() -> None:
                asked.append(watch.now())
                watch.since = watch.now()

            watch.ping = ping
            watch.turn(UPSTREAM)

        times = pinged(prepare, 10)
        assert [round(at) for at in times] == [3, 6, 9]

    def test_not_while_the_client_is_the_silent_one(self) -> None:
        def prepare(watch: Watch, asked: list[float]) -> None:
            async def ping() -> None:
                asked.append(watch.now())

            watch.ping = ping
            watch.turn(CLIENT)

        assert pinged(prepare, 6) == []

    def test_nothing_is_sent_where_it_does_not_fit(self) -> None:
        def prepare(watch: Watch, asked: list[float]) -> None:
            def ping() -> None:
                asked.append(watch.now())

            watch.ping = ping
            watch.turn(UPSTREAM)

        assert pinged(prepare, 4) != [], "it is asked, says None, and nothing breaks"
