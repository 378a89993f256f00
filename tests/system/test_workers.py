"""`--workers 2`: one endpoint that is two processes, with the same promises."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.system.harness import (
    Admin,
    RawExchange,
    Upstream,
    Weir,
    answers_200,
    chat_bytes,
    configuration,
    eventually,
    model,
    unique,
)


@pytest.fixture
def workers(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    models: list[dict[str, Any]] = [model("chat", upstream.url), {"name": "echo", "backend": "echo"}]
    config = configuration(redis_url, models, drain={"announce_seconds": 0, "deadline_seconds": 30})
    with Weir(config, "--workers", "2") as weir:
        yield weir


def test_count_together(workers: Weir, admin: Admin) -> None:
    """Limits and metrics are those of the endpoint, not of the process that happened to answer."""
    key = admin.key(rpm=1, burst_seconds=1200)
    statuses = [workers.chat(key, model="echo").status_code for _ in range(30)]
    assert (statuses.count(200), statuses.count(429)) == (20, 10)

    def counted() -> float:
        text = httpx.get(f"{workers.ops_url}/metrics", trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith("weir_requests_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    eventually(lambda: counted() == 30, why="each scrape shows what both have done")
    assert [counted() for _ in range(5)] == [30] * 5


def test_a_stream_runs_to_its_end(workers: Weir, upstream: Upstream, admin: Admin) -> None:
    key, gate, prompt = admin.key(), unique("gate"), unique("canary-prompt")
    children = psutil.Process(workers.process.pid).children(recursive=True)
    with RawExchange(workers.port, chat_bytes(key, "chat", prompt, stream=True, x_script={"gate": gate})) as stream:
        assert stream.read_event().startswith(b"data: ")
        workers.process.send(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{workers.ops_url}/readyz", trust_env=False).status_code == 503)
        assert answers_200(f"{workers.ops_url}/livez")
        with contextlib.suppress(AssertionError):  # the idle worker may go first, and take nothing along
            eventually(lambda: not all(child.is_running() for child in children), within=2)
        upstream.open_gate(gate)
        assert stream.read().body.rstrip().endswith(b"data: [DONE]")
    workers.process.wait(20)
    assert [child for child in children if child.is_running()] == []
    said = workers.process.said
    assert key.secret not in said
    assert prompt not in said
    assert "Traceback" not in said
    assert '"exception"' not in said
    assert workers.records_with(key_id=key.id, status=200), "what was served last is in the log"


def test_a_worker_that_dies_is_replaced(workers: Weir, admin: Admin) -> None:
    key = admin.key()
    assert workers.chat(key, model="echo").status_code == 200
    # The workers are the children that have a listening socket on the data port and are not the one we started.
    children = [
        child
        for child in psutil.Process(workers.process.pid).children(recursive=True)
        if any(c.laddr.port == workers.port and c.status == psutil.CONN_LISTEN for c in child.net_connections("inet"))
    ]
    assert len(children) == 2
    children[0].kill()

    def answers() -> bool:
        try:
            return all(workers.chat(key, model="echo").status_code == 200 for _ in range(10))
        except httpx.HTTPError:
            return False

    eventually(answers, within=20)
