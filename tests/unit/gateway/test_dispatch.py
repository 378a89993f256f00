"""In flight is counted from the sending to the last byte, however it ends."""

import asyncio

import pytest

from tests.fakes.backend import HANG, Die, Head, ScriptedBackend, Step
from tests.fakes.clock import run
from weir.backend import Call
from weir.core.errors import UpstreamUnreachable
from weir.core.types import Endpoint, Route, Timeouts
from weir.gateway.dispatch import Dispatch

CALL = Call("/chat/completions", b"{}", [], Timeouts())


def scripted(*script: Step, endpoints: int = 1) -> tuple[Dispatch, Route, ScriptedBackend]:
    backend = ScriptedBackend(*script)
    addresses = [Endpoint(f"http://{number}/v1") for number in range(endpoints)]
    return Dispatch({"kind": backend}), Route("m", "kind", "m", addresses), backend


def in_flight(route: Route) -> list[int]:
    return [endpoint.in_flight for endpoint in route.endpoints]


def test_counts_from_the_sending_to_the_last_byte() -> None:
    async def scene() -> None:
        dispatch, route, backend = scripted(Head(), b"a")
        sending = dispatch.send(route, CALL)
        assert in_flight(route) == [0]
        async with sending as response:
            assert in_flight(route) == [1]
            assert await response.read() == b"a"
            assert in_flight(route) == [1]
        assert in_flight(route) == [0]
        assert backend.visit.left
        assert backend.visit.endpoint is sending.endpoint

    run(scene)


@pytest.mark.parametrize("error", [UpstreamUnreachable(), RuntimeError()], ids=["refused", "bug"])
def test_counts_nothing_where_nothing_began(error: Exception) -> None:
    async def scene() -> None:
        dispatch, route, _ = scripted(Die(error))
        with pytest.raises(type(error)):
            async with dispatch.send(route, CALL):
                raise AssertionError("never entered")
        assert in_flight(route) == [0]

    run(scene)


def test_counts_nothing_after_a_cancellation_while_waiting() -> None:
    async def scene() -> None:
        dispatch, route, _ = scripted(HANG)

        async def ask() -> None:
            async with dispatch.send(route, CALL):
                raise AssertionError("never entered")

        task = asyncio.ensure_future(ask())
        await asyncio.sleep(1)
        assert in_flight(route) == [1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert in_flight(route) == [0]

    run(scene)


def test_counts_nothing_after_an_error_inside() -> None:
    async def scene() -> None:
        dispatch, route, _ = scripted(Head(), b"a")
        with pytest.raises(ZeroDivisionError):
            async with dispatch.send(route, CALL):
                raise ZeroDivisionError
        assert in_flight(route) == [0]

    run(scene)


def test_the_busier_of_two_gets_nothing() -> None:
    async def scene() -> None:
        dispatch, route, _ = scripted(Head(), endpoints=2)
        route.endpoints[0].in_flight = 5
        for _ in range(50):
            assert dispatch.send(route, CALL).endpoint is route.endpoints[1]

    run(scene)
