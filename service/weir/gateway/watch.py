"""Looks after every request that is under way: has the client left, has somebody been silent too long?

One timer for all requests walks over them ten times a second (0.15 us each), so that a request itself arms none, and a
chunk costs one reading of the clock. What is found ends the request's task with the error that fits; `asyncio.timeout`
works the same way.
"""

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from weir.core.errors import BodyTimeout, ClientGone, ClientStalled, GatewayError, UpstreamTimeout
from weir.core.types import Timeouts
from weir.gateway.wire import Rest, Wire

TICK = 0.1  # seconds; how exact the time limits are

# What a request is waiting for, and so which limit applies.
BODY, PLACE, FIRST_BYTE, UPSTREAM, CLIENT = range(5)
_NO_TIMEOUTS = Timeouts()

# Writes a comment where one may stand, at once.
Ping = Callable[[], Rest]


class Watch:
    """One stretch of a request, as a block: reading its body, or waiting for its answer, perhaps while the rest of the
    body comes. `waiting_for` is one of the constants above, `since` in the loop's seconds; whoever waits sets them, as
    cheaply as can be.

    The block raises what was found, in place of the cancellation that brought it.
    """

    __slots__ = (
        "_began",
        "_error",
        "_left",
        "_task",
        "_timeouts",
        "_watches",
        "_wire",
        "now",
        "ping",
        "pinged",
        "since",
        "waiting_for",
    )

    def __init__(self, watches: "Watches", waiting_for: int, timeouts: Timeouts, wire: Wire | None) -> None:
        self._watches = watches
        self._timeouts = timeouts
        self._error: GatewayError | None = None
        self._wire = wire
        self.now = watches.now
        self.waiting_for = waiting_for
        self.since = self._began = self.now()
        self.ping: Ping | None = None
        self.pinged = 0.0
        self._left = 0

    def __enter__(self) -> Self:
        watches = self._watches
        task = asyncio.current_task(watches.loop)
        assert task is not None  # noqa: S101 - ASGI applications run in tasks; this is for the type checker
        self._task = task
        watches.live.add(self)
        if self._wire is not None:
            self._wire.listen(self._gone)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watches.live.discard(self)
        if self._wire is not None:
            self._wire.listen(None)
        found, self._error, self.ping = self._error, None, None
        try:
            if found is not None and kind is asyncio.CancelledError:
                self._task.uncancel()
                raise found from None
        finally:
            del found  # its traceback holds this frame: a circle for each client that leaves, 20 KB until the collector

    def turn(self, waiting_for: int) -> None:
        """From now on it is this that we wait for."""
        self.since = self.now()
        self.waiting_for = waiting_for

    def again(self, timeouts: Timeouts) -> None:
        """Another attempt, perhaps at another model: its own time to the first byte. The total goes on."""
        self._timeouts = timeouts
        self.turn(FIRST_BYTE)

    @property
    def found(self) -> GatewayError | None:
        """What the request is being ended for, if it is."""
        return self._error

    def end(self, error: GatewayError) -> None:
        """End the request with this error, from outside; the first one counts."""
        if self._error is None:
            self._error = error
            self._task.cancel()

    def _gone(self) -> None:
        self.end(ClientGone(reason="closed the connection"))

    def _look(self, now: float, body_seconds: float, write_seconds: float, ping_seconds: float) -> None:
        if self._wire is not None and self._wire.left():
            self._gone()
            return
        silent = now - self.since
        timeouts = self._timeouts
        if self.waiting_for <= PLACE:  # the turnstile has a limit of its own
            if self.waiting_for == BODY and (silent > body_seconds or now - self._began > timeouts.total):
                self.end(BodyTimeout())
            return
        if now - self._began > timeouts.total:
            self.end(UpstreamTimeout("total", timeouts.total))
        elif self.waiting_for == CLIENT:
            self._look_at_client(now, write_seconds)
        elif self.waiting_for == FIRST_BYTE and silent > timeouts.first_byte:
            self.end(UpstreamTimeout("first byte", timeouts.first_byte))
        elif self.waiting_for == UPSTREAM and silent > timeouts.idle:
            self.end(UpstreamTimeout("idle", timeouts.idle))
        elif self.ping is not None and now - max(self.since, self.pinged) > ping_seconds:
            self.pinged = now  # not `since`: our own comment is no word from upstream
            self._watches.finish(self.ping())

    def _look_at_client(self, now: float, write_seconds: float) -> None:
        left = self._wire.buffered() if self._wire is not None else 0
        if left != self._left:
            self._left, self.since = left, now  # slowly, but it reads
        elif now - self.since > write_seconds:
            self.end(ClientStalled(reason=f"read nothing for {write_seconds:g} s"))


class Watches:
    """All requests under way in this process. Times in seconds."""

    def __init__(self, *, body_seconds: float, write_seconds: float, ping_seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.live: set[Watch] = set()
        self._limits = (body_seconds, write_seconds, ping_seconds)
        self._pings: set[asyncio.Future[None]] = set()
        self._timer = self.loop.call_later(TICK, self._tick)

    def __iter__(self) -> Iterator[Watch]:
        return iter(tuple(self.live))

    def __len__(self) -> int:
        return len(self.live)

    def body(self) -> Watch:
        """A watch over the reading of a request's body."""
        return Watch(self, BODY, _NO_TIMEOUTS, None)

    def answer(self, wire: Wire, timeouts: Timeouts) -> Watch:
        """A watch over an answer: its turn, its upstream, its client's leaving, its client's pace."""
        return Watch(self, PLACE, timeouts, wire)

    def close(self) -> None:
        self._timer.cancel()

    def finish(self, rest: Rest) -> None:
        """What a ping could not write at once, because the client reads slowly."""
        if rest is not None:
            task = asyncio.ensure_future(rest)
            self._pings.add(task)
            task.add_done_callback(self._pings.discard)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK, self._tick)
        now = self.now()
        for watch in self:
            watch._look(now, *self._limits)  # noqa: SLF001 - the two are one thing
