"""What a real endpoint shows on its ops port: as much as there is to see, and never more series than there may be."""

import asyncio
import hashlib
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.system.harness import (
    Admin,
    Key,
    RawExchange,
    Upstream,
    Weir,
    chat_bytes,
    clean_environment,
    configuration,
    eventually,
    model,
    unique,
)
from weir.telemetry.names import ALL, TEAMS_MAX

ECHO: list[dict[str, Any]] = [{"name": "echo", "backend": "echo"}]
TEAMS, MODELS = 3_000, 10_000  # ten thousand teams are in the unit tests, where making them is quick
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


async def ask_all(weir: Weir, requests: Sequence[bytes], connections: int = 16) -> list[int]:
    """Each request once, over a few kept connections; their statuses."""

    async def some(share: Sequence[bytes]) -> list[int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", weir.port)
        statuses = []
        for request in share:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            statuses.append(int(head.split()[1]))
        writer.close()
        return statuses

    shares = [requests[start::connections] for start in range(connections)]
    return [status for share in await asyncio.gather(*map(some, shares)) for status in share]


@pytest.fixture(scope="module")
def crowded(redis_url: str) -> Iterator[tuple[Weir, list[Key]]]:
    """Three times as many teams as may have series of their own, with a key each, of a configuration file."""
    keys = [Key("", uuid.uuid4().hex, f"crowd-{number}") for number in range(TEAMS)]
    teams = [{"name": key.team, "keys": [{"digest": hashlib.sha256(key.secret.encode()).hexdigest()}]} for key in keys]
    with Weir(configuration(redis_url, ECHO, teams=teams)) as weir:
        yield weir, keys


def test_any_number_of_teams_and_model_names_is_a_bounded_number_of_series(
    crowded: tuple[Weir, list[Key]],
) -> None:
    weir, keys = crowded
    few = [chat_bytes(key, "echo") for key in keys[:100]] + [chat_bytes(keys[0], "no-such-model")]
    asyncio.run(ask_all(weir, few))
    first = len(weir.metrics())
    fixed = first - 100 * per_team(weir, keys[0].team)

    statuses = asyncio.run(ask_all(weir, [chat_bytes(key, "echo") for key in keys]))
    assert set(statuses) == {200}
    names = [chat_bytes(keys[0], f"model-{uuid.uuid4()}") for _ in range(MODELS)]
    assert set(asyncio.run(ask_all(weir, names))) == {404}

    # Somebody's request that is not of our teams, or not for our models, adds no name.
    samples = weir.metrics()
    assert not [sample for sample in samples if "model-" in sample]
    assert (
        len({sample for sample in samples if 'team="crowd-' in sample and "requests_total" in sample}) <= TEAMS_MAX + 1
    )
    assert len(samples) <= fixed + (TEAMS_MAX + 1) * per_team(weir, keys[1].team) + 50
    assert weir.metric("weir_requests_total", 'outcome="ok"') == TEAMS + 100, "and nobody is left out of the sum"
    assert weir.metric("weir_requests_total", 'outcome="refused_model"', 'model="other"') == MODELS + 1


def per_team(weir: Weir, team: str) -> int:
    """Series that this one has of its own, but for those of a refusal."""
    return len([sample for sample in weir.metrics() if f'team="{team}"' in sample and "refused" not in sample])


def test_everything_of_the_catalogue_is_there_from_the_start(crowded: tuple[Weir, list[Key]]) -> None:
    weir, _ = crowded
    text = httpx.get(f"{weir.ops_url}/metrics", trust_env=False).text
    assert [metric.name for metric in ALL if f"# HELP {metric.name} {metric.help}" not in text] == []
    assert "process_resident_memory_bytes" in text
    answer = httpx.get(f"{weir.ops_url}/metrics", headers=OPENMETRICS, trust_env=False)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_a_directory_of_somebody_elses_metrics_is_left_alone(
    redis_url: str, upstream: Upstream, admin: Admin, tmp_path: Path
) -> None:
    """One process has its numbers to itself; in a shared directory, what a killed one left would be counted for ever."""
    config = configuration(redis_url, [model("chat", upstream.url)])
    environment = clean_environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    with Weir(config, env=environment) as weir, ExitStack() as streams:
        for _ in range(3):
            request = chat_bytes(admin.key(), "chat", stream=True, x_script={"gate": unique("gate")})
            streams.enter_context(RawExchange(weir.port, request)).read_event()
        assert weir.metric("weir_in_flight_requests") == 3
        weir.process.send(signal.SIGKILL)
        weir.process.wait(10)
        weir.start_again()
        assert weir.metric("weir_in_flight_requests") == 0
    assert not list(tmp_path.iterdir())


@pytest.fixture
def workers(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    with Weir(configuration(redis_url, [model("chat", upstream.url), *ECHO]), "--workers", "2") as weir:
        yield weir


def serving(weir: Weir) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(weir.process.pid).children(recursive=True)
        if any(c.laddr.port == weir.port and c.status == psutil.CONN_LISTEN for c in child.net_connections("inet"))
    ]


def test_a_worker_that_is_killed_takes_its_gauges_along(workers: Weir, upstream: Upstream, admin: Admin) -> None:
    """What it had under way is under way no more; what it had counted stays counted."""
    key = admin.key()
    for _ in range(6):
        assert workers.chat(key, model="echo").status_code == 200
    with ExitStack() as held:
        for _ in range(6):
            request = chat_bytes(key, "chat", stream=True, x_script={"gate": unique("gate")})
            stream = held.enter_context(RawExchange(workers.port, request))
            assert stream.read_event().startswith(b"data: ")
        eventually(lambda: workers.metric("weir_in_flight_requests") == 6)
        for worker in serving(workers):
            worker.send_signal(signal.SIGKILL)
        none = "the dead have nothing under way"
        eventually(lambda: workers.metric("weir_in_flight_requests") == 0, within=20, why=none)
    eventually(lambda: len(serving(workers)) == 2, within=20)
    assert workers.metric("weir_requests_total", 'outcome="ok"') == 6
    assert workers.metric("weir_build_info") == 1
