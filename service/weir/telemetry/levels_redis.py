"""Log levels in Redis, for all replicas: set by a command, read by every process every few seconds.

One hash holds them all, which is one slot of a cluster, and is gone with the last of them. Ends are on Redis' clock.
"""

import asyncio
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import Any

from weir.core import layout
from weir.core.commands import CommandRefused, Commands
from weir.core.errors import StoreUnavailable
from weir.telemetry.levels import Change, Level, Levels, Setting, Whose, field_of, found_in

READ_SECONDS = 2.0

# KEYS 1 the hash    ARGV 1 field  2 level, "" to take it away  3 ms until its end, 0 for never.    Reply: its end
SET = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local till = 0
if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    if tonumber(ARGV[3]) > 0 then till = now + tonumber(ARGV[3]) end
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%d', till))
end
local last, forever = 0, false
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local until_ = tonumber(string.match(all[i + 1], ' (%d+)$') or '1')
    if until_ == 0 then
        forever = true
    elseif until_ <= now then
        redis.call('HDEL', KEYS[1], all[i])
    elseif until_ > last then
        last = until_
    end
end
if forever then redis.call('PERSIST', KEYS[1]) elseif last > 0 then redis.call('PEXPIREAT', KEYS[1], last) end
return till
"""

# KEYS 1 the hash.    Reply: now in ms, then fields and values
READ = """
local time = redis.call('TIME')
local all = redis.call('HGETALL', KEYS[1])
table.insert(all, 1, string.format('%d', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)))
return all
"""


class LevelBook:
    """Raises StoreUnavailable and CommandRefused."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def set(self, whose: Whose, level: Level, seconds: float) -> Setting:
        """For so many seconds; infinite for no end."""
        span = 0 if seconds == inf else max(int(seconds * 1000), 1)
        end = await self._commands.call("EVAL", SET, 1, layout.LEVELS, field_of(whose), level, span)
        return Setting(level, int(end) / 1000 or inf)

    async def reset(self, whose: Whose | None = None) -> None:
        """One of them, or all."""
        if whose is None:
            await self._commands.call("DEL", layout.LEVELS)
        else:
            await self._commands.call("EVAL", SET, 1, layout.LEVELS, field_of(whose), "", 0)

    async def read(self) -> tuple[float, Mapping[Whose, Setting]]:
        """Redis' time in Unix seconds, and all that is set; some of it may have ended by then."""
        words: list[Any] = await self._commands.call("EVAL", READ, 1, layout.LEVELS)
        now, *rest = (word.decode(errors="replace") for word in words)
        return int(now) / 1000, found_in(zip(rest[::2], rest[1::2], strict=True))


class LevelReader:
    """Keeps `levels` as they are in Redis. While it is away the last known stay, each until its end."""

    def __init__(
        self,
        book: LevelBook,
        levels: Levels,
        changed: Callable[[Change], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._book = book
        self._levels = levels
        self._changed = changed
        self._clock = clock
        self._ahead = 0.0  # of Redis' clock before ours

    async def tend(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(READ_SECONDS)

    async def look(self) -> None:
        """Once."""
        try:
            now, found = await self._book.read()
        except (StoreUnavailable, CommandRefused):
            changes = self._levels.end(self._clock() + self._ahead)
        else:
            self._ahead = now - self._clock()
            changes = self._levels.take(found, now)
        for change in changes:
            self._changed(change)
