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

from weir.app import FLUSH_SECONDS, Application, application
from weir.cli.protocol import Protocol
from weir.core.asgi import App
from weir.reload import Source
from weir.settings import Settings

MARGIN_SECONDS = 10.0


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: stopping is ours. Looks after connections that ask nothing."""

    def __init__(self, config: uvicorn.Config, head_seconds: float) -> None:
        super().__init__(config)
        self._head_seconds = head_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, from uvicorn."""
        if not counter % 10:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                connection.look(now, self._head_seconds)  # type: ignore[union-attr]  # they are of our Protocol
        return await super().on_tick(counter)

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
        weir.telemetry.draining(weir.drain.in_flight)
        await weir.drain.run()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving)
        weir.telemetry.catch_up()
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
        ),
        settings.server.body_timeout_seconds,
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
