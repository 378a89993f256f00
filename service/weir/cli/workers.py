"""gunicorn as the process manager for `--workers` above 1."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]
from prometheus_client.multiprocess import mark_process_dead

from weir.app import FLUSH_SECONDS
from weir.cli.server import MARGIN_SECONDS, serve_one
from weir.reload import Source
from weir.settings import BadSettings, Settings
from weir.telemetry.logs import configure, flush


class Gunicorn(BaseApplication):  # type: ignore[misc]
    """gunicorn configured from our settings; it has no file and no command line of its own here."""

    def __init__(
        self,
        settings: Settings,
        redis_url: str,
        sockets: Sequence[socket.socket],
        on_ready: Any,
        source: Source | None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.redis_url = redis_url
        self.sockets = sockets
        self.on_ready = on_ready
        super().__init__()

    def load_config(self) -> None:
        drain = self.settings.drain
        options = {
            "bind": [f"fd://{sock.detach()}" for sock in self.sockets],  # gunicorn closes them
            "workers": self.settings.server.workers,
            "worker_class": WeirWorker,
            # Its SIGKILL comes at exactly this time: later than ours, always.
            "graceful_timeout": int(
                drain.announce_seconds + drain.deadline_seconds + FLUSH_SECONDS + 2 * MARGIN_SECONDS
            ),
            "when_ready": lambda _: self.on_ready(),
            "child_exit": lambda _, worker: mark_process_dead(worker.pid),  # type: ignore[no-untyped-call]
            "errorlog": "-",
            "loglevel": "warning",
            "proc_name": "weir",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> None:
        """The worker builds the application itself, inside its event loop."""


class WeirWorker(Worker):  # type: ignore[misc]
    """One process of several: the same as the only one, plus a heartbeat."""

    app: Gunicorn

    def init_signals(self) -> None:
        """Ours are set inside the loop; until then, and for gunicorn's own, the default does."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGUSR1 else signal.SIG_IGN)

    def init_process(self) -> None:
        self.init_signals()
        configure(self.app.settings.telemetry.log_level)
        self.booted = True
        self.run()
        # Not by returning: this stack is a copy of the master's, and what it would close there is the master's.
        flush()
        os._exit(0)

    def run(self) -> None:
        settings, source = self.app.settings, self.app.source
        if source is not None:
            with contextlib.suppress(BadSettings):  # one that is started later begins with what is live by now
                settings = source.read()
        serve_one(
            settings,
            self.app.redis_url,
            [socket.socket(fileno=os.dup(listener.fileno())) for listener in self.sockets],
            self._beat,
            source,
        )

    def _beat(self) -> None:
        self.notify()
        loop = asyncio.get_running_loop()
        if os.getppid() != self.ppid:  # the master is gone: drain as if it had told us
            os.kill(os.getpid(), signal.SIGTERM)
            return
        loop.call_later(1.0, self._beat)


def serve_many(
    settings: Settings,
    redis_url: str,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None],
    source: Source | None = None,
) -> None:
    """Several processes under gunicorn, which restarts those that die; runs until all have drained."""
    Arbiter(Gunicorn(settings, redis_url, sockets, on_ready, source)).run()
