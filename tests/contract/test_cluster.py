"""Three masters with a replica each: callers see one Redis, also while slots move and masters die."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from redis.crc import key_slot

from tests.contract.lines import LineWorld, admitted, eventually, line_world
from tests.contract.world import ask
from tests.fakes.redis_cluster import Cluster, Server, free_port, one, program, until
from weir.auth.directory_redis import AlreadyThere, NoSuchKey, NoSuchTeam
from weir.core import layout
from weir.core.commands import CommandRefused
from weir.core.errors import RequestsExceeded, StoreUnavailable, Unauthenticated
from weir.core.types import Limits, Principal
from weir.store import ClusterCommands, commands_for

pytestmark = pytest.mark.skipif(program() is None, reason="no redis-server or valkey-server on the PATH")

THOUSAND = Limits(tpm=1, rpm=1, burst_seconds=60_000)  # tokens and requests; one comes back a minute


@pytest.fixture
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop


@pytest.fixture(scope="module")
def _shared() -> Iterator[Cluster]:
    with Cluster() as group:
        yield group


@pytest.fixture
def cluster(_shared: Cluster) -> Cluster:
    """For tests that leave it as it was, but for its keys."""
    for node in _shared.masters:
        node.say("FLUSHALL")
    return _shared


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with Cluster() as group:
        yield group


def slot_of(team: str) -> int:
    return key_slot(layout.team(team).encode())


async def callers(world: LineWorld, cluster: Cluster, limits: Limits, each: int = 1) -> dict[int, list[Principal]]:
    """Some for each master, by its port."""
    found: dict[int, list[Principal]] = {node.port: [] for node in cluster.masters}
    while any(len(some) < each for some in found.values()):
        principal = await world.caller(limits, Limits())
        port = cluster.owner(slot_of(principal.team)).port
        if len(found[port]) < each:
            found[port].append(principal)
    return found


# -- in good times


async def test_admission_and_settlement_work_for_teams_of_all_masters(
    cluster: Cluster, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async with line_world(cluster.url) as world:
        found = await callers(world, cluster, Limits(rpm=1, tpm=1, concurrency=2, burst_seconds=60_000), each=2)
        for principal in (principal for some in found.values() for principal in some):
            assert await world.keys.find(principal.digest) == principal
            first = await world.limiter.take(principal, ask(100, 0))
            second = await world.limiter.take(principal, ask(200, 0))
            assert await world.left(principal, "key tokens") == 700
            assert await world.left(principal, "key concurrency") == 0
            world.limiter._renew_lease(first)
            world.limiter.settle(first, 10)
            world.limiter.settle(second, None)
            await world.heard()
            assert await world.left(principal, "key tokens") == 990
            assert await world.left(principal, "key requests") == 999
            assert await world.left(principal, "key concurrency") == 2
        assert world.ups == [True]


async def test_scripts_that_a_node_has_forgotten_are_given_to_it_again(cluster: Cluster) -> None:
    async with line_world(cluster.url) as world:
        found = await callers(world, cluster, THOUSAND)
        for node in cluster.masters:
            node.say("SCRIPT", "FLUSH")
        for (principal,) in found.values():
            grants = await asyncio.gather(*(world.limiter.take(principal, ask(1, 0)) for _ in range(20)))
            for grant in grants:
                world.limiter.settle(grant, 0)
        await world.heard()
        for (principal,) in found.values():
            assert await world.left(principal, "key tokens") == 1000
            assert await world.left(principal, "key requests") == 980


async def test_the_directory_works_across_slots(cluster: Cluster) -> None:
    async with line_world(cluster.url) as world:
        directory = world.directory
        assert await directory.empty()
        for number in range(12):
            await directory.create_team(f"t{number}", Limits(rpm=number + 10))
        made = [(f"t{number % 12}", await directory.create_key(f"t{number % 12}", f"k{number}", Limits())) for number in range(24)]  # fmt: skip
        assert len({cluster.owner(slot_of(f"t{number}")).port for number in range(12)}) == 3
        assert not await directory.empty()
        assert [team.name for team in await directory.teams()] == sorted(f"t{number}" for number in range(12))
        assert {key.id for key in await directory.keys()} == {new.key.id for _, new in made}
        assert {key.name for key in await directory.keys("t3")} == {"k3", "k15"}
        with pytest.raises(AlreadyThere):
            await directory.create_team("t3", Limits())
        together = [directory.create_team("together", Limits(rpm=1)) for _ in range(5)]
        results = await asyncio.gather(*together, return_exceptions=True)
        assert sum(not isinstance(result, Exception) for result in results) == 1
        assert all(isinstance(result, AlreadyThere) for result in results if isinstance(result, Exception))
        changed = await directory.update_team("t3", lambda _: Limits(rpm=7))
        assert (changed.limits.rpm, changed.limits.tpm) == (7, None)
        _, new = made[0]
        assert (await directory.update_key(new.key.id, lambda _: Limits(tpm=5), name="other")).name == "other"
        rotated = await directory.rotate_key(new.key.id, 60)
        for secret in (new.secret, rotated.secret):
            principal = await world.keys.find(world_digest(secret))
            assert principal is not None
            await world.limiter.take(principal, ask(0, 1))
        await directory.revoke_key(new.key.id)
        with pytest.raises(Unauthenticated):
            await world.limiter.take(principal, ask(0, 1))
        await directory.put_team("t4", Limits(rpm=2))
        await directory.put_key("t4", "by file", Limits(rpm=1), "0" * 64)
        await directory.put_key("t4", "by file", Limits(rpm=3), "0" * 64)
        assert [key.limits.rpm for key in await directory.keys("t4") if key.name == "by file"] == [3]
        assert await directory.delete_team("t5") == 2
        with pytest.raises(NoSuchTeam):
            await directory.team("t5")
        for team, gone in made:
            if team == "t5":
                assert await world.keys.find(world_digest(gone.secret)) is None
                with pytest.raises(NoSuchKey):
                    await directory.key(gone.key.id)
        assert await directory.eviction_policy() == ""
        cluster.masters[1].say("CONFIG", "SET", "maxmemory", "1gb")
        cluster.masters[1].say("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert await directory.eviction_policy() == "allkeys-lru"
        cluster.masters[1].say("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert await directory.eviction_policy() == "noeviction"
        cluster.masters[1].say("CONFIG", "SET", "maxmemory", "0")


def world_digest(secret: str) -> str:
    from weir.auth.keys import digest  # noqa: PLC0415

    return digest(secret.encode(), None)


async def test_the_directory_lists_thousands_of_keys_soon(cluster: Cluster) -> None:
    async with line_world(cluster.url) as world:
        for team in range(6):
            await world.directory.create_team(f"t{team}", Limits())
        for begin in range(0, 1_500, 100):
            await asyncio.gather(*(world.directory.create_key(f"t{n % 6}", f"k{n}", Limits()) for n in range(begin, begin + 100)))  # fmt: skip
        started = time.monotonic()
        assert len(await world.directory.keys()) == 1_500
        assert time.monotonic() - started < 10.0


WORDS = [
    # id             command                                                   reply
    ("no-key", ("PING",), b"PONG"),
    ("no-key-lower", ("echo", "x"), b"x"),
    ("a-key", ("SET", "weir:a", "1"), b"OK"),
    ("bytes", (b"GET", b"weir:none"), None),
    ("script-of-no-key", ("EVAL", "return 7", 0), 7),
    ("script", ("EVAL", "return KEYS[1]", 1, "weir:{x}:a", "y"), b"weir:{x}:a"),
    ("tagged", ("EVAL", "return #KEYS", 2, "weir:{x}:a", "weir:{x}:b"), 2),
]


@pytest.mark.parametrize(("words", "reply"), [row[1:] for row in WORDS], ids=[row[0] for row in WORDS])
async def test_each_command_finds_a_node_that_knows(cluster: Cluster, words: tuple[Any, ...], reply: Any) -> None:
    async with line_world(cluster.url) as world:
        assert await world.line.call(*words) == reply


async def test_a_refusal_is_its_callers_and_a_word_that_cannot_be_sent_too(cluster: Cluster) -> None:
    async with line_world(cluster.url) as world:
        await world.line.call("SET", "weir:a", "x")
        for words, kind in (
            (("INCR", "weir:a"), "ERR"),
            (("EVALSHA", "0" * 40, 1, "weir:a"), "NOSCRIPT"),
            (("EVAL", "return 1", 2, "weir:a", "weir:b"), "CROSSSLOT"),
        ):
            with pytest.raises(CommandRefused) as error:
                await world.line.call(*words)
            assert error.value.kind == kind
        for word in (None, object(), "\ud800"):
            with pytest.raises((TypeError, ValueError)):
                await world.line.call("SET", "weir:a", word)
            with pytest.raises((TypeError, ValueError)):
                world.line.call("GET", word)
        assert world.ups == [True]


# -- while slots move


async def test_a_slot_that_moves_under_load_loses_nothing(own_cluster: Cluster) -> None:
    """Back and forth, with keys of half a team here and half there: who was granted is charged once, to the token."""
    cluster = own_cluster
    started = time.monotonic()
    async with line_world(cluster.url, seconds=0.3) as world:
        tending = asyncio.get_running_loop().create_task(world.limiter.tend())
        found = await callers(world, cluster, Limits(tpm=10, burst_seconds=60_000))  # 10 000 tokens
        principals = [principal for some in found.values() for principal in some]
        moving = principals[0]
        done, charged, counts = asyncio.Event(), Counter[str](), Counter[tuple[str, str]]()

        async def load(principal: Principal) -> None:
            while not done.is_set():
                try:
                    grant = await world.limiter.take(principal, ask(3, 0))
                except StoreUnavailable as error:
                    assert error.retry_after
                    counts[principal.team, "unavailable"] += 1
                    await asyncio.sleep(0.01)
                else:
                    await asyncio.sleep(0.005)
                    world.limiter.settle(grant, 1)
                    charged[principal.team] += 1
                    counts[principal.team, "granted"] += 1

        loads = [asyncio.get_running_loop().create_task(load(principal)) for principal in principals for _ in range(4)]
        slot = slot_of(moving.team)
        home = cluster.owner(slot)
        for to in (next(node for node in cluster.masters if node is not home), home):
            steps = cluster.reshard(slot, to)
            while (step := await asyncio.to_thread(next, steps, None)) is not None:
                await asyncio.sleep(0.15 if step != "half" else 0.02)
            before = counts[moving.team, "granted"]
            await eventually(lambda before=before: more(counts, moving.team, before))
        done.set()
        await asyncio.gather(*loads)
        await eventually(lambda: all_is_settled(world))
        for principal in principals:
            assert counts[principal.team, "granted"] > 10
            left = await world.left(principal, "key tokens")
            assert 0 <= left - (10_000 - charged[principal.team]) <= (time.monotonic() - started) / 6 + 1, (
                "ten come back a minute"
            )
        for principal in principals[1:]:
            assert not counts[principal.team, "unavailable"], "only the slot that moves has to wait"
        assert world.ups == [True]
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending


async def more(counts: Counter[tuple[str, str]], team: str, before: int) -> bool:
    return counts[team, "granted"] > before + 20


async def all_is_settled(world: LineWorld) -> bool:
    return await world.limiter.flush(0.2) == 0


async def test_single_keys_follow_their_slot_at_every_moment(cluster: Cluster) -> None:
    """What ASK and MOVED are for: one key is always somewhere, so nobody sees that it moves."""
    async with line_world(cluster.url) as world:
        keys = [f"weir:{{moves}}:{number}" for number in range(30)]
        slot = key_slot(keys[0].encode())
        home = cluster.owner(slot)
        for key in keys:
            await world.line.call("SET", key, 0)
        count = 0
        for to in (next(node for node in cluster.masters if node is not home), home):
            steps = cluster.reshard(slot, to)
            while await asyncio.to_thread(next, steps, None) is not None:
                count += 1
                assert await asyncio.gather(*(world.line.call("INCR", key) for key in keys)) == [count] * 30
                new = f"weir:{{moves}}:new-{count}"
                assert await world.line.call("SET", new, "here") == b"OK"
                assert await world.line.call("GET", new) == b"here"
        assert count > 20
        assert world.ups == [True]


# -- while somebody is away


async def test_a_master_that_is_killed_costs_its_own_teams_a_moment_and_nobody_else(own_cluster: Cluster) -> None:
    cluster = own_cluster
    async with line_world(cluster.url) as world:
        found = await callers(world, cluster, THOUSAND)
        dead = cluster.masters[0]
        (hit,), others = found[dead.port], [some[0] for port, some in found.items() if port != dead.port]
        grant = await world.limiter.take(hit, ask(100, 0))
        await asyncio.to_thread(until, lambda: cluster.replicas[0].say("DBSIZE") == dead.say("DBSIZE"))
        done, failures, served = asyncio.Event(), [], Counter[str]()

        async def load(principal: Principal) -> None:
            while not done.is_set():
                try:
                    world.limiter.settle(await world.limiter.take(principal, ask(0, 0)), None)
                    served[principal.team] += 1
                except StoreUnavailable as error:
                    failures.append(error)
                await asyncio.sleep(0.01)

        loads = [asyncio.get_running_loop().create_task(load(principal)) for principal in others]
        dead.kill()
        await eventually(lambda: is_refused(world, hit))
        assert world.line.up, "the others are there"
        world.limiter.settle(grant, 40)
        before = Counter(served)
        world.limiter.settle(await admitted(world, hit, ask(10, 0)), 10)
        assert all(served[principal.team] > before[principal.team] for principal in others)
        done.set()
        await asyncio.gather(*loads)
        assert not failures, "who has nothing there has noticed nothing"
        await eventually(lambda: whole(world))
        assert world.ups == [True, False, True]
        assert f"127.0.0.1:{dead.port} is away" in world.changes[1][1]
        await eventually(lambda: all_is_settled(world))
        assert await world.left(hit, "key tokens") == 950
        await eventually(lambda: finds(world, hit))
        assert (await world.directory.update_team(hit.team, lambda limits: limits)).name == hit.team
        await world.directory.create_key(hit.team, "after", Limits())
        # The dead one comes back as a replica, and nobody minds.
        dead.start()
        await asyncio.to_thread(until, lambda: dead.answers() and dead.say("ROLE")[0] == b"slave")
        for principal in (hit, *others):
            await world.limiter.take(principal, ask(0, 0))
        assert world.ups == [True, False, True]


async def is_refused(world: LineWorld, principal: Principal) -> bool:
    try:
        await world.limiter.standing(principal)
    except StoreUnavailable as error:
        return error.retry_after is not None
    return False


async def finds(world: LineWorld, principal: Principal) -> bool:
    """redis-py's own client learns by failing."""
    with contextlib.suppress(Exception):
        return (await world.directory.key(principal.key_id)).team == principal.team
    return False


async def whole(world: LineWorld) -> bool:
    return world.ups[-1] is True


async def test_a_master_that_hands_over_is_followed_without_a_failure_that_stays(own_cluster: Cluster) -> None:
    """A planned failover: it lives on as a replica and says where to go."""
    cluster = own_cluster
    async with line_world(cluster.url) as world:
        found = await callers(world, cluster, THOUSAND)
        old, new = cluster.masters[1], cluster.replicas[1]
        new.say("CLUSTER", "FAILOVER")
        await asyncio.to_thread(until, lambda: new.say("ROLE")[0] == b"master" and old.say("ROLE")[0] == b"slave")
        for (principal,) in found.values():
            world.limiter.settle(await admitted(world, principal, ask(10, 0)), 10)
        await eventually(lambda: all_is_settled(world))
        await eventually(lambda: whole(world))
        for (principal,) in found.values():
            assert await world.left(principal, "key tokens") == 990


async def test_where_nobody_is_there_yet_the_answer_comes_soon_and_the_cluster_is_found_later(
    cluster: Cluster,
) -> None:
    changes: list[tuple[bool, str]] = []
    late = [free_port(), free_port()]
    line = commands_for(
        "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in late),
        command_seconds=0.2,
        on_change=lambda *change: changes.append(change),
    )
    assert isinstance(line, ClusterCommands)
    try:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await line.call("GET", "weir:a")
        assert time.monotonic() - started < 5.0
        assert not line.up
        with pytest.raises(StoreUnavailable) as error:
            await line.call("GET", "weir:a")
        assert error.value.reason
        await asyncio.sleep(0.5)
        assert [up for up, _ in changes] == [False]
        line._seeds = (("127.0.0.1", cluster.masters[2].port),)
        await eventually(lambda: reads(line))
        await eventually(lambda: has(changes, 2))
        assert [up for up, _ in changes] == [False, True]
    finally:
        await line.close()
    with pytest.raises(StoreUnavailable):
        await line.call("GET", "weir:a")


async def reads(line: ClusterCommands) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return await line.call("GET", "weir:a") is None
    return False


async def has(changes: list[tuple[bool, str]], count: int) -> bool:
    return len(changes) == count


async def test_a_server_that_is_no_cluster_and_a_cluster_that_is_taken_for_a_server_are_named(
    cluster: Cluster,
) -> None:
    with one() as single:
        for url, word in (
            (f"redis+cluster://127.0.0.1:{single.port}", "cluster support disabled"),
            (f"redis://127.0.0.1:{cluster_port_without(cluster, 'weir:probe')}", "redis+cluster://"),
        ):
            changes: list[tuple[bool, str]] = []
            line = commands_for(url, command_seconds=1.0, on_change=lambda *change, to=changes: to.append(change))
            try:
                with pytest.raises(StoreUnavailable):
                    await line.call("GET", "weir:a")
                await eventually(lambda to=changes: has(to, 1))
                assert changes[0][0] is False
                assert word in changes[0][1]
            finally:
                await line.close()


def cluster_port_without(cluster: Cluster, key: str) -> int:
    owner: Server = cluster.owner(key_slot(key.encode()))
    return next(node.port for node in cluster.masters if node is not owner)


async def test_limits_are_exact_with_two_of_us(cluster: Cluster) -> None:
    async with line_world(cluster.url) as world, line_world(cluster.url) as other:
        principal = await world.caller(Limits(rpm=1, burst_seconds=1_800))  # 30 requests

        async def one_of_us(one: LineWorld) -> int:
            try:
                await one.limiter.take(principal, ask(0, 0))
            except RequestsExceeded:
                return 0
            return 1

        counts = await asyncio.gather(*(one_of_us(one) for one in (world, other) for _ in range(40)))
        assert 30 <= sum(counts) <= 31, "one may have come back while a slow machine was asking"
