"""How many replicas live: each process says so in Redis every few seconds. Whoever says nothing is forgotten.

Each process counts, workers of one pod too, because each would hold limits of its own while Redis is away.
"""

import asyncio
import contextlib
import secrets
from collections import deque

from weir.core import layout
from weir.core.commands import CommandRefused, Commands
from weir.core.errors import StoreUnavailable

BEAT_SECONDS = 5.0
BEATS_MISSED = 3  # then a replica is gone

# KEYS 1 the replicas, by their last beat in ms    ARGV 1 this one  2 ms until one is forgotten.    Reply: how many live
BEAT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], string.format('%d', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%d', now - tonumber(ARGV[2])))
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) * 2)
return redis.call('ZCARD', KEYS[1])
"""


class Replicas:
    """`count` is at least 1, and stays what it was while Redis is away."""

    def __init__(self, commands: Commands, *, beat_seconds: float = BEAT_SECONDS) -> None:
        self._commands = commands
        self._beat_seconds = beat_seconds
        self._forget_ms = int(beat_seconds * BEATS_MISSED * 1_000)
        self._name = secrets.token_hex(8)
        self._seen: deque[int] = deque([1], maxlen=BEATS_MISSED)
        self._left = False

    @property
    def count(self) -> int:
        """The most that were seen in the last few beats.

        After an outage the first to come back sees nobody else, until they have come back too; and who believes to be
        alone gives away everybody's limits when the next outage comes.
        """
        return max(self._seen)

    async def tend(self) -> None:
        """For ever: live, and count."""
        while not self._left:
            with contextlib.suppress(StoreUnavailable, CommandRefused):
                self._seen.append(int(await self._commands.call(*self._beat())))
            await asyncio.sleep(self._beat_seconds)

    async def leave(self) -> None:
        """The others need not wait until they notice. Where Redis is away they will have to."""
        self._left = True
        with contextlib.suppress(StoreUnavailable, CommandRefused):
            await self._commands.call("ZREM", layout.REPLICAS, self._name)

    def _beat(self) -> tuple[str | int, ...]:
        return ("EVAL", BEAT, 1, layout.REPLICAS, self._name, self._forget_ms)
