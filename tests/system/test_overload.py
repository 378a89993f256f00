"""Ten times more than can be served: what is served stays as much and as quick, and the rest is told so at once.

The service takes `PLACES` at a time and SERVICE seconds for each, so its capacity is known; without turns a request
would wait for all that came before it. `python -m tests.soak.overload` is the same for minutes, with figures.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.soak import arrivals
from tests.soak.arrivals import Seen, ask, p99
from tests.system.harness import Admin, Key, Weir, configuration, eventually

PLACES, WORDS, WORD_SECONDS = 8, 4, 0.05
SERVICE = (WORDS + 3) * WORD_SECONDS  # the role, the end and the usage are events too
CAPACITY = PLACES / SERVICE  # requests a second
WAITING, WAIT_SECONDS = 100, 2.0
PROMPT = " ".join(["river"] * WORDS)


@pytest.fixture(scope="module")
def narrow(redis_url: str) -> Iterator[Weir]:
    models: list[dict[str, Any]] = [{"name": "echo", "backend": "echo", "echo": {"delay_ms": WORD_SECONDS * 1000}}]
    server = {"max_in_flight": PLACES, "max_waiting": WAITING, "wait_seconds": WAIT_SECONDS}
    with Weir(configuration(redis_url, models, server=server)) as weir:
        yield weir


@pytest.fixture(scope="module")
def team(narrow: Weir, redis_url: str) -> Admin:
    return Admin(redis_url)


async def arrive(weir: Weir, key: Key, rate: float, seconds: float) -> list[Seen]:
    return await arrivals.arrive(weir.port, key, range(WORDS, WORDS + 1), rate, seconds)


def at_rest(weir: Weir) -> bool:
    return weir.metric("weir_in_flight_requests") == 0 and weir.metric("weir_waiting_requests") == 0


def test_ten_times_the_load_is_served_as_well_as_it_can_be(narrow: Weir, team: Admin) -> None:
    key = team.key()

    async def scene() -> tuple[list[Seen], list[Seen], Seen]:
        full = await arrive(narrow, key, CAPACITY * 1.2, 5)
        flooded = await arrive(narrow, key, CAPACITY * 10, 8)
        await asyncio.sleep(2)
        return full, flooded, await ask(narrow.port, key, PROMPT)

    full, flooded, after = asyncio.run(scene())
    served = [one for one in flooded if one.status == 200]
    refused = [one for one in flooded if one.status == 503]
    assert len(served) + len(refused) == len(flooded), {one.status for one in flooded}
    # Those that wait at the end are served after it, so the time of service is a little longer than that of arrivals.
    goodput = len(served) / (8 + WAIT_SECONDS)
    most = len([one for one in full if one.status == 200]) / (5 + WAIT_SECONDS)
    assert goodput > 0.7 * most, f"{goodput:.0f}/s of {most:.0f}/s: it works on what it cannot finish"
    assert all(one.complete for one in served)
    assert p99([one.first for one in served]) < WAIT_SECONDS + 3, "who is let in is not kept waiting"
    assert all(1 <= (one.retry_after or 0) <= 30 for one in refused)
    assert after.status == 200
    assert after.whole < 2 + SERVICE, "it is well again as soon as the load is gone"
    eventually(lambda: at_rest(narrow), why="nothing is left behind")


def test_a_greedy_team_moves_nobody_else(narrow: Weir, team: Admin) -> None:
    """In one queue for all, ten times the load would be seconds of waiting for everybody."""
    greedy, modest = team.key(team.team()), team.key(team.team())

    async def scene(load: float) -> list[Seen]:
        flood = asyncio.ensure_future(arrive(narrow, greedy, CAPACITY * load, 9))
        await asyncio.sleep(2)
        mine = await arrive(narrow, modest, 6, 6)
        await flood
        return mine

    before = asyncio.run(scene(1.2))
    eventually(lambda: at_rest(narrow))
    after = asyncio.run(scene(10))
    assert not [one for one in after if one.status != 200], "the queue is full of others, and there is room"
    waited = p99([one.first for one in after])
    # By the fewest requests of a hundred on a busy machine; in one queue for all it would be WAIT_SECONDS and refusals.
    assert waited < p99([one.first for one in before]) * 2 + 2 * SERVICE, f"{waited:.2f} s to the first token"
    eventually(lambda: at_rest(narrow))


def test_the_ops_port_answers_meanwhile(narrow: Weir, team: Admin) -> None:
    key = team.key()

    async def scene() -> float:
        flood = asyncio.ensure_future(arrive(narrow, key, CAPACITY * 10, 3))
        await asyncio.sleep(1)
        waiting = await asyncio.to_thread(narrow.metric, "weir_waiting_requests")
        await flood
        return waiting

    assert asyncio.run(scene()) > 0
    assert narrow.metric("weir_requests_total", 'outcome="refused_overload"') > 0
    eventually(lambda: at_rest(narrow))
