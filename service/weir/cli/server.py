"""Runs the application: sockets, signals, uvicorn in one process, gunicorn around several.

Stopping is `gateway.drain`'s; the servers' own deadlines are longer than ours and never reached.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from weir.app import FLUSH_SECONDS, Application, application
from weir.core.asgi import App, Headers
from weir.core.errors import BadRequest
from weir.gateway.head import new_request_id
from weir.gateway.replies import LAST, error_body
from weir.gateway.wire import EXTENSION, Rest
from weir.reload import Source
from weir.settings import Settings

MARGIN_SECONDS = 10.0


class UvicornWire:
    """See `Wire`: writes what uvicorn's own `send` would, and keeps its books.

    uvicorn searches every header of an answer by two patterns, because an application may have written anything; ours
    are made of numbers, of checked ids and of what its own parser passed in an upstream's answer.
    """

    __slots__ = ("_chunked", "_cycle", "_flow", "_protocol", "_transport", "receive")

    def __init__(self, protocol: "Protocol", cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._transport = protocol.transport
        self._flow = protocol.flow
        self._chunked = False
        self.receive = cycle.receive

    def body(self) -> bytes | None:
        return None if self._cycle.more_body else bytes(self._cycle.body)

    def listen(self, gone: Callable[[], None] | None) -> None:
        protocol = self._protocol
        if gone is None:
            protocol.listening.pop(self, None)
            return
        protocol.listening[self] = gone
        protocol.flow.resume_reading()  # or nobody would see the end
        if protocol.lost:
            protocol.loop.call_soon(gone)

    def answer(self, status: int, headers: Headers, body: bytes) -> Rest:
        rest = self._write(self._head(status, headers, b"content-length: %d\r\n" % len(body)) + body)
        self._end()
        return rest

    def start(self, status: int, headers: Headers) -> Rest:
        # Whoever speaks HTTP/1.0 knows no chunks: for them the answer ends with the connection.
        self._chunked = self._cycle.scope["http_version"] != "1.0"
        head = self._head(status, headers, b"transfer-encoding: chunked\r\n" if self._chunked else b"")
        return self._write(head)

    def write(self, chunk: bytes, *, more: bool = True) -> Rest:
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
            if not more:
                chunk += b"0\r\n\r\n"
        if self._cycle.disconnected:
            return None
        self._transport.write(chunk)
        if not more:
            self._end()
        return self._flow.drain() if self._flow.write_paused else None

    def cut(self) -> None:
        # `close` would wait until the client has read what is buffered, and the one to cut is the one that does not.
        self._transport.abort()

    def _head(self, status: int, headers: Headers, framing: bytes) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        if LAST in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers = [*headers, LAST]
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        return b"".join((STATUS_LINE[status], *lines, framing, b"\r\n"))

    def _write(self, data: bytes) -> Rest:
        if self._cycle.disconnected:
            return None
        self._transport.write(data)
        return self._flow.drain() if self._flow.write_paused else None

    def _end(self) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class Protocol(HttpToolsProtocol):
    """uvicorn's, but what is not HTTP is refused in our words, and the request path gets a wire of its own."""

    lost = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.listening: dict[UvicornWire, Callable[[], None]] = {}  # who wants to hear that the client has left

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/") and self.parser.get_method() != b"OPTIONS":
            # What looks like another server's address is a path for one reader and a host for the next.
            raise ValueError("a request's target must be a path")
        super().on_headers_complete()
        self.scope["extensions"] = {EXTENSION: UvicornWire(self, self.cycle)}  # type: ignore[dict-item]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        super().connection_lost(exc)
        for gone in tuple(self.listening.values()):
            gone()

    def send_400_response(self, msg: str) -> None:
        error = BadRequest("The request is not valid HTTP/1.1.", reason=msg)
        body = error_body(error)
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {new_request_id()}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: stopping is ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(
    settings: Settings,
    redis_url: str,
    data: socket.socket,
    ops: socket.socket,
    on_ready: Callable[[], None],
    source: Source | None,
) -> None:
    """One process, from start to the last settlement."""
    async with application(settings, redis_url, source) as weir:
        servers = [_server(weir.public, settings), _server(weir.ops, settings)]
        serving = [
            asyncio.ensure_future(server.serve(sockets=[sock]))
            for server, sock in zip(servers, (data, ops), strict=True)
        ]
        _obey_signals(weir)
        while not all(server.started for server in servers):
            await asyncio.sleep(0.005)
        on_ready()
        await weir.stop.wait()
        weir.telemetry.note("draining", in_flight=weir.drain.in_flight)
        await weir.drain.run()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving)
        weir.telemetry.note("stopped", pid=os.getpid())


def _server(app: App, settings: Settings) -> Server:
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.server.keepalive_seconds,
            timeout_graceful_shutdown=int(FLUSH_SECONDS + MARGIN_SECONDS),
        )
    )


def _obey_signals(weir: Application) -> None:
    """Once: drain. Twice: now."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if weir.stop.is_set():
            weir.drain.hurry()
        weir.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def serve_one(
    settings: Settings,
    redis_url: str,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None],
    source: Source | None = None,
) -> None:
    """One process on uvloop. `source` is watched for changes."""
    data, ops = sockets
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run(settings, redis_url, data, ops, on_ready, source))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return None
    return uvloop.new_event_loop
