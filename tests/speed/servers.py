"""The processes of the benchmark: Redis, the fake upstream, and the gateways under test.

All listen on 127.0.0.1 on free ports, keep their files in one temporary directory, and are ended by their own pids.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Self

import psutil
from redis import Redis

from weir.store.embedded import bundled_server

ROOT = Path(__file__).parents[2]
START_DEADLINE = 30.0  # seconds
STOP_GRACE = 2.0  # seconds between SIGTERM and SIGKILL

# High enough that no limit refuses, low enough that every one of them is computed: key and team, three limits each.
LIMITS = ("--rpm", "10000000", "--tpm", "100000000", "--concurrency", "100000")

NGINX_CONF = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
{user}
pid {home}/nginx.pid;
error_log {home}/error.log error;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  client_body_buffer_size 64k;
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  upstream inference {{
    server 127.0.0.1:{upstream};
    keepalive 256;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://inference;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""

WEIR_CONFIG = """
models: [{{name: bench, backend: openai, upstream_model: bench, endpoints: [{{url: "http://127.0.0.1:{upstream}/v1"}}]}}]
"""


# Weir with ever more to be seen of it: what is switched off is counted, and the difference is its price.
OFF = {"WEIR_TELEMETRY__METRICS": "false", "WEIR_TELEMETRY__LOG_LEVEL": "warning"}
SEEN: dict[str, dict[str, str]] = {
    "weir, nothing seen": OFF,
    "+ metrics": {"WEIR_TELEMETRY__LOG_LEVEL": "warning"},
    "+ log lines": {},
    "+ traces, 1 %": {"WEIR_TELEMETRY__TRACE_SAMPLE": "0.01"},
    "+ traces, 100 %": {"WEIR_TELEMETRY__TRACE_SAMPLE": "1"},
}


class NotAvailable(Exception):
    """A server cannot be started here; the message says why."""


@dataclass(frozen=True)
class Server:
    """A running server. `start_seconds` is from fork to the first good answer on its health path."""

    name: str
    port: int
    process: psutil.Process
    start_seconds: float
    log: Path
    key: str = "none"

    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """User and system time of the whole process tree so far; the kernel counts it in steps of 10 ms."""
        return sum(times.user + times.system for times in (process.cpu_times() for process in self.tree()))

    def rss_bytes(self) -> int:
        """Resident memory of the whole tree; what its processes share is counted in each."""
        return sum(process.memory_info().rss for process in self.tree())

    def said(self) -> str:
        """The end of what it wrote on stderr."""
        return last_words(self.log.read_text(errors="replace"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int, path: str) -> bool:
    """One GET; True if the status is 200."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in connection.recv(64)
    return False


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Rig:
    """Starts servers and ends every one of them at the end of the `with` block."""

    def __init__(self, home: Path, python: str = sys.executable) -> None:
        self.home = home
        self._python = python
        self._exit = ExitStack()
        self._compiled: set[str] = set()
        self._collector: Server | None = None

    def __enter__(self) -> Self:
        with self._exit:
            self.redis = self._start_redis()
            self.upstream = self._start("upstream", (sys.executable, "-m", "tests.speed.upstream", "--port", "{port}"))
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    def start(self, name: str) -> Server:
        """Start the gateway called `name`; raises NotAvailable if that cannot be.

        The very first start compiles byte code, which takes time and leaves memory behind: it is thrown away.
        """
        starts = {"nginx": self._start_nginx, "weir": self._start_weir, "plain": self._start_plain}
        start = starts[name] if name in starts else partial(self._start_seen, name)
        if name not in self._compiled:
            self.stop(start())
            self._compiled.add(name)
        return start()

    def stop(self, server: Server) -> None:
        """End a server before the end of the block."""
        _end(server.process)

    def _start_redis(self) -> Server:
        binary = shutil.which("redis-server") or str(bundled_server())
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.home))
        return self._start("redis", (binary, "--port", "{port}", *options))

    def _start_nginx(self) -> Server:
        binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if not binary:
            raise NotAvailable("nginx is not installed (Debian: apt-get install nginx-light)")
        port = free_port()
        home = self.home / f"nginx-{port}"
        home.mkdir()
        conf = NGINX_CONF.format(
            home=home,
            port=port,
            upstream=self.upstream.port,
            files=16384,
            connections=8192,
            user="user root;" if os.geteuid() == 0 else "",
        )
        (home / "nginx.conf").write_text(conf)
        return self._start("nginx", (binary, "-p", str(home), "-c", "nginx.conf", "-e", "error.log"), port=port)

    def _start_plain(self) -> Server:
        key = "sk-plain-0123456789abcdef"
        with Redis.from_url(self.redis_url) as redis:
            redis.set(f"plain:key:{hashlib.sha256(key.encode()).hexdigest()}", 10_000_000)
        environment = {"PLAIN_UPSTREAM": f"http://127.0.0.1:{self.upstream.port}/v1", "PLAIN_REDIS": self.redis_url}
        uvicorn = (
            "tests.speed.plain_gateway:app",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
            "--no-access-log",
            "--log-level",
            "warning",
        )
        command = (self._python, "-m", "uvicorn", *uvicorn, "--loop", "uvloop", "--http", "httptools")
        return self._start(
            "plain", command, environment=environment, ready=lambda port: answers(port, "/health"), key=key
        )

    def _start_seen(self, name: str) -> Server:
        """Weir as SEEN says, with a collector if that wants one."""
        environment = SEEN[name]
        if "WEIR_TELEMETRY__TRACE_SAMPLE" in environment:
            if self._collector is None:
                command = (sys.executable, "-m", "tests.speed.collector", "--port", "{port}")
                self._collector = self._start("collector", command)
            environment = environment | {"WEIR_TELEMETRY__OTLP_ENDPOINT": f"http://127.0.0.1:{self._collector.port}"}
        return self._start_weir(name, environment)

    def _start_weir(self, name: str = "weir", environment: dict[str, str] | None = None) -> Server:
        config = self.home / "weir.yaml"
        config.write_text(WEIR_CONFIG.format(upstream=self.upstream.port))
        ops_port = free_port()
        options = ("--config", str(config), "--host", "127.0.0.1", "--port", "{port}", "--ops-port", str(ops_port))
        command = (*self._weir("serve"), *options, "--redis-url", self.redis_url)
        return self._start(
            name,
            command,
            environment=environment,
            ready=lambda _: answers(ops_port, "/readyz"),
            key=self._weir_key(),
            piped=True,
        )

    def _weir_key(self) -> str:
        """The bench key, made at the first call, with its team."""
        kept = self.home / "weir.key"
        if not kept.exists():
            self._weir_command("teams", "create", "bench", *LIMITS)
            kept.write_text(
                json.loads(self._weir_command("keys", "create", "--team", "bench", *LIMITS, "--json"))["key"]
            )
        return kept.read_text()

    def _weir_command(self, *words: str) -> str:
        command = (*self._weir(*words), "--redis-url", self.redis_url)
        done = subprocess.run(
            command, cwd=self.home, capture_output=True, text=True, timeout=60, check=False, env=self._environment()
        )
        if done.returncode:
            raise NotAvailable(f"`weir {' '.join(words)}` exits with {done.returncode}: {last_words(done.stderr)}")
        return done.stdout

    def _weir(self, *words: str) -> tuple[str, ...]:
        return (self._python, str(Path(sys.executable).with_name("weir")), *words)

    def _environment(self) -> dict[str, str]:
        """The shell's, without its PYTHON* settings: they change what is measured.

        Byte code is kept for the run, as an image would have it. Another interpreter than ours is shown where our
        packages are, after what the shell's PYTHONPATH names.
        """
        paths = [str(ROOT)]
        if self._python != sys.executable:
            shell = filter(None, [os.environ.get("PYTHONPATH")])
            paths = [*shell, str(ROOT), str(ROOT / "service"), sysconfig.get_path("purelib")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return kept | {"PYTHONPATH": ":".join(paths), "PYTHONPYCACHEPREFIX": str(self.home / "bytecode")}

    def _start(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int = 0,
        environment: dict[str, str] | None = None,
        ready: Callable[[int], bool] = listens,
        key: str = "none",
        piped: bool = False,
    ) -> Server:
        """Run `command` and wait until `ready(port)`.

        Output goes to a file; `piped` sends stdout through a pipe into `cat`, as a container engine would take it.
        """
        port = port or free_port()
        log = self.home / f"{name}-{port}.log"
        with log.open("wb") as output:
            begun = perf_counter()
            process = subprocess.Popen(
                [word.replace("{port}", str(port)) for word in command],
                cwd=self.home,
                env=self._environment() | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
            )
            self._exit.callback(_end, psutil.Process(process.pid))
            if process.stdout:
                with Path(os.devnull).open("wb") as nowhere:
                    subprocess.Popen(["cat"], stdin=process.stdout, stdout=nowhere)
                process.stdout.close()
        while not ready(port):
            if process.poll() is not None:
                raise NotAvailable(
                    f"{name} exits with {process.returncode}: {last_words(log.read_text(errors='replace'))}"
                )
            if perf_counter() - begun > START_DEADLINE:
                raise NotAvailable(f"{name} is not ready after {START_DEADLINE:.0f} s: {last_words(log.read_text())}")
            sleep(0.005)
        return Server(name, port, psutil.Process(process.pid), perf_counter() - begun, log, key)


def last_words(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])[-500:] or "nothing"


def _end(process: psutil.Process) -> None:
    """SIGTERM to the parent, then, after a moment, SIGKILL to what is left of its tree."""
    with suppress(psutil.NoSuchProcess):
        tree = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(tree, timeout=STOP_GRACE)
        for survivor in left:
            with suppress(psutil.NoSuchProcess):
                survivor.kill()
        psutil.wait_procs(left, timeout=STOP_GRACE)


def main() -> None:
    """Start one gateway with what it needs, say where everything is, and wait: for a profiler, for a load by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.servers", description=main.__doc__)
    parser.add_argument("gateway", nargs="?", default="weir", choices=["nginx", "weir", "plain"])
    name = parser.parse_args().gateway
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="weir-speed-") as home, Rig(Path(home)) as rig:
        server = rig.start(name)
        print(f"{name}: pid {server.process.pid}, port {server.port}, ready after {server.start_seconds:.2f} s")
        for other in (rig.redis, rig.upstream):
            print(f"{other.name}: pid {other.process.pid}, port {other.port}")
        print(f"files: {home}")
        for load in ("single --connections 32", "stream --connections 100"):
            print(f"{sys.executable} -m tests.speed.load {load} --seconds 30 --port {server.port} --key {server.key}")
        print("Ctrl-C ends them all.", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
