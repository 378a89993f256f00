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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from weir.app import FLUSH_SECONDS, Application, application
from weir.core.asgi import App
from weir.core.errors import BadRequest
from weir.gateway.head import new_request_id
from weir.gateway.replies import error_body
from weir.settings import Settings

MARGIN_SECONDS = 10.0


class Protocol(HttpToolsProtocol):
    """uvicorn's, but what is not HTTP is refused in our words, and a request can cut its connection."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # Closing waits until a client has read what is buffered, and the one to cut is the one that does not read.
        self.scope.setdefault("extensions", {})["weir.cut"] = self.transport.abort  # type: ignore[assignment]

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
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """One process, from start to the last settlement."""
    async with application(settings, redis_url) as weir:
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
    settings: Settings, redis_url: str, sockets: Sequence[socket.socket], on_ready: Callable[[], None]
) -> None:
    """One process on uvloop."""
    data, ops = sockets
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run(settings, redis_url, data, ops, on_ready))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return None
    return uvloop.new_event_loop
