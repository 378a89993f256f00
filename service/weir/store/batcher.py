"""Redis without waiting in line: what one turn of the event loop asks goes out as one pipeline, on one connection.

redis-py makes, authenticates and tears down the connection; replies come back in order. Hard deadlines,
a bounded queue, and while the server is away an answer at once instead of a queue that grows.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from weir.core.commands import CommandRefused, Word
from weir.core.errors import StoreUnavailable
from weir.store.connect import COMMAND_SECONDS, CONNECT_SECONDS

PENDING_MAX = 20_000
SECOND_LOOK_SECONDS = 0.02
HANG_SECONDS = 1.0  # without any reply; then the connection is taken for dead
PAUSE_FIRST, PAUSE_MAX = 0.1, 2.0  # seconds between attempts to connect


class Batcher:
    """See `Commands`. `on_change` hears of every change of state, once: (up, why)."""

    def __init__(
        self,
        client: "Redis",
        *,
        command_seconds: float = COMMAND_SECONDS,
        on_change: Callable[[bool, str], None] = lambda _up, _why: None,
    ) -> None:
        self._client = client
        self._deadline = command_seconds
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._outbox: list[tuple[bytes, asyncio.Future[Any], float]] = []  # packed; the float: asked when
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._scheduled = False
        self._transport: asyncio.WriteTransport | None = None
        self._up: bool | None = None  # None: not tried yet
        self._late = False
        self._heard = 0.0  # when the last reply came
        self._watchdog: asyncio.TimerHandle | None = None
        self._broken: asyncio.Future[None] | None = None
        self._task = self._loop.create_task(self._run(), name="weir redis")

    @property
    def up(self) -> bool:
        return self._up is True

    def call(self, *words: Word) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        if self._up is False or len(self._waiting) + len(self._outbox) >= PENDING_MAX:
            future.set_exception(StoreUnavailable(reason="redis is away", retry_after=1.0))
            return future
        self._outbox.append((_pack(words), future, self._loop.time()))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._patience(), self._bark)
        return future

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._watchdog:
            self._watchdog.cancel()
        self._fail_all("closing")
        self._up = False

    # -- one connection after another

    async def _run(self) -> None:
        pause = PAUSE_FIRST
        while True:
            connection = None
            try:
                pool = self._client.connection_pool
                async with asyncio.timeout(CONNECT_SECONDS + self._deadline):
                    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
                pause = PAUSE_FIRST
                self._broken = self._loop.create_future()
                # redis-py has connected, spoken TLS and authenticated; from here the bytes are ours. Through its own
                # reader and writer, which are coroutines, a command costs 15 us more.
                self._transport = connection._writer.transport  # noqa: SLF001 - there is no public way to it
                self._transport.set_protocol(_Replies(self._answered, self._broken))
                self._change(up=True, why="")
                self._flush()
                await self._broken
            except (RedisError, OSError, TimeoutError) as error:
                self._transport = None
                self._fail_all(str(error) or type(error).__name__)
                self._change(up=False, why=str(error) or type(error).__name__)
            finally:
                self._transport = None
                if connection is not None:
                    await connection.disconnect(nowait=True)
                    await self._client.connection_pool.release(connection)
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX)

    def _flush(self) -> None:
        """What this turn of the loop has asked, as one write."""
        self._scheduled = False
        if self._transport is None:
            return  # it goes out as soon as there is a connection
        batch, self._outbox = self._outbox, []
        going = []
        for packed, future, since in batch:
            if not future.done():
                going.append(packed)
                self._waiting.append((future, since))
        self._transport.write(b"".join(going))

    def _answered(self, reply: Any) -> None:
        future, _ = self._waiting.popleft()
        self._heard = self._loop.time()
        if future.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            future.set_exception(CommandRefused(str(reply)))
        else:
            future.set_result(reply)

    # -- deadlines

    def _patience(self) -> float:
        return self._deadline if self._up else self._deadline + CONNECT_SECONDS

    def _bark(self) -> None:
        """One timer for all. What waits too long is given up by itself; the connection only if it says nothing at all.

        A server that stalled for a moment will answer, and tearing the connection down costs everybody.
        """
        self._watchdog = None
        asked = [*self._waiting, *((future, since) for _, future, since in self._outbox)]
        waiting = [(future, since) for future, since in asked if not future.done()]
        if not asked:
            self._late = False
            return
        now = self._loop.time()
        left = waiting[0][1] + self._patience() - now if waiting else SECOND_LOOK_SECONDS
        silent = now - max(self._waiting[0][1], self._heard) if self._waiting else 0.0
        if silent > HANG_SECONDS and self._broken and not self._broken.done():
            self._broken.set_exception(TimeoutError(f"no reply within {HANG_SECONDS:g} s"))
            return
        if left > 0:
            self._late = False
        elif not self._late:
            # If it was this process that stalled, the replies are here already and only not read yet: look again when
            # the loop has been round.
            self._late = True
        else:
            for future, since in waiting:
                if since + self._patience() <= now:
                    late = StoreUnavailable(reason="no reply from redis in time", retry_after=1.0, sent=True)
                    future.set_exception(late)
        self._watchdog = self._loop.call_later(max(left, SECOND_LOOK_SECONDS), self._bark)

    def _fail_all(self, why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        outbox, self._outbox = self._outbox, []
        for future in (future for future, _ in waiting if not future.done()):
            future.set_exception(StoreUnavailable(reason=why, retry_after=1.0, sent=True))
        for future in (future for _, future, _ in outbox if not future.done()):
            future.set_exception(StoreUnavailable(reason=why, retry_after=1.0))

    def _change(self, *, up: bool, why: str) -> None:
        if self._up is not up:
            self._up = up
            self._on_change(up, why)


class _Replies(asyncio.Protocol):
    """Bytes to replies, by hiredis; in the order of the commands."""

    def __init__(self, answered: Callable[[Any], None], broken: asyncio.Future[None]) -> None:
        self._answered = answered
        self._broken = broken
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOTHING:
                self._answered(reply)
        except (hiredis.HiredisError, IndexError) as error:  # not RESP, or a reply to nothing
            self._break(f"nonsense from redis: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(str(exc) if exc else "the server closed the connection")

    def _break(self, why: str) -> None:
        if not self._broken.done():
            self._broken.set_exception(ConnectionError(why))


_NOTHING = object()


def _pack(words: tuple[Word, ...]) -> bytes:
    """Raises TypeError or ValueError for a word that cannot be sent: to its caller, and before anything is sent."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows tuples of one word only
    return packed
