"""Redis is killed or stopped, and comes back: an answer at once in any case, probes that tell the truth, no restart.

What a key gets meanwhile is what `redis.on_outage` promises. `test_fault_matrix.py` has every other way to be away.
"""

import contextlib
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from tests.system.harness import (
    Admin,
    Key,
    Process,
    RedisChoice,
    Weir,
    answers_200,
    choose_redis,
    configuration,
    eventually,
    free_port,
)


class OwnRedis:
    """One that a test may take away; with its data on disk, so that keys are there when it is."""

    def __init__(self, program: str, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory)]
        self.start()

    def start(self) -> None:
        self.process = Process(*self._command, "--appendonly", "yes", "--appendfsync", "always", "--save", "")
        with redis.Redis(port=self.port, socket_timeout=1) as client:
            self.process.wait_ready(lambda: self._answers(client))

    @staticmethod
    def _answers(client: redis.Redis) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False


def program(choice: RedisChoice) -> str | None:
    return choice.program or shutil.which("redis-server") or shutil.which("valkey-server")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    found = program(choose_redis())
    if found is None:
        pytest.skip("a container cannot be stopped in the middle of a command: needs a redis-server on the PATH")
    own = OwnRedis(found, tmp_path)
    yield own
    own.process.send(signal.SIGCONT)
    own.process.kill()


def on(own: OwnRedis, on_outage: str) -> dict[str, Any]:
    settings = {"url": own.url, "on_outage": on_outage}
    return configuration("", [{"name": "echo", "backend": "echo"}], redis=settings)


class Promise(NamedTuple):
    """What `on_outage` says of a key that is allowed three requests and has used one, of another key, of the probe."""

    on_outage: str
    known: list[int]
    unknown: int
    ready: int


PROMISES = [
    Promise("degrade", [200, 200, 200, 429, 429], 503, 200),  # by this process' own limiter, which begins full
    Promise("open", [200, 200, 200, 200, 200], 503, 200),
    Promise("closed", [503, 503, 503, 503, 503], 503, 503),
]


def as_promised(answer: httpx.Response) -> None:
    """Served under a notice, or sent away with a time to come back."""
    if answer.status_code == 200:
        assert answer.headers["x-weir-degraded"] == "1"
        return
    assert int(answer.headers["retry-after"]) >= 1
    code = "limits_unavailable" if answer.status_code == 503 else "rate_limit_exceeded"
    assert answer.json()["error"]["code"] == code


def ready(weir: Weir) -> int:
    return httpx.get(f"{weir.ops_url}/readyz", trust_env=False).status_code


@pytest.mark.parametrize("how", ["gone", "hanging"])
@pytest.mark.parametrize("promise", PROMISES, ids=[promise.on_outage for promise in PROMISES])
def test_an_answer_at_once_and_back_without_a_restart(own_redis: OwnRedis, promise: Promise, how: str) -> None:
    known, stranger = Admin(own_redis.url).key(rpm=1, burst_seconds=180), Key("", "sk-unknown", "")
    with Weir(on(own_redis, promise.on_outage)) as weir:
        assert weir.chat(known, model="echo").status_code == 200
        if how == "gone":
            own_redis.process.kill()
        else:
            own_redis.process.send(signal.SIGSTOP)

        answers = []
        for key in (*[known] * len(promise.known), stranger):
            began = time.monotonic()
            answers.append(weir.chat(key, model="echo"))
            assert time.monotonic() - began < 3, "the design says 250 ms beyond the deadline of 100"
        assert [answer.status_code for answer in answers] == [*promise.known, promise.unknown]
        for answer in answers:
            as_promised(answer)
        eventually(lambda: weir.metric("weir_degraded") == 1)
        assert ready(weir) == promise.ready
        assert answers_200(f"{weir.ops_url}/livez")

        if how == "gone":
            own_redis.start()
        else:
            own_redis.process.send(signal.SIGCONT)
        eventually(lambda: weir.metric("weir_degraded") == 0 and ready(weir) == 200)
        assert weir.chat(stranger, model="echo").status_code == 401
        # What was used meanwhile was nobody's business but this process'; what was given back too late is back.
        eventually(lambda: weir.remaining(known, "requests") == 2, why="two of three are left")
        answer = weir.chat(known, model="echo")
        assert answer.status_code == 200
        assert "x-weir-degraded" not in answer.headers


def test_an_emptied_script_cache_is_filled_again(own_redis: OwnRedis) -> None:
    """As after a failover: EVALSHA finds nothing."""
    key = Admin(own_redis.url).key(rpm=1, burst_seconds=600)
    with Weir(on(own_redis, "degrade")) as weir:
        assert weir.chat(key, model="echo").status_code == 200
        with redis.Redis.from_url(own_redis.url) as client:
            client.script_flush()
        answers = [weir.chat(key, model="echo") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert not any("x-weir-degraded" in answer.headers for answer in answers)
        assert weir.remaining(key, "requests") == 6
