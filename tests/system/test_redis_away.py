"""Redis goes, hangs and comes back: an answer at once in any case, probes that tell the truth, and no restart.

What a known key gets meanwhile depends on `redis.on_outage`; here it is only asked to be one of the promised answers.
"""

import contextlib
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def weir_on_it(own_redis: OwnRedis) -> Iterator[Weir]:
    with Weir(configuration(own_redis.url, [{"name": "echo", "backend": "echo"}])) as weir:
        yield weir


def fair(answer: httpx.Response) -> bool:
    """Served under a notice, or sent away with a time to come back."""
    if answer.status_code == 200:
        return "x-weir-degraded" in answer.headers
    return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1 and "error" in answer.json()


@pytest.mark.parametrize("how", ["gone", "hanging"])
def test_an_answer_at_once_and_back_without_a_restart(own_redis: OwnRedis, weir_on_it: Weir, how: str) -> None:
    weir, key = weir_on_it, Admin(own_redis.url).key(rpm=1000)
    assert weir.chat(key, model="echo").status_code == 200
    if how == "gone":
        own_redis.process.kill()
    else:
        own_redis.process.send(signal.SIGSTOP)

    answers = []
    for secret in (key, key, key, Key("", "sk-unknown", "")):
        started = time.monotonic()
        answers.append(weir.chat(secret, model="echo"))
        assert time.monotonic() - started < 3, "the design says 250 ms beyond the deadline of 100"
    assert all(fair(answer) for answer in answers[:3]), [answer.text for answer in answers]
    assert answers[3].status_code == 503, "nobody can say that this key is wrong"
    assert answers_200(f"{weir.ops_url}/livez")
    if answers[2].status_code == 503:
        eventually(
            lambda: httpx.get(f"{weir.ops_url}/readyz", trust_env=False).status_code == 503,
            why="nothing can be served and the probe stays green",
        )

    if how == "gone":
        own_redis.start()
    else:
        own_redis.process.send(signal.SIGCONT)
    eventually(lambda: (a := weir.chat(key, model="echo")).status_code == 200 and "x-weir-degraded" not in a.headers)
    eventually(lambda: answers_200(f"{weir.ops_url}/readyz"))
    assert weir.chat(Key("", "sk-unknown", ""), model="echo").status_code == 401


def test_an_emptied_script_cache_is_filled_again(own_redis: OwnRedis, weir_on_it: Weir) -> None:
    """As after a failover: EVALSHA finds nothing."""
    key = Admin(own_redis.url).key(rpm=1, burst_seconds=600)
    assert weir_on_it.chat(key, model="echo").status_code == 200
    with redis.Redis.from_url(own_redis.url) as client:
        client.script_flush()
    assert [weir_on_it.chat(key, model="echo").status_code for _ in range(3)] == [200] * 3
    assert weir_on_it.remaining(key, "requests") == 6
