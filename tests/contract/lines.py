"""What the tests of Sentinel, Cluster, TLS and ACL share: a whole limiter and directory, from a URL."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.contract.world import RedisWorld
from weir.admission import Grant
from weir.admission.limiter_redis import RedisLimiter
from weir.auth.key_store_redis import RedisKeyStore
from weir.core.errors import StoreUnavailable
from weir.core.types import Ask, Principal
from weir.store import Line, commands_for, connect

PATIENT = 60.0  # longer than anything takes that goes well, on a busy machine too


class LineWorld(RedisWorld):
    """A limiter, a key store and a directory on whatever a URL means; `changes` is what `on_change` heard."""

    line: Line
    keys: RedisKeyStore
    changes: list[tuple[bool, str]]

    @property
    def ups(self) -> list[bool]:
        return [up for up, _ in self.changes]


@asynccontextmanager
async def line_world(url: str, *, seconds: float = 2.0) -> AsyncIterator[LineWorld]:
    changes: list[tuple[bool, str]] = []
    url += ("&" if "?" in url else "?") + "socket_connect_timeout=2"  # a busy machine is no outage
    client = connect(url, command_seconds=10.0)
    line = commands_for(url, command_seconds=seconds, on_change=lambda up, why: changes.append((up, why)))
    world = LineWorld(client, line, RedisLimiter(line, lease_seconds=60.0))  # type: ignore[arg-type]
    world.line, world.keys, world.changes = line, RedisKeyStore(line), changes
    try:
        yield world
    finally:
        async with asyncio.timeout(PATIENT):
            await line.close()
            await client.aclose()


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = PATIENT) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)


async def admitted(world: RedisWorld, principal: Principal, ask: Ask) -> Grant:
    """Asked again for as long as nobody can say, as clients do."""
    granted: list[Grant] = []

    async def once() -> bool:
        with contextlib.suppress(StoreUnavailable):
            granted.append(await world.limiter.take(principal, ask))
        return bool(granted)

    await eventually(once)
    return granted[0]
