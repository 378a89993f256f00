"""A rollout that nobody notices: three replicas behind a real nginx, each in turn told to stop and started again.

Meanwhile 200 clients hold a stream, and others ask short questions on kept connections. The balancer knows nothing of
health but what it meets: a connection that is refused, and the 503 of a replica that drains.
"""

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.soak.client import Connection, CutShortError
from tests.system.harness import (
    Admin,
    Key,
    Process,
    Weir,
    answers_200,
    clean_environment,
    configuration,
    eventually,
    free_port,
)

REPLICAS = 3
STREAMS = 200
WORDS = 20  # of a stream, and 0.4 s between them: 8 s, longer than a replica's announcement and its restart
SHORT_CLIENTS = 10
PAUSE = 0.08  # of a client between two short requests: some 100 a second from all of them
ANNOUNCE = 1.5

NGINX = """
daemon off;
worker_processes 1;
{user}
pid {home}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  keepalive_requests 1000000;
  upstream weir {{
    {servers}
    keepalive 64;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location = /nginx {{ return 200; }}
    location / {{
      proxy_pass http://weir;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 60s;
      # A 503 of Weir that drains was given before anything was done, and so may be asked elsewhere. An error before
      # the head of an answer may have been a request that was being served: asked twice is better than not answered.
      proxy_next_upstream error timeout http_503 non_idempotent;
      proxy_next_upstream_tries {replicas};
    }}
  }}
}}
"""


@pytest.fixture
def replicas(redis_url: str) -> Iterator[list[Weir]]:
    models = [{"name": "echo", "backend": "echo"}, {"name": "slow", "backend": "echo", "echo": {"delay_ms": 400}}]
    config = configuration(redis_url, models, drain={"announce_seconds": ANNOUNCE, "deadline_seconds": 30})
    with ExitStack() as stack:
        started = [stack.enter_context(Weir(config)) for _ in range(REPLICAS)]
        yield started
        for weir in started:
            weir.process.send(signal.SIGTERM)  # all announce their end in the same seconds


@pytest.fixture
def balancer(replicas: list[Weir], tmp_path: Path) -> Iterator[int]:
    """The port of an nginx in front of them."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    port = free_port()
    servers = "\n    ".join(f"server 127.0.0.1:{weir.port} max_fails=1 fail_timeout=1s;" for weir in replicas)
    user = "user root;" if os.geteuid() == 0 else ""
    conf = NGINX.format(home=tmp_path, servers=servers, port=port, user=user, replicas=REPLICAS)
    (tmp_path / "nginx.conf").write_text(conf)
    process = Process(program, "-p", tmp_path, "-c", "nginx.conf", "-e", "stderr", env=clean_environment())
    process.wait_ready(lambda: answers_200(f"http://127.0.0.1:{port}/nginx"))
    yield port
    process.stop()


class Clients:
    """All of them, until told to stop; each failure is a sentence."""

    def __init__(self, port: int, key: Key) -> None:
        self._port = port
        self._key = key
        self._stopping = False
        self.failures: list[str] = []
        self.counts: Counter[str] = Counter()
        self.streaming = 0

    async def run(self, meanwhile: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                group.create_task(self._stream(number))
            for _ in range(SHORT_CLIENTS):
                group.create_task(self._ask())
            try:
                await asyncio.to_thread(meanwhile)
            finally:
                self._stopping = True

    async def _stream(self, number: int) -> None:
        said = " ".join(f"s{number}w{i}" for i in range(WORDS))
        await asyncio.sleep(number / STREAMS * 2)  # not all in one moment
        while not self._stopping:
            async with Connection(self._port, self._key.secret) as connection:
                self.streaming += 1
                try:
                    answer = await connection.chat("slow", said, stream=True)
                except (CutShortError, OSError) as error:
                    self.failures.append(f"a stream was cut: {error!r} {error.__cause__!r}")
                    continue
                finally:
                    self.streaming -= 1
            self.counts["streams"] += 1
            if answer.status != 200:
                self.failures.append(f"a stream was refused: {answer.status} {answer.body!r}")
            elif not answer.done or answer.text != said:
                self.failures.append(f"a stream is not whole: {answer.body[-300:]!r}")

    async def _ask(self) -> None:
        async with Connection(self._port, self._key.secret) as connection:
            while not self._stopping:
                await asyncio.sleep(PAUSE)
                try:
                    answer = await connection.chat("echo", "hello there")
                except (CutShortError, OSError) as error:
                    self.failures.append(f"a request was cut: {error!r} {error.__cause__!r}")
                    continue
                self.counts["requests"] += 1
                if answer.status != 200 or answer.json()["choices"][0]["message"]["content"] != "hello there":
                    self.failures.append(f"a request failed: {answer.status} {answer.body!r}")


@pytest.mark.timeout(180)
def test_a_rollout_drops_nothing(
    replicas: list[Weir],
    balancer: int,
    admin: Admin,
) -> None:
    limits = {"rpm": 600_000, "tpm": 120_000_000, "concurrency": 1000}
    key = admin.key(admin.team(**limits), **limits)
    before = replicas[0].what_is_left(key)
    clients = Clients(balancer, key)
    ended: list[Process] = []

    def roll() -> None:
        eventually(lambda: clients.streaming >= STREAMS * 0.9, within=60, why=f"{STREAMS} streams are open")
        for weir in replicas:
            assert weir.metric("weir_in_flight_requests") > STREAMS / REPLICAS / 3, "it has its share of the streams"
            weir.process.send(signal.SIGTERM)
            weir.process.wait(60)
            ended.append(weir.process)
            weir.start_again()

    asyncio.run(clients.run(roll))

    print(f"served {dict(clients.counts)}, failed {len(clients.failures)}")
    assert clients.failures == [], f"{len(clients.failures)} of {clients.counts}: {clients.failures[:5]}"
    assert clients.counts["streams"] >= 2 * STREAMS
    assert clients.counts["requests"] >= 200
    for weir in replicas:
        eventually(lambda weir=weir: weir.metric("weir_in_flight_requests") == 0, why="nothing is in flight")
    eventually(lambda: replicas[0].what_is_left(key) == before, within=30, why=f"all given back: {before}")
    for process in [*ended, *(weir.process for weir in replicas)]:
        assert "Traceback" not in process.said
    assert [process.popen.returncode for process in ended] == [0] * REPLICAS
