"""What many tasks of one turn of the event loop have to say goes out at its end, together.

A write to somebody who sleeps wakes him, and that is most of its price: the kernel calls another processor, or gives
him ours in the middle of our work. Of several writes in a row only the first pays it. See decision 18.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

MANY = 5  # tasks in one turn; with fewer, what a write costs is less than what the others would wait for it
HELD_MAX = 16 * 1024  # bytes of one write; a larger one is worth waking somebody for


class Outbox:
    """Of one event loop. Whoever wakes a task that will write calls `woken` right behind that."""

    __slots__ = ("__weakref__", "_held", "_last", "_loop", "_moved", "_scheduled", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._last: list[Callable[[], None]] = []
        self._woken = 0
        self._scheduled = self._moved = False

    def woken(self) -> None:
        """A task has been put into the loop's queue."""
        self._woken += 1
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._end)

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Now, or at the end of this turn; what is written to one transport stays in its order."""
        if self._woken >= MANY and len(data) < HELD_MAX:
            self._held.append((transport, data))
        else:
            self.flush()
            transport.write(data)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call it at the end of this turn, or in the next one."""
        if self._scheduled:
            self._last.append(callback)
        else:
            self._loop.call_soon(callback)

    def flush(self) -> None:
        """Write what is held: before a transport is closed, or somebody else writes to it."""
        if not self._held:
            return
        held, self._held = self._held, []
        for transport, data in held:
            if not transport.is_closing():
                transport.write(data)

    def _end(self) -> None:
        if self._woken > 1 and not self._moved:
            self._moved = True  # behind all of them: it was put behind the first
            self._loop.call_soon(self._end)
            return
        self._scheduled = self._moved = False
        self._woken = 0
        last, self._last = self._last, []
        try:
            for callback in last:
                callback()
        finally:
            self.flush()


# By the loop's address: an outbox holds its loop, so while it is here nobody else has that address.
_OUTBOXES: WeakValueDictionary[int, Outbox] = WeakValueDictionary()


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """One for each loop, whoever asks; kept by those who have asked."""
    known = _OUTBOXES.get(id(loop))
    if known is None:
        known = _OUTBOXES[id(loop)] = Outbox(loop)
    return known
