"""Stopping: announced, then refusing, then waiting, then ending what is left. On virtual time."""

import asyncio

import pytest

from tests.fakes.client import wire_of_client
from tests.fakes.clock import run
from weir.core.errors import Draining, ServerDraining
from weir.core.types import Timeouts
from weir.gateway.drain import Drain
from weir.gateway.watch import Watches


def test_phases() -> None:
    async def scene() -> None:
        watches = Watches(body_seconds=5, write_seconds=5, ping_seconds=5)
        drain = Drain(watches, announce=5, deadline=20)
        drain.enter()
        assert (drain.announced, drain.refusing) == (False, False)
        running = asyncio.ensure_future(drain.run())
        await asyncio.sleep(1)
        assert (drain.announced, drain.refusing) == (True, False)
        drain.enter()
        drain.leave()
        await asyncio.sleep(5)
        assert (drain.announced, drain.refusing) == (True, True)
        with pytest.raises(Draining) as refused:
            drain.enter()
        drain.leave()
        assert refused.value.status == 503
        assert refused.value.retry_after
        assert not running.done()
        drain.leave()
        await running
        watches.close()

    run(scene)


def test_what_is_left_at_the_deadline_is_ended_and_waited_for() -> None:
    async def scene() -> None:
        watches = Watches(body_seconds=5, write_seconds=5, ping_seconds=5)
        drain = Drain(watches, announce=0, deadline=20)
        loop = asyncio.get_running_loop()
        since = loop.time()
        ended: list[float] = []

        async def request() -> None:
            drain.enter()
            try:
                with watches.answer(wire_of_client(), Timeouts()):
                    await asyncio.sleep(10_000)
            except ServerDraining:
                await asyncio.sleep(3)  # telling its client takes a while
                ended.append(loop.time() - since)
            finally:
                drain.leave()

        task = asyncio.ensure_future(request())
        await asyncio.sleep(1)
        await drain.run()
        assert task.done() or ended
        assert ended == [pytest.approx(24, abs=0.5)]
        watches.close()

    run(scene)
