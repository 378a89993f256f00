"""Ports against their real adapters, on every Redis that this machine has.

Tests here may be coroutines: each runs on a loop of its own, and fails if a task of it ended with an error that nobody
heard. What a fixture gives as an asynchronous context manager is entered for the length of the test.
"""

import asyncio
import gc
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from typing import Any

import pytest

from tests.contract.world import World, clocked_world, local_world, real_time_world
from tests.fakes.redis_server import Kind, RedisServer, kinds

KINDS = kinds()
SHOWN = pytest.StashKey[bool]()


def pytest_report_header(config: pytest.Config) -> str:
    config.stash[SHOWN] = True
    return "redis of the contract tests: " + ", ".join(f"{kind.name} = {kind.where}" for kind in KINDS)


def pytest_report_collectionfinish(config: pytest.Config) -> str | list[str]:
    """Pytest asks for headers before it finds this file when it is called without a path; so say it here."""
    return [] if config.stash.get(SHOWN, False) else pytest_report_header(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    run_strictly(pyfuncitem.obj, arguments, pyfuncitem.funcargs.get("loop_factory"))
    return True


def run_strictly(
    test: Callable[..., Any], arguments: dict[str, Any], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    unheard: list[dict[str, Any]] = []

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        async with AsyncExitStack() as stack:
            entered = {
                name: await stack.enter_async_context(value)
                if isinstance(value, AbstractAsyncContextManager)
                else value
                for name, value in arguments.items()
            }
            await test(**entered)
        if loop_factory:
            gc.collect()  # a task speaks of its unheard error when it is forgotten; 20 ms, so not for every test

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(play())
    assert not unheard, f"ended with an error that nobody heard: {unheard}"


# -- servers


@pytest.fixture(scope="session")
def _running() -> Iterator[Callable[[Kind], RedisServer]]:
    """Each kind is started when it is first asked for, once."""
    running: dict[str, RedisServer] = {}
    with ExitStack() as stack:

        def server_of(kind: Kind) -> RedisServer:
            if kind.name not in running:
                running[kind.name] = stack.enter_context(RedisServer(kind))
            return running[kind.name]

        yield server_of


def _emptied(server: RedisServer) -> RedisServer:
    with server.client() as client:
        client.flushall()
    return server


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def every_redis(request: pytest.FixtureRequest, _running: Callable[[Kind], RedisServer]) -> RedisServer:
    """One test for each Redis of this machine; empty at the start."""
    return _emptied(_running(request.param))


@pytest.fixture
def redis_server(_running: Callable[[Kind], RedisServer]) -> RedisServer:
    """The usual one; empty at the start."""
    return _emptied(_running(KINDS[0]))


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """For a test that stops, starts or misconfigures it."""
    with RedisServer(KINDS[0]) as server:
        yield server


# -- limiters

CLOCKED = [pytest.param(kind, id=f"clocked-{kind.name}") for kind in KINDS]
REAL_TIME = [pytest.param((kind,), id=kind.name) for kind in KINDS]


def _world(which: Any, running: Callable[[Kind], RedisServer]) -> AbstractAsyncContextManager[World]:
    match which:
        case None:
            return local_world()
        case Kind():
            return clocked_world(_emptied(running(which)).url)
        case (kind,):
            return real_time_world(_emptied(running(kind)).url)
    raise AssertionError(which)


@pytest.fixture(params=[pytest.param(None, id="local"), *CLOCKED, *REAL_TIME])
def world(
    request: pytest.FixtureRequest, _running: Callable[[Kind], RedisServer]
) -> AbstractAsyncContextManager[World]:
    """Every limiter that there is."""
    return _world(request.param, _running)


@pytest.fixture(params=[pytest.param(None, id="local"), *CLOCKED])
def timed_world(
    request: pytest.FixtureRequest, _running: Callable[[Kind], RedisServer]
) -> AbstractAsyncContextManager[World]:
    """Every limiter whose time is ours to set."""
    return _world(request.param, _running)
