"""Every limiter behind one face: who may call with which limits, and what time it is there."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from tests.contract.clocked import Clock, ClockedScripts
from weir.admission import Limiter
from weir.admission.limiter_local import LocalLimiter
from weir.admission.limiter_redis import RedisLimiter
from weir.auth.directory_redis import Directory
from weir.auth.keys import digest
from weir.core import layout
from weir.core.commands import Commands, Word
from weir.core.errors import LimitExceeded, Unauthenticated
from weir.core.types import Ask, Limits, Principal, Window
from weir.store import Batcher

LEASE = 60.0
SLACK = 30.0  # seconds that a test may take where time is real; a slow machine is no failure


def ask(
    prompt: int = 10,
    output: int | None = 10,
    *,
    choices: int = 1,
    default: int = 4096,
    model: str = "llama-3.3-70b",
    asked_as: str | None = None,
) -> Ask:
    return Ask(model, asked_as or model, prompt, output, choices, default)


class World(ABC):
    """`slack`: seconds that may pass here without anybody saying so; 0 where time is ours."""

    limiter: Limiter
    clock: Clock
    slack = 0.0

    @abstractmethod
    async def caller(self, key: Limits | None = None, team: Limits | None = None) -> Principal:
        """A new team with one key."""

    @abstractmethod
    async def colleague(self, of: Principal, key: Limits | None = None) -> Principal:
        """Another key of the same team."""

    @abstractmethod
    async def change(self, principal: Principal, *, key: Limits | None = None, team: Limits | None = None) -> None:
        """From now on other limits."""

    @abstractmethod
    async def dismiss(self, principal: Principal) -> None:
        """The team and its keys are deleted."""

    @abstractmethod
    async def snapshot(self, principal: Principal) -> Any:
        """All that is remembered of the principal's team, to be compared."""

    async def heard(self) -> None:
        """Until every settlement has arrived."""

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # What tests ask again and again

    async def left(self, principal: Principal, what: str) -> int:
        """What remains of one limit, as "key tokens"."""
        return self.one(await self.limiter.standing(principal), what).remaining

    @staticmethod
    def one(windows: Any, what: str) -> Window:
        (found,) = [window for window in windows if f"{window.scope} {window.unit}" == what]
        return found

    async def refused(self, principal: Principal, request: Ask) -> LimitExceeded:
        try:
            grant = await self.limiter.take(principal, request)
        except LimitExceeded as refusal:
            return refusal
        raise AssertionError(f"was admitted: {grant}")

    def about(self, seconds: float, actual: float | None) -> bool:
        """It is `seconds`, or less by what may have passed meanwhile."""
        return actual is not None and seconds - self.slack - 1e-9 <= actual <= seconds + 1e-9


class LocalWorld(World):
    limiter: LocalLimiter

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._limits: dict[tuple[str, str], Limits] = {}
        self.limiter = LocalLimiter(self._limits_of, self.clock, lease_seconds=LEASE)

    async def caller(self, key: Limits | None = None, team: Limits | None = None) -> Principal:
        principal = Principal(f"team-{len(self._limits)}", "key-1", "d1")
        await self.change(principal, key=key or Limits(), team=team or Limits())
        return principal

    async def colleague(self, of: Principal, key: Limits | None = None) -> Principal:
        number = sum(1 for team, _ in self._limits if team == of.team)
        principal = Principal(of.team, f"key-{number}", f"d{number}")
        await self.change(principal, key=key or Limits())
        return principal

    async def change(self, principal: Principal, *, key: Limits | None = None, team: Limits | None = None) -> None:
        if key is not None:
            self._limits[principal.team, principal.key_id] = key
        if team is not None:
            self._limits[principal.team, ""] = team

    async def dismiss(self, principal: Principal) -> None:
        for name in [name for name in self._limits if name[0] == principal.team]:
            del self._limits[name]

    async def snapshot(self, principal: Principal) -> Any:
        return await self.limiter.standing(principal)

    def _limits_of(self, principal: Principal) -> tuple[Limits, Limits]:
        if (principal.team, principal.key_id) not in self._limits:
            raise Unauthenticated(reason="unknown")
        return self._limits[principal.team, principal.key_id], self._limits[principal.team, ""]


class RedisWorld(World):
    """`clock` None: time is real, and the scripts run as they are. `scripts` is there where it is not."""

    limiter: RedisLimiter

    def __init__(
        self,
        client: "Redis",
        commands: Commands,
        limiter: RedisLimiter,
        clock: Clock | None = None,
        scripts: ClockedScripts | None = None,
    ) -> None:
        self.redis = client
        self.commands = commands
        self.limiter = limiter
        self.scripts = scripts
        self._count = 0
        if clock:
            self.clock = clock
            self.directory = Directory(client, clock=clock.seconds)
        else:
            self.slack = SLACK
            self.directory = Directory(client)

    async def caller(self, key: Limits | None = None, team: Limits | None = None) -> Principal:
        self._count += 1
        name = f"team-{self._count}"
        await self.directory.create_team(name, team or Limits())
        return await self._new_key(name, key)

    async def colleague(self, of: Principal, key: Limits | None = None) -> Principal:
        return await self._new_key(of.team, key)

    async def change(self, principal: Principal, *, key: Limits | None = None, team: Limits | None = None) -> None:
        await self.expire(principal)
        if key is not None:
            await self.directory.update_key(principal.key_id, lambda _: key)
        if team is not None:
            await self.directory.update_team(principal.team, lambda _: team)

    async def dismiss(self, principal: Principal) -> None:
        await self.directory.delete_team(principal.team)

    async def snapshot(self, principal: Principal) -> Any:
        found: dict[bytes, object] = {}
        async for name in self.redis.scan_iter(match=f"weir:{{{principal.team}}}:*"):
            kind = await self.redis.type(name)
            if kind == b"hash":
                found[name] = await self.redis.hgetall(name)
            elif kind == b"zset":
                found[name] = await self.redis.zrange(name, 0, -1, withscores=True)
            elif kind == b"set":
                found[name] = await self.redis.smembers(name)
            else:
                found[name] = await self.redis.get(name)
        return found

    async def expire(self, principal: Principal) -> None:
        """Let go what has expired by our clock; scripts do it for themselves, others do not know our time."""
        if self.slack:
            return
        names = [
            name
            for record in (layout.key(principal.team, principal.key_id), layout.team(principal.team))
            for name in (layout.use(record), layout.live(record))
        ]
        (seconds, micros), *lefts = await self.together(("TIME",), *(("PTTL", name) for name in names))
        ahead = self.clock.now // 1_000 - int(seconds) * 1_000 - int(micros) // 1_000
        await self.together(*(("DEL", n) for n, left in zip(names, lefts, strict=True) if 0 <= left < ahead))

    async def together(self, *commands: tuple[Word, ...]) -> list[Any]:
        """All in one turn."""
        return await asyncio.gather(*(self.commands.call(*words) for words in commands))

    async def heard(self) -> None:
        assert await self.limiter.flush(10.0) == 0

    def wait(self, seconds: float) -> None:
        assert not self.slack, "time is real here and does not wait for us"
        super().wait(seconds)

    async def _new_key(self, team: str, limits: Limits | None) -> Principal:
        made = await self.directory.create_key(team, "", limits or Limits())
        return Principal(team, made.key.id, digest(made.secret.encode(), None))


@asynccontextmanager
async def local_world() -> AsyncIterator[World]:
    yield LocalWorld()


@asynccontextmanager
async def clocked_world(url: str, clock: Clock | None = None) -> AsyncIterator[RedisWorld]:
    async with _redis(url) as (client, batcher):
        clock = clock or Clock()
        scripts = ClockedScripts(batcher, clock)
        yield RedisWorld(client, batcher, RedisLimiter(scripts, lease_seconds=LEASE), clock, scripts)


@asynccontextmanager
async def real_time_world(url: str) -> AsyncIterator[RedisWorld]:
    async with _redis(url) as (client, batcher):
        yield RedisWorld(client, batcher, RedisLimiter(batcher, lease_seconds=LEASE))


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[tuple["Redis", Batcher]]:
    # Deadlines are not what is tested here: a busy machine may take its time.
    client = Redis.from_url(url, socket_connect_timeout=20, socket_timeout=20, protocol=2, client_name="weir")
    batcher = Batcher(client, command_seconds=10.0)
    try:
        yield client, batcher
    finally:
        await batcher.close()
        await client.aclose()
