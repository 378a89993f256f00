"""Redis without waiting in line: what one turn of the event loop asks goes out as one pipeline, on one connection.

redis-py makes, authenticates and tears down the connection; replies come back in order. Hard deadlines,
a bounded queue, and while the server is away an answer at once instead of a queue that grows. A server that answers and
cannot serve us (a replica, one that is loading, one that forbids what we need) is as away as one that is gone.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import AskError, AuthenticationError, NoScriptError, RedisError, ResponseError

from weir.core.commands import CommandRefused, Word
from weir.core.errors import StoreUnavailable
from weir.core.outbox import outbox_of
from weir.store.connect import COMMAND_SECONDS, CONNECT_SECONDS
from weir.store.refusals import CANNOT_SERVE, FORBIDDEN, NOT_SERVED, kind_of, reason_of, user_of

PENDING_MAX = 20_000
SECOND_LOOK_SECONDS = 0.02
HANG_SECONDS = 1.0  # without any reply; then the connection is taken for dead
PAUSE_FIRST, PAUSE_MAX = 0.1, 2.0  # seconds between attempts to connect
SLOW_SECONDS = 1.0  # of nothing but replies that come too late; then nobody is made to wait for one any more
KNOCK_SECONDS = 0.25  # between looks whether they come in time again
STEADY_SECONDS = 10.0  # a server that refuses us sooner than that is asked again after ever longer pauses

# Asked of each new connection: is this a master, does it write, may we run scripts? Nothing of it leaves a trace.
PROBE = (("ROLE",), ("DEL", "weir:probe"), ("EVALSHA", "0" * 40, 1, "weir:probe"))
ASKING: bytes = hiredis.pack_command(("ASKING",))


class CannotServe(Exception):
    """The server answers, and what it says is that it cannot serve us."""


class Waiting(NamedTuple):
    """A command on its way. `hops`: how often it was sent elsewhere; `asking`: it follows an ASK of a cluster."""

    future: asyncio.Future[Any]
    since: float
    packed: bytes
    hops: int = 0
    asking: bool = False


class Batcher:
    """See `Commands`. `on_change` hears of every change of state, once: (up, why). `on_batch` hears how many commands
    went out as one write, `on_reply` how many seconds the first reply took, of those with nothing else on its way.

    `owns`: closing it closes the client too. `elsewhere` is for the nodes of a cluster: it is shown every error reply
    first, and returns True where it has taken the command over.
    """

    def __init__(
        self,
        client: "Redis",
        *,
        command_seconds: float = COMMAND_SECONDS,
        on_change: Callable[[bool, str], None] = lambda _up, _why: None,
        on_batch: Callable[[int], None] = lambda _commands: None,
        on_reply: Callable[[float], None] = lambda _seconds: None,
        owns: bool = False,
        elsewhere: Callable[[str, Waiting], bool] | None = None,
    ) -> None:
        self._client = client
        self._deadline = command_seconds
        self._on_change = on_change
        self._on_batch = on_batch
        self._on_reply = on_reply
        self._asked: float | None = None  # when a batch went out that waits for its first reply
        self._owns = owns
        self._elsewhere = elsewhere
        self._loop = asyncio.get_running_loop()
        pool = client.connection_pool
        connect_seconds = pool.connection_kwargs.get("socket_connect_timeout") or CONNECT_SECONDS
        self._connecting = connect_seconds + command_seconds
        if isinstance(pool, SentinelConnectionPool):
            self._connecting += connect_seconds  # they are asked first
        self._user = user_of(client)
        self._outbox: list[Waiting] = []
        self._waiting: deque[Waiting] = deque()
        self._nobody = self._loop.create_future()  # waits for replies that are for nobody
        self._nobody.set_result(None)
        self._scheduled = False
        self._turn = outbox_of(self._loop)
        self._transport: asyncio.WriteTransport | None = None
        self._up: bool | None = None  # None: not tried yet
        self._why = ""
        self._late = False
        self._slow = False  # the breaker: open while replies come too late
        self._missed_since: float | None = None  # since when no reply has come in time
        self._heard = 0.0  # when the last reply came, or the first question after it was asked
        self._watchdog: asyncio.TimerHandle | None = None
        self._look_at = 0.0  # when it is due
        self._broken: asyncio.Future[None] | None = None
        self._task = self._loop.create_task(self._run(), name="weir redis")

    @property
    def up(self) -> bool:
        return self._up is True

    @property
    def why(self) -> str:
        """Why it is not up, as of the last attempt."""
        return self._why

    @property
    def tried(self) -> bool:
        """`up` means something: the first attempt to connect is over."""
        return self._up is not None

    def call(self, *words: Word) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        # A named tuple by its fields' names costs three times as much.
        self.take_over(_new_tuple(Waiting, (future, self._loop.time(), _pack(words), 0, False)))
        return future

    def take_over(self, waiting: Waiting) -> None:
        """Send a command that may have been elsewhere before; its future hears how it went."""
        if self._up is False or len(self._waiting) + len(self._outbox) >= PENDING_MAX:
            if not waiting.future.done():
                waiting.future.set_exception(StoreUnavailable(reason=f"redis is away: {self._why}", retry_after=1.0))
            return
        self._outbox.append(waiting)
        if not self._scheduled:
            self._scheduled = True
            self._turn.at_end(self._flush)
        if self._watchdog is None:
            self._watch(self._patience())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._watchdog:
            self._watchdog.cancel()
        self._fail_all("closing")
        self._up, self._why = False, "closing"
        if self._owns:
            await self._client.aclose()

    # -- one connection after another

    async def _run(self) -> None:
        pause = PAUSE_FIRST
        while True:
            connection = transport = None
            since: float | None = None
            try:
                pool = self._client.connection_pool
                async with asyncio.timeout(self._connecting):
                    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
                    await self._probe(connection)
                since = self._loop.time()
                self._broken = self._loop.create_future()
                # redis-py has connected, spoken TLS and authenticated; from here the bytes are ours. Through its own
                # reader and writer, which are coroutines, a command costs 15 us more.
                transport = self._transport = connection._writer.transport  # noqa: SLF001 - there is no public way
                transport.set_protocol(_Replies(self._answered, self._broken))
                self._slow, self._missed_since, self._asked = False, None, None
                self._change(up=True, why="")
                self._flush()
                await self._broken
            except (RedisError, OSError, TimeoutError, CannotServe) as error:
                self._transport = None
                if transport is not None:
                    transport.abort()  # what is still to be written will be read by nobody
                why = self._reason(error)
                self._fail_all(why)
                self._change(up=False, why=why)
                refused = isinstance(error, CannotServe)
                if since is not None and not (refused and self._loop.time() - since < STEADY_SECONDS):
                    pause = PAUSE_FIRST
            finally:
                self._transport = None
                if connection is not None:
                    await connection.disconnect(nowait=True)
                    await self._client.connection_pool.release(connection)
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX)

    async def _probe(self, connection: AbstractConnection) -> None:
        """Raises CannotServe, or redis-py's error that says why not."""
        await connection.send_packed_command(connection.pack_commands(PROBE))
        for words in PROBE:
            try:
                reply = await connection.read_response()
            except NoScriptError:
                continue  # so we may run scripts
            except AskError as error:  # which MOVED is too
                if self._elsewhere is None:
                    raise CannotServe("this is a node of a cluster: its URL begins with redis+cluster://") from error
            except (ResponseError, AuthenticationError) as error:
                kind = getattr(error, "status_code", None) or str(error).partition(" ")[0]
                if kind == "TRYAGAIN" or (kind == "CLUSTERDOWN" and NOT_SERVED in str(error)):
                    continue  # about one slot, not about this node
                if words[0] == "ROLE" and kind in {"ERR", "NOPERM"}:
                    continue  # a proxy, or a user that may not ask: whether it writes will be seen
                raise
            else:
                if words[0] == "ROLE" and isinstance(reply, list) and reply and reply[0] != b"master":
                    raise CannotServe("READONLY this server is a replica")

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError) and not str(error):
            return f"no connection within {self._connecting:g} s"
        return reason_of(error, self._user)

    def _flush(self) -> None:
        """What this turn of the loop has asked, as one write."""
        self._scheduled = False
        if self._transport is None:
            return  # it goes out as soon as there is a connection
        if not self._waiting:
            self._heard = self._loop.time()  # silence begins with the question
            self._asked = perf_counter()  # uvloop's own clock counts milliseconds
        batch, self._outbox = self._outbox, []
        going = []
        for waiting in batch:
            if not waiting.future.done():
                if waiting.asking:
                    going.append(ASKING)
                    self._waiting.append(waiting._replace(future=self._nobody))
                going.append(waiting.packed)
                self._waiting.append(waiting)
        if going:
            self._transport.write(b"".join(going))
            self._on_batch(len(going))

    def _answered(self, reply: Any) -> None:
        waiting = self._waiting.popleft()
        self._heard = self._loop.time()
        if self._asked is not None:
            self._on_reply(perf_counter() - self._asked)
            self._asked = None
        if isinstance(reply, hiredis.ReplyError):
            self._refused(str(reply), waiting)
        elif not waiting.future.done():
            waiting.future.set_result(reply)
            self._turn.woken()
            self._missed_since = None

    def _refused(self, text: str, waiting: Waiting) -> None:
        if self._elsewhere is not None and self._elsewhere(text, waiting):
            return
        error: Exception = CommandRefused(text)
        if (kind := kind_of(text)) in CANNOT_SERVE:
            why = f"redis refuses user '{self._user}': {text}" if kind in FORBIDDEN else text
            error = StoreUnavailable(reason=why, retry_after=1.0)
            if self._broken is not None and not self._broken.done():
                self._broken.set_exception(CannotServe(why))
            self._transport = None  # nothing more goes there
            self._change(up=False, why=why)
        if not waiting.future.done():
            waiting.future.set_exception(error)

    # -- deadlines

    def _patience(self) -> float:
        return self._deadline if self._up else self._deadline + CONNECT_SECONDS

    def _bark(self) -> None:
        """One timer for all. What waits too long is given up by itself; the connection only if it says nothing at all.

        A server that stalled for a moment will answer, and tearing the connection down costs everybody.
        """
        self._watchdog = None
        asked = [*self._waiting, *self._outbox]
        waiting = [one for one in asked if not one.future.done()]
        if not asked:
            self._late = False
            return
        now = self._loop.time()
        left = waiting[0].since + self._patience() - now if waiting else SECOND_LOOK_SECONDS
        silent = now - self._heard if self._waiting else 0.0
        # If it was this process that stalled, the replies are here already and only not read yet: look again when the
        # loop has been round. It may stall twice, before the question goes out and behind that.
        stalled = now - self._look_at > SECOND_LOOK_SECONDS
        if silent > HANG_SECONDS and not stalled and self._broken and not self._broken.done():
            self._broken.set_exception(TimeoutError(f"no reply within {HANG_SECONDS:g} s"))
            return
        if left > 0:
            self._late = False
        elif stalled or not self._late:
            self._late = True
        else:
            for one in waiting:
                if one.since + self._patience() <= now:
                    late = StoreUnavailable(reason="no reply from redis in time", retry_after=1.0, sent=True)
                    one.future.set_exception(late)
            self._missed(now)
        self._watch(max(left, SECOND_LOOK_SECONDS))

    def _watch(self, seconds: float) -> None:
        self._look_at = self._loop.time() + seconds
        self._watchdog = self._loop.call_later(seconds, self._bark)

    def _missed(self, now: float) -> None:
        """Replies come, and too late. After a while of that everybody is told at once, and one look after the other
        finds out when it is over.
        """
        if self._missed_since is None:
            self._missed_since = now
        elif now - self._missed_since > SLOW_SECONDS and self._up and self._transport is not None:
            self._slow = True
            self._change(up=False, why=f"replies take longer than {self._deadline:g} s")
            self._loop.call_later(KNOCK_SECONDS, self._knock)

    def _knock(self) -> None:
        if not self._slow or self._transport is None:
            return  # a new connection is asked anew
        now = self._loop.time()
        knock = self._loop.create_future()
        knock.add_done_callback(lambda done: self._opened(done, now))
        self._outbox.append(Waiting(knock, now, _pack(("PING",))))
        self._flush()
        if self._watchdog is None:
            self._watch(self._patience())

    def _opened(self, knock: asyncio.Future[Any], since: float) -> None:
        failed = knock.cancelled() or knock.exception() is not None
        if not self._slow or self._transport is None:
            return
        if failed or self._loop.time() - since > self._deadline:
            self._loop.call_later(KNOCK_SECONDS, self._knock)
        else:
            self._slow, self._missed_since = False, None
            self._change(up=True, why="")

    def _fail_all(self, why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        outbox, self._outbox = self._outbox, []
        for one in waiting:
            if not one.future.done():
                one.future.set_exception(StoreUnavailable(reason=why, retry_after=1.0, sent=True))
        for one in outbox:
            if not one.future.done():
                one.future.set_exception(StoreUnavailable(reason=why, retry_after=1.0))

    def _change(self, *, up: bool, why: str) -> None:
        self._why = why
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
        if self._broken.done():
            return  # TLS may have some left when the next connection is there already
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
_new_tuple = tuple.__new__


def _pack(words: tuple[Word, ...]) -> bytes:
    """Raises TypeError or ValueError for a word that cannot be sent: to its caller, and before anything is sent."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows tuples of one word only
    return packed
