"""The real scripts on a real Redis, in a time of our own: `Commands` that put a prelude before each script.

Redis' clock cannot be set. The prelude stands before the script's own text, which stays as it is to the byte, and
answers what depends on time: TIME with the test's microseconds, and expiry by them too. Our time is in the next
century, so nothing expires by Redis' own clock meanwhile: a key's end is written there as the moment in ours.
"""

import asyncio
import hashlib
from importlib import resources
from typing import Any

from weir.core.commands import Commands, Word

PRELUDE = """
local real, now_us = redis, tonumber(ARGV[#ARGV])
local time = real.call('TIME')
local now_ms, really_ms = math.floor(now_us / 1000), tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function ends(name)
  local left = real.call('PTTL', name)
  return left >= 0 and really_ms + left
end
for _, name in ipairs(KEYS) do
  if now_ms > (ends(name) or now_ms) then real.call('DEL', name) end
end
local redis = setmetatable({call = function(command, name, ...)
  if command == 'TIME' then
    return {string.format('%.0f', math.floor(now_us / 1000000)), string.format('%.0f', now_us % 1000000)}
  elseif command == 'PTTL' then
    local at = ends(name)
    return at and at - now_ms or real.call('PTTL', name)
  elseif string.find(command, 'EXPIRE') and command ~= 'PEXPIRE' or command == 'TTL' or string.find(command, 'SETEX') then
    error('the prelude does not know ' .. command .. ' yet')
  end
  local reply = real.call(command, name, ...)
  if command == 'PEXPIRE' or command == 'SET' then
    local left = real.call('PTTL', name)
    if left >= 0 then real.call('PEXPIREAT', name, string.format('%.0f', now_ms + left)) end
  end
  return reply
end}, {__index = real})
""".replace("\n", " ")


class Clock:
    """Microseconds; stands still until it is set."""

    def __init__(self) -> None:
        self.now = 4_102_444_800_123_457  # 2100-01-01, and a bit

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        return self.now / 1_000_000

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1_000_000)


class ClockedScripts:
    """See `Commands`. What is no script passes as it is. `last` is the reply of the last script."""

    last: asyncio.Future[Any]

    def __init__(self, commands: Commands, clock: Clock) -> None:
        self._commands = commands
        self._clock = clock
        self._by_sha = {sha1(source): source for source in scripts().values()}

    def call(self, *words: Word) -> asyncio.Future[Any]:
        if words[0] == "EVALSHA":
            clocked = sha1(PRELUDE + self._by_sha[str(words[1])])
            self.last = self._commands.call("EVALSHA", clocked, *words[2:], self._clock.now)
            return self.last
        if words[0] == "EVAL":
            self.last = self._commands.call("EVAL", PRELUDE + str(words[1]), *words[2:], self._clock.now)
            return self.last
        return self._commands.call(*words)


def scripts() -> dict[str, str]:
    """Every script that admission has, by the name of its file."""
    files = resources.files("weir.admission").iterdir()
    return {file.name: file.read_text() for file in files if file.name.endswith(".lua")}


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
