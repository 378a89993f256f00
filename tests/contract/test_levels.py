"""Log levels as real Redis keeps them: all in one place, each until its end, and nothing left behind the last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest

from tests.contract.lines import eventually
from tests.fakes.redis_server import RedisServer
from weir.core import layout
from weir.store import commands_for
from weir.telemetry.levels import EVERYBODY, Whose
from weir.telemetry.levels_redis import LevelBook

TEAM, KEY = Whose("team", "search"), Whose("key", "key1")


@asynccontextmanager
async def book_at(url: str) -> AsyncIterator[LevelBook]:
    line = commands_for(url, command_seconds=10.0)
    try:
        yield LevelBook(line)
    finally:
        await line.close()


async def test_set_read_and_take_away(every_redis: RedisServer) -> None:
    async with book_at(every_redis.url) as book:
        now, found = await book.read()
        assert found == {}
        debug = await book.set(TEAM, "debug", 3600)
        assert debug.level == "debug"
        assert now + 3600 <= debug.until < now + 3630
        error = await book.set(EVERYBODY, "error", 60)
        never = await book.set(KEY, "info", inf)
        assert never.until == inf
        assert (await book.read())[1] == {TEAM: debug, EVERYBODY: error, KEY: never}
        await book.reset(TEAM)
        assert (await book.read())[1] == {EVERYBODY: error, KEY: never}
        await book.reset()
        assert (await book.read())[1] == {}


async def test_a_new_level_takes_the_place_of_the_old(every_redis: RedisServer) -> None:
    async with book_at(every_redis.url) as book:
        await book.set(TEAM, "debug", inf)
        later = await book.set(TEAM, "warning", 60)
        assert (await book.read())[1] == {TEAM: later}


async def test_what_has_ended_is_gone_and_the_last_one_takes_everything_along(redis_server: RedisServer) -> None:
    async with book_at(redis_server.url) as book:
        await book.set(TEAM, "debug", 0.05)
        await asyncio.sleep(0.1)
        stays = await book.set(EVERYBODY, "error", 0.4)
        with redis_server.client() as client:
            assert [*client.hgetall(layout.LEVELS)] == [b"all:"]
        assert (await book.read())[1] == {EVERYBODY: stays}

        async def gone() -> bool:
            with redis_server.client() as client:
                return not client.exists(layout.LEVELS)

        await eventually(gone)


@pytest.mark.parametrize("span", [inf, 600.0])
async def test_one_without_an_end_keeps_the_place(redis_server: RedisServer, span: float) -> None:
    async with book_at(redis_server.url) as book:
        await book.set(TEAM, "debug", 60)
        await book.set(KEY, "debug", span)
        with redis_server.client() as client:
            left = client.ttl(layout.LEVELS)
        assert left == -1 if span == inf else 590 < left <= 600
        await book.reset(KEY)
        with redis_server.client() as client:
            assert 0 < client.ttl(layout.LEVELS) <= 60
