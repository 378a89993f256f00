"""Places are held for as long as somebody says so, and not a renewal less: what `RedisLimiter.tend` promises.

Two times are moved here by hand, and together: that of the scripts and that of the loop on which `tend` sleeps.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.contract.clocked import ClockedScripts
from tests.contract.world import LEASE, RedisWorld, ask, clocked_world, real_time_world
from tests.fakes.redis_server import RedisServer
from weir.admission import Grant
from weir.admission.limiter_redis import KEEP_MS, RedisLimiter
from weir.core import layout
from weir.core.commands import Word
from weir.core.errors import ConcurrencyExceeded, StoreUnavailable
from weir.core.types import Limits, Principal

THIRD = LEASE / 3 + 1  # a renewal is due


class MovableLoop(asyncio.SelectorEventLoop):
    """Real, but its time can be moved on."""

    moved = 0.0

    def time(self) -> float:
        return super().time() + self.moved


@pytest.fixture(autouse=True)
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    return MovableLoop


@asynccontextmanager
async def tended(world: RedisWorld) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(world.limiter.tend())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def move(world: RedisWorld, seconds: float) -> None:
    world.clock.advance(seconds)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MovableLoop)
    loop.moved += seconds


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1_000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within ten seconds")


async def lease_end(world: RedisWorld, grant: Grant, record: str) -> int | None:
    score = await world.redis.zscore(layout.live(record), grant.id)
    return None if score is None else int(score)


async def renewed(world: RedisWorld, grant: Grant) -> None:
    """Until the lease is a whole one, from now, of key and team."""
    records = (layout.key(grant.principal.team, grant.principal.key_id), layout.team(grant.principal.team))
    expected = world.clock.now + int(LEASE * 1e6)

    async def both() -> bool:
        return all([await lease_end(world, grant, record) == expected for record in records])

    await eventually(both)


PLACE = Limits(concurrency=1)
PLACES = Limits(concurrency=3)


async def test_a_long_request_keeps_its_place_until_it_settles(every_redis: RedisServer) -> None:
    async with clocked_world(every_redis.url) as world, tended(world):
        principal = await world.caller(PLACE, PLACES)
        grant = await world.limiter.take(principal, ask())
        for _ in range(5):
            move(world, THIRD)
            await renewed(world, grant)
            assert type(await world.refused(principal, ask())) is ConcurrencyExceeded
        world.limiter.settle(grant, 5)
        await world.heard()
        move(world, THIRD)
        await asyncio.sleep(0.05)
        assert await world.left(principal, "key concurrency") == 1
        assert await world.left(principal, "team concurrency") == 3


async def test_a_long_request_can_still_be_settled_to_the_token(redis_server: RedisServer) -> None:
    """Its reservation is renewed with its place, however long it streams. (One token comes back a minute.)"""
    async with clocked_world(redis_server.url) as world, tended(world):
        principal = await world.caller(Limits(tpm=1, concurrency=1, burst_seconds=60_000))  # 1000 tokens
        grant = await world.limiter.take(principal, ask(900, 0))
        begun = world.clock.now
        for _ in range(200):
            move(world, THIRD)
            await renewed_key_only(world, grant)
        minutes = (world.clock.now - begun) // 60_000_000
        assert minutes * 60_000 > KEEP_MS + LEASE * 1_000, "longer than a reservation is kept by itself"
        world.limiter.settle(grant, 400)
        await world.heard()
        assert await world.left(principal, "key tokens") == 1_000 - 400 + minutes


async def renewed_key_only(world: RedisWorld, grant: Grant) -> None:
    record = layout.key(grant.principal.team, grant.principal.key_id)

    async def it() -> bool:
        return await lease_end(world, grant, record) == world.clock.now + int(LEASE * 1e6)

    await eventually(it)


async def test_who_stalled_beyond_the_lease_is_counted_again_when_it_is_back(redis_server: RedisServer) -> None:
    async with clocked_world(redis_server.url) as world:
        principal = await world.caller(PLACE)
        stalled = await world.limiter.take(principal, ask())
        move(world, LEASE + 1)
        other = await world.limiter.take(principal, ask())
        async with tended(world):
            await eventually(lambda: has_place(world, stalled))
        assert await world.left(principal, "key concurrency") == -1
        for grant in (other, stalled):
            assert type(await world.refused(principal, ask())) is ConcurrencyExceeded
            world.limiter.settle(grant, 1)
            await world.heard()
        await world.limiter.take(principal, ask())


async def has_place(world: RedisWorld, grant: Grant) -> bool:
    return await lease_end(world, grant, layout.key(grant.principal.team, grant.principal.key_id)) is not None


async def test_a_renewal_that_comes_after_the_settlement_changes_nothing(redis_server: RedisServer) -> None:
    async with clocked_world(redis_server.url) as world:
        principal = await world.caller(PLACE, Limits(tpm=600, concurrency=3))
        grant = await world.limiter.take(principal, ask())
        world.limiter.settle(grant, 5)
        await world.heard()
        before = await world.snapshot(principal)
        world.limiter._renew_lease(grant)
        await script_answered(world)
        assert await world.snapshot(principal) == before


async def script_answered(world: RedisWorld) -> None:
    assert world.scripts is not None
    await world.scripts.last


async def held_by(world: RedisWorld, principal: Principal) -> int:
    return 10 - await world.left(principal, "team concurrency")


async def test_a_renewal_does_not_shorten_the_life_of_other_places(redis_server: RedisServer) -> None:
    """The set that all places lie in must live as long as the longest lease, in whatever order they are written."""
    async with clocked_world(redis_server.url) as world:
        principal = await world.caller(Limits(rpm=600), Limits(concurrency=10))
        colleague = await world.colleague(principal, Limits(rpm=600))
        await world.limiter.take(colleague, ask())  # of a worker that was killed
        long = await world.limiter.take(principal, ask())
        world.wait(1.0)
        world.limiter._renew_lease(long)
        await script_answered(world)
        world.limiter.settle(long, 1)
        await world.heard()
        world.wait(LEASE - 2)
        await world.limiter.take(principal, ask())
        assert await held_by(world, principal) == 2
        world.wait(5.0)
        assert await held_by(world, principal) == 1
        world.wait(LEASE - 6)
        assert await held_by(world, principal) == 1, "a place was forgotten before its lease ended"
        world.wait(1.0)
        assert await held_by(world, principal) == 0


@pytest.mark.parametrize("first", ["short", "long"])
async def test_workers_with_different_leases_do_not_forget_each_others_places(
    redis_server: RedisServer, first: str
) -> None:
    """As while a changed setting is rolled out."""
    async with clocked_world(redis_server.url) as world:
        scripts = ClockedScripts(world.commands, world.clock)
        leases = {"short": 1.0, "long": 1_000.0}
        limiters = {name: RedisLimiter(scripts, lease_seconds=seconds) for name, seconds in leases.items()}
        principal = await world.caller(None, Limits(concurrency=10))
        for name in (first, "short" if first == "long" else "long"):
            await limiters[name].take(principal, ask())
        world.wait(0.9)
        assert await held_by(world, principal) == 2
        world.wait(0.2)
        assert await held_by(world, principal) == 1
        world.wait(998.0)
        assert await held_by(world, principal) == 1


async def test_nothing_that_a_request_leaves_behind_lives_for_ever(every_redis: RedisServer) -> None:
    """Real time and the scripts as they are: each name that is no record has an end, and a sensible one."""
    async with real_time_world(every_redis.url) as world:
        limits = Limits(rpm=600, tpm=6_000, concurrency=10)
        for used in (3, None, 5_000, "held", "renewed"):
            principal = await world.caller(limits, limits)
            grant = await world.limiter.take(principal, ask(100, 0))
            if used == "renewed":
                world.limiter._renew_lease(grant)
                await world.left(principal, "key tokens")
            elif used != "held":
                world.limiter.settle(grant, used)
                await world.heard()
            records = {
                layout.team(principal.team),
                layout.key(principal.team, principal.key_id),
                layout.team_keys(principal.team),
            }
            names = {name.decode() async for name in world.redis.scan_iter(match=f"weir:{{{principal.team}}}:*")}
            assert len(names - records) >= 2
            for name in names - records:
                assert 1_000 < await world.redis.pttl(name) <= 2 * 86_400_000, name
            world.limiter._live.clear()


# -- while Redis is away


class Away:
    """`Commands` to a Redis that is not there."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self, *words: Word) -> asyncio.Future[Any]:
        self.calls += 1
        reply = asyncio.get_running_loop().create_future()
        reply.set_exception(StoreUnavailable())
        return reply


async def test_settlements_that_wait_for_redis_are_kept_and_cost_little_meanwhile() -> None:
    """Who waits for Redis must not keep everybody else from being served: it is tried, not tried for each of them."""
    away, many = Away(), 20_000
    limiter = RedisLimiter(away)
    principal = Principal("team", "key", "digest")
    for number in range(many):
        grant = Grant(f"{number}", principal, 1, 1, bounded=True, held=True, windows=())
        limiter._live[grant.id] = (grant, 0.0)
        limiter.settle(grant, 1)
    await asyncio.sleep(0)
    assert limiter.unsettled == many
    assert limiter.held == 0
    asked = away.calls
    task = asyncio.get_running_loop().create_task(limiter.tend())
    await asyncio.sleep(0)
    for _ in range(3):
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovableLoop)
        loop.moved += 1.0
        for _ in range(5):
            await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert away.calls > asked, "it is tried again"
    assert away.calls - asked <= 3 * 5_000
    assert limiter.unsettled == many, "and none is lost"
