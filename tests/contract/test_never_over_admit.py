"""Limits are never exceeded and nothing is lost: several processes on one Redis, cancels, `kill -9`, lost connections.

What happened is taken from the outside, by MONITOR, and checked by `ledger.py`, whose docstrings hold the inequalities.
"""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from tests.contract.clocked import Clock, ClockedScripts, scripts, sha1
from tests.contract.ledger import PARTS, Account, Broken, Ledger, Places
from tests.contract.monitor import Monitor, scripts_of
from tests.contract.over_admit_worker import Orders
from tests.contract.world import RedisWorld, ask, real_time_world
from tests.fakes.redis_server import RedisServer
from weir.admission import Admission
from weir.admission.limiter_redis import RedisLimiter
from weir.core import layout
from weir.core.errors import LimitExceeded, StoreUnavailable, Unauthenticated
from weir.core.types import Limits, Principal
from weir.store import Batcher

PROCESSES, TASKS = 4, 64
LEASE = 3.0  # seconds; workers renew every third of it
WORKER = Path(__file__).with_name("over_admit_worker.py")

KEYS = {
    "by-requests": Limits(rpm=4_200, burst_seconds=1),
    "by-tokens": Limits(tpm=150_000, burst_seconds=2),
    "by-places": Limits(concurrency=2),
    "by-the-team": Limits(),
    "by-all": Limits(rpm=6_000, tpm=400_000, concurrency=4, burst_seconds=1),
}
TEAM = Limits(rpm=18_000, tpm=900_000, concurrency=24, burst_seconds=1)


class Load(NamedTuple):
    """`overuse`: the share of requests that use more than they have reserved. Seconds after the start."""

    seconds: float
    overuse: float
    kills: dict[int, float]
    lost_connections: tuple[float, ...]


LOADS = {
    "exact": Load(9.0, 0.0, {0: 3.0, 1: 5.5}, (2.0, 4.5, 7.0)),
    "with-debt": Load(4.0, 0.2, {2: 2.0}, (3.0,)),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS.keys())
async def test_no_limit_is_ever_exceeded_and_every_token_is_accounted_for(
    redis_server: RedisServer, tmp_path: Path, load: Load
) -> None:
    async with real_time_world(redis_server.url) as world:
        await world.directory.create_team("load", TEAM)
        callers = {name: await world._new_key("load", limits) for name, limits in KEYS.items()}
        ledger = ledger_for(callers)
        with Monitor(redis_server.host, redis_server.port, tmp_path / "monitor.log"):
            outcome = await asyncio.to_thread(run_load, redis_server, callers, load, tmp_path)
            await leases_ended(world)
            now, levels, free = await look(world, callers)
        ledger.read(scripts_of(tmp_path / "monitor.log"))
        print(json.dumps(outcome.counts | {"admitted": len(ledger.admitted), "refused": ledger.refused}))

        it_was_a_real_load(ledger, outcome, load)
        await every_reservation_is_settled_once_or_still_there(world, ledger, outcome)
        charged_is_settled_and_held(ledger)
        the_levels_are_those_of_the_log(ledger, levels, now)
        for record, places in ledger.places.items():
            assert places.most == places.limit, f"{record} was never full, so nothing was tested"
            assert free[record] == places.limit, "a place was not given back"


# -- the load


class Outcome(NamedTuple):
    counts: Counter[str]
    journals: list[dict[str, Any]]  # granted, settled: by reservation; killed


def run_load(server: RedisServer, callers: dict[str, Principal], load: Load, directory: Path) -> Outcome:
    begin = time.monotonic()
    number = 0
    running: dict[int, tuple[subprocess.Popen[str], Path]] = {}
    killed: list[Path] = []
    ended: list[tuple[str, Path]] = []

    def start(place: int) -> None:
        nonlocal number
        number += 1
        orders = Orders(
            url=server.url,
            callers=[[c.team, c.key_id, c.digest] for c in callers.values()],
            seed=number,
            until=begin + load.seconds,
            lease_seconds=LEASE,
            tasks=TASKS,
            overuse=load.overuse,
            clock_error=(-1) ** number * 3_600.0 * number,
            journal=str(directory / f"journal-{number}"),
        )
        process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(asdict(orders))], stdout=subprocess.PIPE, text=True
        )
        running[place] = process, Path(orders.journal)

    try:
        for place in range(PROCESSES):
            start(place)
        for at, what in sorted(
            [*((at, place) for place, at in load.kills.items()), *((at, None) for at in load.lost_connections)],
            key=lambda event: event[0],
        ):
            time.sleep(max(begin + at - time.monotonic(), 0))
            if what is None:
                lose_connections(server)
                continue
            process, journal = running.pop(what)
            wait_until_it_holds_something(journal)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed.append(journal)
            start(what)
        for process, journal in running.values():
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0, f"{process.returncode} settlements were not heard"
            ended.append((said, journal))
    finally:
        for process, _ in running.values():
            process.kill()
            process.communicate()
    counts: Counter[str] = Counter()
    for said, _ in ended:
        counts.update(json.loads(said))
    journals = [journal_of(path, killed=False) for _, path in ended] + [
        journal_of(path, killed=True) for path in killed
    ]
    return Outcome(counts, journals)


def wait_until_it_holds_something(journal: Path) -> None:
    """It nearly always does; then there is something to lose."""
    for _ in range(100):
        said = journal_of(journal, killed=True)
        if said["granted"].keys() - said["settled"].keys():
            return
        time.sleep(0.02)


def lose_connections(server: RedisServer) -> None:
    with server.client() as client:
        for connection in client.client_list():
            if connection["name"] == "weir":
                with contextlib.suppress(redis.ResponseError):  # gone by itself
                    client.client_kill_filter(_id=connection["id"])


def journal_of(path: Path, *, killed: bool) -> dict[str, Any]:
    journal: dict[str, Any] = {"granted": {}, "settled": {}, "killed": killed}
    for line in path.read_text().splitlines() if path.exists() else ():
        what, *words = line.split()
        if what in {"granted", "settled"} and len(words) == 2:  # the last line of the killed may be half a line
            assert words[0] not in journal[what], f"{words[0]} was {what} twice"
            journal[what][words[0]] = int(words[1])
    return journal


# -- what is looked at afterwards


def ledger_for(callers: dict[str, Principal]) -> Ledger:
    team = next(iter(callers.values())).team
    limits = {layout.team(team): TEAM} | {layout.key(team, c.key_id): KEYS[name] for name, c in callers.items()}
    buckets: dict[str, dict[str, Account]] = {}
    places = {}
    for record, one in limits.items():
        buckets[record] = {
            unit: Account(f"{record} {unit}", rate, max(rate * one.burst_seconds * 1_000_000, PARTS))
            for unit, rate in (("requests", one.rpm), ("tokens", one.tpm))
            if rate
        }
        if one.concurrency:
            places[record] = Places(record, one.concurrency)
    sources = scripts()
    return Ledger(sha1(sources["admit.lua"]).encode(), sha1(sources["settle.lua"]).encode(), buckets, places)


async def leases_ended(world: RedisWorld) -> None:
    """Places of killed workers are theirs until their leases end: three seconds, so this waits at most that long."""
    for _ in range(200):
        seconds, micros = await world.redis.time()
        ends = [0.0]
        async for name in world.redis.scan_iter(match="weir:*:live"):
            ends += [score for _, score in await world.redis.zrange(name, -1, -1, withscores=True)]
        if max(ends) <= seconds * 1e6 + micros:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a lease does not end: somebody renews it who should be dead")


async def look(
    world: RedisWorld, callers: dict[str, Principal]
) -> tuple[int, dict[str, dict[str, int]], dict[str, int]]:
    """Levels in parts, and free places, at one moment that is known to the microsecond."""
    seconds, micros = await world.redis.time()
    clock = Clock()
    clock.now = seconds * 1_000_000 + micros
    clocked = ClockedScripts(world.commands, clock)
    limiter = RedisLimiter(clocked)
    levels: dict[str, dict[str, int]] = {}
    free: dict[str, int] = {}
    for caller in callers.values():
        await limiter.standing(caller)
        numbers = clocked.last.result()[6:]
        for record, said in (
            (layout.key(caller.team, caller.key_id), numbers[:8]),
            (layout.team(caller.team), numbers[8:]),
        ):
            levels[record] = {"requests": said[2], "tokens": said[4]}
            free[record] = said[5] - said[6]
    return clock.now, levels, free


def it_was_a_real_load(ledger: Ledger, outcome: Outcome, load: Load) -> None:
    """Else it proves nothing: limits refused, and each kind of trouble happened. A slow machine does less of all."""
    assert len(ledger.admitted) > 20 * load.seconds
    refusals = {name for name in outcome.counts if name.split()[0] in {"key", "team"}}
    assert {name.split()[0] for name in refusals} == {"key", "team"}
    assert len(refusals) >= 3, refusals
    assert outcome.counts["cancelled"] > 5 * load.seconds
    assert ledger.settled_again
    accounts = [account for accounts in ledger.buckets.values() for account in accounts.values()]
    assert all(account.charged and account.given_back for account in accounts)
    owed = sum(account.owed for account in accounts)
    assert owed > 100 * PARTS if load.overuse else owed == 0
    unheard = [name for name, used in ledger.settled.items() if used < 0]
    granted = {name for journal in outcome.journals for name in journal["granted"]}
    assert set(unheard) - granted, "no take was cancelled after it had been charged"
    assert ledger.held(), "nobody was killed while holding anything"


async def every_reservation_is_settled_once_or_still_there(world: RedisWorld, ledger: Ledger, outcome: Outcome) -> None:
    journals = {prefix(journal): journal for journal in outcome.journals if journal["granted"]}
    for journal in outcome.journals:
        for name, tokens in journal["granted"].items():
            assert ledger.admitted[name].tokens == tokens, name
        for name, used in journal["settled"].items():
            # The word of the one that was killed may not have got out.
            settled = ledger.settled.get(name, used if journal["killed"] else None)
            assert settled == used, f"{name}: {used} by its journal, {settled} by the log"
    for name in ledger.held():
        owner = journals.get(name.partition("-")[0])
        assert owner is None or owner["killed"], f"{name} is held by nobody"
    there = {
        name.decode().rpartition(":")[2] async for name in world.redis.scan_iter(match="weir:*:res:*", count=1_000)
    }
    assert there == set(ledger.held())


def prefix(journal: dict[str, Any]) -> str:
    return str(next(iter(journal["granted"]))).partition("-")[0]


def charged_is_settled_and_held(ledger: Ledger) -> None:
    """sum(charged) = sum(settled) + live leases, for each bucket."""
    for record, accounts in ledger.buckets.items():
        mine = {name: one for name, one in ledger.admitted.items() if record in one.records}
        used = sum(max(ledger.settled[name], 0) for name in mine if name in ledger.settled)
        still = sum(one.tokens for name, one in mine.items() if name not in ledger.settled)
        released = sum(ledger.settled.get(name, 0) < 0 for name in mine)
        if tokens := accounts.get("tokens"):
            assert tokens.charged + tokens.owed - tokens.given_back == (used + still) * PARTS, record
        if requests := accounts.get("requests"):
            assert requests.charged - requests.given_back == (len(mine) - released) * PARTS, record


def the_levels_are_those_of_the_log(ledger: Ledger, levels: dict[str, dict[str, int]], now: int) -> None:
    """To the part."""
    for record, accounts in ledger.buckets.items():
        for unit, account in accounts.items():
            assert levels[record][unit] == account.level_at(now), f"{record} {unit}"


# -- attacks, one by one


async def test_a_take_cancelled_at_any_moment_costs_and_holds_nothing(every_redis: RedisServer) -> None:
    limits = Limits(rpm=1, tpm=1, concurrency=5, burst_seconds=6_000)
    async with real_time_world(every_redis.url) as world:
        principal = await world.caller(limits, limits)
        await world.limiter.standing(principal)  # the connection is there
        outcomes: Counter[str] = Counter()
        for turns in range(60):
            take = asyncio.get_running_loop().create_task(world.limiter.take(principal, ask()))
            for _ in range(turns // 3):
                await asyncio.sleep(0 if turns % 3 else 0.0001)
            if not take.cancel():
                world.limiter.settle(await take, None)
                await world.heard()
                continue
            with contextlib.suppress(asyncio.CancelledError):
                world.limiter.settle(await take, None)
            outcomes["cancelled"] += take.cancelled()
            await world.heard()
        assert outcomes["cancelled"] > 10
        assert [window.remaining for window in await world.limiter.standing(principal)] == [100, 100, 5] * 2
        assert world.limiter.held == world.limiter.unsettled == 0
        assert not [name async for name in world.redis.scan_iter(match="weir:*:res:*")]


LEAVERS = [
    # id                     limits                                         what leaving costs  how often one gets in
    ("requests-run-out", Limits(rpm=1, burst_seconds=600), 0, 10),
    ("the-prompt-is-paid", Limits(tpm=1, burst_seconds=6_000), 10, 6),  # 100 tokens, 50 reserved each time
    ("what-was-relayed-is-paid", Limits(tpm=1, burst_seconds=6_000), 35, 2),
]


@pytest.mark.parametrize(("limits", "cost", "times"), [r[1:] for r in LEAVERS], ids=[r[0] for r in LEAVERS])
@pytest.mark.parametrize("scope", ["key", "team"])
async def test_leaving_right_after_dispatch_is_not_free_however_often(
    redis_server: RedisServer, limits: Limits, cost: int, times: int, scope: str
) -> None:
    async with real_time_world(redis_server.url) as world:
        principal = await world.caller(limits if scope == "key" else None, limits if scope == "team" else None)
        admission = Admission(world.limiter)
        got_in = 0

        async def leave() -> None:
            nonlocal got_in
            async with admission.reserve(principal, ask(10, 40), lambda _error: cost):
                got_in += 1
                raise asyncio.CancelledError

        for _ in range(40):
            with contextlib.suppress(asyncio.CancelledError, LimitExceeded):
                await leave()
            await world.heard()
        assert got_in == times


async def test_a_charge_that_fails_is_charged_in_full(redis_server: RedisServer) -> None:
    """A bug of ours is not free either."""
    async with real_time_world(redis_server.url) as world:
        principal = await world.caller(Limits(tpm=1, concurrency=1, burst_seconds=6_000))

        def charge(_error: BaseException | None) -> int | None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            async with Admission(world.limiter).reserve(principal, ask(10, 40), charge):
                pass
        await world.heard()
        assert await world.left(principal, "key tokens") == 50
        assert await world.left(principal, "key concurrency") == 1


async def test_settlements_that_nobody_can_have_sent_change_nothing(every_redis: RedisServer) -> None:
    """For an id that is unknown, or empty, or another team's, or settled already: with any amount, in any order."""
    limits = Limits(rpm=1, tpm=1, concurrency=5, burst_seconds=6_000)
    async with real_time_world(every_redis.url) as world:
        principal, stranger = await world.caller(limits, limits), await world.caller(limits, limits)
        mine, settled = [await world.limiter.take(principal, ask(20, 0)) for _ in range(2)]
        theirs = await world.limiter.take(stranger, ask(20, 0))
        world.limiter.settle(settled, 7)
        await world.heard()
        before = [await world.snapshot(who) for who in (principal, stranger)]

        for name in ("", "unknown", f"{mine.id}0", settled.id, theirs.id):
            for tokens in (-1, 0, 7, 10**9, -(10**9)):
                reservation = layout.reservation(principal.team, name)
                words = (*world.limiter._names(principal), reservation, name, tokens)
                assert await world.commands.call("EVAL", world.limiter._settle.source, 7, *words) == 0
        assert [await world.snapshot(who) for who in (principal, stranger)] == before
        for who, grant in ((principal, mine), (stranger, theirs)):
            world.limiter.settle(grant, None)
            await world.heard()
            assert await world.left(who, "key concurrency") == 5


async def test_a_redis_that_stalls_under_load_leaves_nothing_taken(own_redis: RedisServer) -> None:
    """Nobody heard an answer, so nobody may be charged, in whatever order Redis reads what it was sent meanwhile.

    The connection is given up after a second. What was written to it is still read, and takes what the new connection
    has given back already.
    """
    limits = Limits(rpm=1_000_000, tpm=1_000_000, concurrency=100_000, burst_seconds=60)
    async with real_time_world(own_redis.url) as setup:
        principal = await setup.caller(limits, limits)
        batcher = Batcher(setup.redis)
        limiter = RedisLimiter(batcher)
        await limiter.standing(principal)
        own_redis.pause()
        try:
            takes = await asyncio.gather(
                *(limiter.take(principal, ask()) for _ in range(4_000)), return_exceptions=True
            )
            assert all(isinstance(take, StoreUnavailable) for take in takes)
            for _ in range(100):
                if not batcher.up:
                    break
                await asyncio.sleep(0.05)
        finally:
            own_redis.resume()
        for _ in range(200):
            with contextlib.suppress(StoreUnavailable):
                if await limiter.flush(10.0) == 0:
                    break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        left = await setup.limiter.standing(principal)
        assert [w.remaining for w in left if w.unit == "concurrency"] == [100_000] * 2
        assert [w.remaining for w in left if w.unit == "tokens"] == [1_000_000] * 2
        await batcher.close()


async def test_scripts_touch_only_the_names_they_were_given_and_all_in_one_slot(
    every_redis: RedisServer, tmp_path: Path
) -> None:
    """So that a Redis Cluster can run them: seen from the outside, for every path through them."""
    limits = Limits(rpm=60, tpm=600, concurrency=3)
    async with real_time_world(every_redis.url) as world:
        with Monitor(every_redis.host, every_redis.port, tmp_path / "monitor.log"):
            principal = await world.caller(limits, limits)
            grants = [await world.limiter.take(principal, ask(10, 10)) for _ in range(3)]
            await world.refused(principal, ask())
            await world.limiter.standing(principal)
            world.limiter._renew_lease(grants[0])
            for grant, used in zip(grants, (5, None, 5_000), strict=True):
                world.limiter.settle(grant, used)
            await world.heard()
            await world.change(principal, key=Limits(rpm=5), team=Limits())
            await world.limiter.take(principal, ask())
            await world.dismiss(principal)
            with pytest.raises(Unauthenticated):
                await world.limiter.take(principal, ask())
        calls = list(scripts_of(tmp_path / "monitor.log", reads=True))
    limiters = [call for call in calls if len(call.keys) > 1]  # the connection's probe and the directory's have one
    assert len({call.sha for call in limiters}) == 3
    for call in calls:
        touched = {words[1] for words in call.effects if len(words) > 1}
        assert touched <= set(call.keys), call
    for call in limiters:
        assert {name.partition("{")[2].partition("}")[0] for name in call.keys} == {principal.team}


# -- the checker itself

FORGED = [
    # id                            admissions at second, units           promises are kept
    ("to-the-last-part", [(0, 10), (1, 1), (5, 4)], True),
    ("more-than-it-holds", [(0, 11)], False),
    ("a-moment-too-early", [(0, 10), (0.999999, 1)], False),
    ("one-too-many-after-a-long-time", [(0, 4), (100, 6), (100, 4), (101, 2)], False),
    ("savings-are-not-without-end", [(0, 1), (1_000, 10), (1_000, 1)], False),
    ("slowly-for-ever", [(0, 10), *((second, 1) for second in range(1, 50))], True),
    ("a-little-too-fast-for-ever", [(0, 1), *((second * 0.99, 1) for second in range(1, 2_000))], False),
]


@pytest.mark.parametrize(("story", "kept"), [r[1:] for r in FORGED], ids=[r[0] for r in FORGED])
def test_the_checker_sees_what_is_over(story: list[tuple[float, int]], kept: bool) -> None:
    account = Account("forged", 60, 10 * PARTS)  # ten units, one comes back a second

    def read() -> None:
        for second, units in story:
            account.admit(10**15 + round(second * 1e6), units * PARTS)

    if kept:
        read()
    else:
        with pytest.raises(Broken):
            read()


def test_the_checker_sees_a_place_too_many() -> None:
    places = Places("forged", 2, {"a": 10, "b": 20})
    places.admitted(5)
    places.leases["c"] = 30
    places.admitted(10)  # a's lease has just ended
    with pytest.raises(Broken):
        places.admitted(9)
