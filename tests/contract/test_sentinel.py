"""A master, a replica and three sentinels: whoever is the master serves, and nobody else."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop
from redis.exceptions import RedisError

from tests.contract.lines import LineWorld, admitted, eventually, line_world
from tests.contract.world import ask
from tests.fakes.redis_cluster import Sentinels, free_port, program, until
from weir.core.errors import StoreUnavailable
from weir.core.types import Limits, Principal
from weir.store import commands_for, connect

pytestmark = pytest.mark.skipif(program() is None, reason="no redis-server or valkey-server on the PATH")

USER = ("--user", "weir", "on", ">servers-own", "~*", "&*", "+@all")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    with Sentinels() as group:
        yield group


async def test_a_master_that_is_killed_is_followed_by_the_next(
    sentinels: Sentinels, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Down once, up once; what was granted before is settled after; the directory finds the new master too."""
    async with line_world(sentinels.url) as world:
        principal = await world.caller(Limits(tpm=1, burst_seconds=60_000), Limits(concurrency=10))  # 1000 tokens
        grant = await world.limiter.take(principal, ask(100, 0))
        await asyncio.to_thread(until, lambda: sentinels.replica.say("DBSIZE") == sentinels.master.say("DBSIZE"))
        tending = asyncio.get_running_loop().create_task(world.limiter.tend())
        sentinels.master.kill()
        await eventually(lambda: refused(world, principal))
        world.limiter.settle(grant, 40)
        other = await admitted(world, principal, ask(10, 0))
        assert world.line.up
        assert world.ups == [True, False, True]
        assert world.changes[1][1]
        world.limiter.settle(other, 10)
        await eventually(lambda: all_is_settled(world))
        # The grants of the master's last moments may not have reached the replica; none of them costs tokens.
        assert await world.left(principal, "key tokens") == 950
        await eventually(lambda: managed(world, principal))
        assert (await world.directory.key(principal.key_id)).team == principal.team
        assert await world.keys.find(principal.digest) == principal
        assert sentinels.replica.say("ROLE")[0] == b"master"
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending


async def refused(world: LineWorld, principal: Principal) -> bool:
    try:
        await world.limiter.take(principal, ask(0, 0))
    except StoreUnavailable as error:
        return error.retry_after is not None
    return False


async def managed(world: LineWorld, principal: Principal) -> bool:
    """The directory's first command meets the dead connection, and sentinels may still be at odds."""
    try:
        await world.directory.update_team(principal.team, lambda limits: limits)
    except (StoreUnavailable, RedisError, OSError):
        return False
    return True


async def all_is_settled(world: LineWorld) -> bool:
    return await world.limiter.flush(0.2) == 0


async def test_a_master_that_is_demoted_is_left(sentinels: Sentinels) -> None:
    """It lives on as a replica and answers: READONLY, or not at all. Under load, as in a planned failover."""
    async with line_world(sentinels.url) as world:
        principal = await world.caller(Limits(rpm=1, burst_seconds=60_000))  # 1000 requests
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                with contextlib.suppress(StoreUnavailable):
                    world.limiter.settle(await world.limiter.take(principal, ask(0, 0)), None)
                await asyncio.sleep(0.005)

        loads = [asyncio.get_running_loop().create_task(load()) for _ in range(3)]
        sentinels.sentinels[0].say("SENTINEL", "FAILOVER", "mymaster")
        await asyncio.to_thread(until, lambda: sentinels.replica.say("ROLE")[0] == b"master")
        await asyncio.to_thread(until, lambda: sentinels.master.say("ROLE")[0] == b"slave")
        named = await eventually_named(world)
        assert named == sentinels.replica.port
        done.set()
        await asyncio.gather(*loads)
        await admitted(world, principal, ask(0, 0))
        assert world.ups[-1] is True
        assert all(first != second for first, second in zip(world.ups, world.ups[1:], strict=False))
        assert len(world.ups) <= 5, "told when it changes, and not with each attempt"


async def eventually_named(world: LineWorld) -> int:
    """The port of whoever serves: asked until it is a master for good."""
    ports: list[int] = []

    async def master() -> bool:
        with contextlib.suppress(StoreUnavailable):
            role, *_ = await world.line.call("ROLE")
            text = (await world.line.call("INFO", "server")).decode()
            ports.append(int(text.split("tcp_port:")[1].split()[0]))
            return bool(role == b"master")
        return False

    await eventually(master)
    await asyncio.sleep(0.3)
    await eventually(master)
    return ports[-1]


async def test_sentinels_that_are_dead_or_silent_cost_no_attempt(sentinels: Sentinels) -> None:
    """One of three does not exist, one takes connections and says nothing; and a deadline is a deadline."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        hosts = [silent.getsockname()[1], free_port(), sentinels.sentinels[2].port]
        url = "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in hosts) + "/mymaster"
        line = commands_for(url, command_seconds=1.0)
        try:
            await eventually(lambda: pings(line.call))
        finally:
            await line.close()


async def pings(call: Callable[..., asyncio.Future[object]]) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return await call("PING") == b"PONG"
    return False


async def test_where_no_sentinel_answers_or_none_knows_the_master_it_is_said(sentinels: Sentinels) -> None:
    nobody = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/mymaster"
    stranger = sentinels.url.replace("mymaster", "other")
    for url, word in ((nobody, "onnect"), (stranger, "do not know")):
        changes: list[tuple[bool, str]] = []
        line = commands_for(url, command_seconds=1.0, on_change=lambda *change, to=changes: to.append(change))
        try:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await line.call("PING")
            assert time.monotonic() - started < 10.0
            await eventually(lambda to=changes: told(to))
            await asyncio.sleep(0.4)
            assert [up for up, _ in changes] == [False]
            assert word in changes[0][1]
        finally:
            await line.close()


async def told(changes: list[tuple[bool, str]]) -> bool:
    return bool(changes)


async def test_passwords_of_sentinels_and_of_servers_are_two_things() -> None:
    with Sentinels(password="sentinels-own", server_options=USER) as group:
        url = group.url.replace("redis+sentinel://", "redis+sentinel://weir:servers-own@")
        async with line_world(url) as world:
            principal = await world.caller(Limits(rpm=10))
            await world.limiter.take(principal, ask())
            listed = (await world.line.call("CLIENT", "LIST")).decode()
            assert all(" user=weir " in one for one in listed.splitlines() if " name=weir " in one)
        client = connect(group.url.replace("sentinels-own", "wrong"))
        with pytest.raises(Exception, match=r"invalid username-password|WRONGPASS"):
            await client.ping()
        await client.aclose()
