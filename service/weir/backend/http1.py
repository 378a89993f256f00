"""A small HTTP/1.1 client (RFC 9112) for the one thing that the request path needs: ask, and read as it comes.

Ours and not a library's, because it is half of the relay: a request through aiohttp costs 105 us, through this 25 (see
decision 8). httptools, uvicorn's own C parser, reads the answers. No redirects, no cookies, no compression, no retries.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools

from weir.backend.backend import Sink
from weir.core.asgi import Headers
from weir.core.outbox import outbox_of

HEAD_MAX = 64 * 1024  # bytes of an answer's head
HIGH_WATER = 256 * 1024  # bytes of an answer that wait for the client; above it nothing more is read
SMALL = 2048  # bytes of a chunk below which its head is known
CHUNK_HEADS = tuple(b"%x\r\n" % size for size in range(SMALL))


class Broken(Exception):
    """The connection ended, or what came is not HTTP; before or in the middle of an answer."""


class Origin(NamedTuple):
    """Where connections go."""

    host: str
    port: int
    tls: bool


def origin_of(url: str) -> Origin:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Origin(parts.hostname or "", parts.port or (443 if tls else 80), tls)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outbox = outbox_of(loop)
        self._parser: Any = httptools.HttpResponseParser(self)  # untyped C
        self._waiter: asyncio.Future[None] | None = None
        self._error: str | None = None  # why the connection is no more
        self._fault: Exception | None = None  # what the sink raised
        self._sink: Sink | None = None
        self._rest: Awaitable[None] | None = None  # what the sink still has to do
        self._paused = False
        self._body: list[bytes] = []
        self.transport: asyncio.Transport
        self.idle_since = 0.0
        self.reused = False
        self._reset()
        self._complete = True

    def _reset(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.reusable = False
        self.begun = False  # something of an answer has come, be it HTTP or not
        self._complete = False
        self._framed = False  # the head says where the body ends
        self._chunk_ended = False
        self._between = False  # two chunks: nothing is begun that the parser would have to see the end of
        self._head_size = 0
        self._size = 0
        self._body.clear()

    # -- what the backend does

    async def request(self, message: bytes, data: Sequence[bytes | memoryview] = ()) -> None:
        """Send a whole request, `data` behind `message`, and wait for the head of its answer. Raises Broken."""
        self._reset()
        if data:
            self.transport.writelines([message, *data])
        else:
            self._outbox.write(self.transport, message)
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """What has come since, b"" at the end. Raises Broken."""
        while not self._body:
            if self._complete:
                return b""
            await self._wait()
        chunk = self._gathered()
        if self._paused:
            self._paused = False
            self._resume()
        return chunk

    async def pump(self, sink: Sink) -> None:
        """Hand every piece to `sink` from where it arrives: no task is woken for a chunk.

        Raises Broken, and what `sink` raises.
        """
        self._sink = sink
        try:
            if self._paused:  # more came with the head than anybody wanted to hold
                self._paused = False
                self._resume()
            if self._body:
                self._pour()
            while True:
                self._raise_fault()
                if self._rest is not None:
                    # The client is slow: upstream waits until it has taken what there is.
                    await self._rest
                    self._rest = None
                    self._resume()
                    if self._body:
                        self._pour()
                elif self._complete:
                    return
                else:
                    await self._wait()
        finally:
            self._sink = self._rest = None

    @property
    def open(self) -> bool:
        """It can serve. What a sink raised concerns its own request, and nobody may inherit it."""
        return self._error is None and self._fault is None and not self.transport.is_closing()

    @property
    def complete(self) -> bool:
        """The answer is read to its end, so the connection may be used again if `reusable`."""
        return self._complete and not self._body

    def abort(self) -> None:
        """Cut it now: the model on the other side stops."""
        self.transport.abort()

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _gathered(self) -> bytes:
        body = self._body
        chunk = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._size = 0
        return chunk

    def _pour(self) -> None:
        """What has come goes to the sink. Not while that is still at work on what came before."""
        try:
            self._rest = self._sink(self._gathered())  # type: ignore[misc]  # there is one: nobody calls this without
        except Exception as fault:  # noqa: BLE001 - a transport would swallow it; `pump` raises it
            self._fault = fault
        if self._rest is not None or self._fault is not None:
            self._held_up()

    def _held_up(self) -> None:
        """By a client that reads slowly, or by a fault: `pump` sees to it."""
        if self._rest is not None:
            self.transport.pause_reading()
        self._wake()

    async def _wait(self) -> None:
        if self._error is not None:
            raise Broken(self._error)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
            self._outbox.woken()

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # create_connection gives a Transport

    def data_received(self, data: bytes) -> None:
        if self._between and (sink := self._sink) is not None and self._rest is None and not self._body:
            # Nearly always it is one whole chunk, written as this is: then there is nothing to parse.
            at = data.find(b"\r\n", 0, 8)
            size = len(data) - at - 4
            if 0 < size < SMALL and data.startswith(CHUNK_HEADS[size]) and data.endswith(b"\r\n"):
                try:
                    self._rest = sink(data[at + 2 : -2], data)
                except Exception as fault:  # noqa: BLE001 - as in `_pour`
                    self._fault = fault
                if self._rest is not None or self._fault is not None:
                    self._held_up()
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._complete:
            self._break("data that nobody asked for")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"not HTTP: {error}")
            return
        self._between = self._chunk_ended and not self._complete and data.endswith(b"\r\n")
        if self._sink is None:
            self._wake()
            if self._size > HIGH_WATER and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            return
        if self._body and self._rest is None:
            self._pour()
        if self.complete:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        # A body without a length ends with the connection; any other is cut.
        if self.status and not self._framed and exc is None:
            self._complete = True
        self._error = self._error or (str(exc) if exc else "the connection was closed")
        self._wake()
        self._parser = None  # it holds our methods, and so us: a circle that only the collector would find

    def _break(self, why: str) -> None:
        self._error = why
        self.begun = True
        self.reusable = False
        self.transport.abort()
        self._wake()

    # -- what the parser says

    def on_message_begin(self) -> None:
        self.begun = True
        if self._complete:  # a second answer to one request: nobody's
            self.reusable = False
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        self._head_size += len(name) + len(value)
        if self._head_size > HEAD_MAX:
            raise ValueError("the answer's head is too large")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is yet to come
            self.headers.clear()
            return
        self.status = status
        self._framed = status in (204, 304) or any(
            name in (b"content-length", b"transfer-encoding") for name, _ in self.headers
        )

    def on_chunk_header(self) -> None:
        self._chunk_ended = False

    def on_chunk_complete(self) -> None:
        self._chunk_ended = True

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._body.append(data)
            self._size += len(data)

    def on_message_complete(self) -> None:
        if self.status and not self._complete:
            self._complete = True
            self.reusable = self._framed and self._parser.should_keep_alive()


class Pool:
    """Connections to one origin, the most recently used first. Unbounded: admission bounds what is in flight."""

    def __init__(self, origin: Origin, *, idle_seconds: float) -> None:
        self._origin = origin
        self._idle_seconds = idle_seconds
        self._idle: list[Connection] = []
        self._loop = asyncio.get_running_loop()
        self._tls = ssl.create_default_context() if origin.tls else None

    async def acquire(self, connect_seconds: float) -> Connection:
        """An open connection. Raises OSError where nobody is there, TimeoutError after `connect_seconds`."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open and self._loop.time() - connection.idle_since < self._idle_seconds:
                return connection
            connection.abort()
        return await self.connect(connect_seconds)

    async def connect(
        self, connect_seconds: float, make: Callable[[asyncio.AbstractEventLoop], Connection] = Connection
    ) -> Connection:
        """A new one. Raises as `acquire` does."""
        loop = self._loop
        async with asyncio.timeout(connect_seconds):
            _, made = await loop.create_connection(
                lambda: make(loop), self._origin.host, self._origin.port, ssl=self._tls
            )
        return made

    def release(self, connection: Connection) -> None:
        """Done with it: kept if it can serve again, cut if its answer was not read to the end."""
        if not (connection.complete and connection.reusable and connection.open):
            connection.abort()
            return
        connection.reused = True
        now = connection.idle_since = self._loop.time()
        idle = self._idle
        # The oldest lie at the front: whatever is out of date goes here, so that no timer is needed.
        while idle and now - idle[0].idle_since > self._idle_seconds:
            idle.pop(0).abort()
        idle.append(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
