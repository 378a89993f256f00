"""The port `Commands`, as the batcher keeps it on a real Redis: in good times, in bad ones, and in between."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from tests.contract.world import ask, real_time_world
from tests.fakes.fault_proxy import Fault, FaultProxy
from tests.fakes.redis_server import RedisServer
from weir.core.commands import CommandRefused, Commands
from weir.core.errors import StoreUnavailable
from weir.core.types import Limits
from weir.store import Batcher, connect
from weir.store.batcher import HANG_SECONDS, PENDING_MAX

PATIENT = 30.0  # a deadline that no test reaches, so that what fails fails for its own reason
SOON = 5.0  # much longer than anything here should take


@pytest.fixture(autouse=True, params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Tests' loop, and the one that serves."""
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory


@asynccontextmanager
async def batching(
    url: str, *, seconds: float = PATIENT, changes: list[tuple[bool, str]] | None = None
) -> AsyncIterator[Batcher]:
    # As `connect` makes it, but for the time to connect: a busy machine is no outage where none is tested.
    client = connect(url, command_seconds=None)
    if seconds == PATIENT:
        client.connection_pool.connection_kwargs["socket_connect_timeout"] = PATIENT
    note = (lambda up, why: changes.append((up, why))) if changes is not None else (lambda _up, _why: None)
    batcher = Batcher(client, command_seconds=seconds, on_change=note)
    try:
        yield batcher
    finally:
        async with asyncio.timeout(SOON):
            await batcher.close()
        await client.aclose()


def ups(changes: list[tuple[bool, str]]) -> list[bool]:
    return [up for up, _ in changes]


async def within(seconds: float, condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.01)


async def answers(batcher: Commands) -> bool:
    try:
        return bool(await batcher.call("PING") == b"PONG")
    except StoreUnavailable:
        return False


async def recovers(batcher: Commands) -> None:
    await within(2 * SOON, lambda: answers(batcher))


# -- in good times


async def test_each_caller_gets_its_own_reply_in_any_order_of_asking(every_redis: RedisServer) -> None:
    async with batching(every_redis.url) as batcher:

        async def one(number: int) -> None:
            for turn in range(20):
                word = f"{number}-{turn}"
                assert await batcher.call("ECHO", word) == word.encode()
                if (number + turn) % 3 == 0:
                    await asyncio.sleep(0)

        await asyncio.gather(*(one(number) for number in range(50)))


REPLIES = [
    # id              commands before                        command                  reply
    ("bytes", [("SET", "a", "1")], ("GET", "a"), b"1"),
    ("nothing", [], ("GET", "a"), None),
    ("a-number", [("SET", "a", 41)], ("INCR", "a"), 42),
    ("a-list", [("HSET", "h", "x", "1")], ("HMGET", "h", "x", "y"), [b"1", None]),
    ("a-status", [], ("SET", "a", "b"), b"OK"),
    ("lists-in-lists", [], ("EVAL", "return {1, {2, 'x', {}}}", 0), [1, [2, b"x", []]]),
    ("bytes-as-they-are", [("SET", b"\x00\xff", b"\r\n\x00")], ("GET", b"\x00\xff"), b"\r\n\x00"),
    ("letters-of-all-kinds", [("SET", "a", "käse 🧀")], ("GET", "a"), "käse 🧀".encode()),
    ("a-large-number", [("SET", "a", 2**70)], ("GET", "a"), str(2**70).encode()),
    ("a-megabyte", [("SET", "a", "x" * 1_000_000)], ("STRLEN", "a"), 1_000_000),
]


@pytest.mark.parametrize(("before", "command", "reply"), [r[1:] for r in REPLIES], ids=[r[0] for r in REPLIES])
async def test_replies_are_what_redis_said(
    redis_server: RedisServer, before: list[tuple[Any, ...]], command: tuple[Any, ...], reply: Any
) -> None:
    async with batching(redis_server.url) as batcher:
        for words in before:
            await batcher.call(*words)
        assert await batcher.call(*command) == reply


REFUSALS = [
    # id              made so by                           command                              kind
    ("wrong-type", [("SET", "a", "1")], ("HGET", "a", "x"), "WRONGTYPE"),
    ("no-command", [], ("NONSENSE",), "ERR"),
    ("no-number", [("SET", "a", "x")], ("INCR", "a"), "ERR"),
    ("no-script", [], ("EVALSHA", "0" * 40, 0), "NOSCRIPT"),
    ("in-a-script", [("SET", "a", "1")], ("EVAL", "return redis.call('HGET', KEYS[1], 'x')", 1, "a"), "WRONGTYPE"),
    ("a-script-of-nonsense", [], ("EVAL", "this is no Lua", 0), "ERR"),
]


@pytest.mark.parametrize(("before", "command", "kind"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS])
async def test_an_error_reply_is_its_callers_alone_and_says_its_kind(
    every_redis: RedisServer, before: list[tuple[Any, ...]], command: tuple[Any, ...], kind: str
) -> None:
    changes: list[tuple[bool, str]] = []
    async with batching(every_redis.url, changes=changes) as batcher:
        for words in before:
            await batcher.call(*words)
        first, refused, last = batcher.call("ECHO", "1"), batcher.call(*command), batcher.call("ECHO", "2")
        with pytest.raises(CommandRefused) as error:
            await refused
        # Redis 6.2 wraps what went wrong inside of a script in its own words.
        assert error.value.kind == kind or (kind in str(error.value) and command[0] == "EVAL"), str(error.value)
        assert (await first, await last) == (b"1", b"2")
        assert ups(changes) == [True], "the connection is as good as before"


async def test_a_server_that_is_full_is_told_by_its_kind_and_still_reads(own_redis: RedisServer) -> None:
    """Settlements need no memory, so it is not away."""
    async with batching(own_redis.url) as batcher:
        await batcher.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(CommandRefused) as error:
            await batcher.call("SET", "a", "1")
        assert error.value.kind == "OOM"
        assert await batcher.call("GET", "a") is None
        assert batcher.up


CANNOT = [
    # id               made so by                                        and good again by                       its word
    ("a-replica", ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "replica"),
    ("no-replicas", ("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0"), "replicas"),
    ("no-scripts", ("ACL", "SETUSER", "default", "-evalsha"), ("ACL", "SETUSER", "default", "+evalsha"), "evalsha"),
    ("no-writes", ("ACL", "SETUSER", "default", "-@write"), ("ACL", "SETUSER", "default", "+@write"), "user 'default'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "mend", "word"), [row[1:] for row in CANNOT], ids=[row[0] for row in CANNOT])
@pytest.mark.parametrize("via", ["a-command", "a-script"])
async def test_a_server_that_cannot_serve_is_away_until_it_can(
    every_redis: RedisServer, make: tuple[str, ...], mend: tuple[str, ...], word: str, via: str
) -> None:
    """Told once with its reason, found to be good again by itself, and asked few times in between."""
    changes: list[tuple[bool, str]] = []
    asks: dict[str, tuple[Any, ...]] = {"a-command": ("SET", "weir:a", "1")}
    with every_redis.client() as other:
        other.execute_command("ACL", "SETUSER", "helper", "on", "nopass", "~*", "&*", "+@all")
        other.execute_command("AUTH", "helper", "x")
        source = "return redis.call('SET', KEYS[1], '1')"
        asks["a-script"] = ("EVALSHA", other.script_load(source), 1, "weir:a")
        async with batching(every_redis.url, changes=changes) as batcher:
            assert await batcher.call(*asks[via]) == b"OK"
            other.execute_command(*make)
            before = int(other.info("stats")["total_connections_received"])
            try:
                with pytest.raises(StoreUnavailable) as error:
                    await forbidden(batcher, asks[via])
                assert word in str(error.value.reason)
                assert error.value.retry_after
                assert not error.value.sent, "it was refused, so nothing came of it"
                assert not batcher.up
                started = time.monotonic()
                with pytest.raises(StoreUnavailable) as error:
                    await batcher.call(*asks[via])
                assert time.monotonic() - started < 1.0
                assert error.value.reason
                assert word in error.value.reason
                await asyncio.sleep(1.0)
                asked = int(other.info("stats")["total_connections_received"]) - before
                assert 1 <= asked <= 8, "no storm"
                assert ups(changes) == [True, False]
                assert word in changes[1][1]
            finally:
                other.execute_command(*mend)
            await recovers(batcher)
            assert await batcher.call(*asks[via]) == b"OK"
            assert ups(changes) == [True, False, True]


async def test_a_user_that_is_switched_off_is_named(own_redis: RedisServer) -> None:
    """The first reason is that the connection is gone; the next attempt knows more."""
    changes: list[tuple[bool, str]] = []
    with own_redis.client() as other:
        other.execute_command("ACL", "SETUSER", "helper", "on", "nopass", "~*", "&*", "+@all")
        other.execute_command("AUTH", "helper", "x")
        async with batching(own_redis.url, changes=changes) as batcher:
            await batcher.call("PING")
            other.execute_command("ACL", "SETUSER", "default", "off")
            other.client_kill_filter(_type="normal", skipme=True)

            async def named() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    await batcher.call("PING")
                return "refuses user 'default'" in batcher.why

            await within(SOON, named)
            other.execute_command("ACL", "SETUSER", "default", "on")
            await recovers(batcher)
            assert ups(changes) == [True, False, True]


async def forbidden(batcher: Batcher, words: tuple[Any, ...]) -> None:
    """Until it is: a script may still be allowed where a command is not."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        await batcher.call(*words)
        if words[0] == "SET":
            words = ("EVALSHA", "0" * 40, 1, "weir:a")
            with contextlib.suppress(CommandRefused):
                await batcher.call(*words)


async def test_a_server_that_is_loading_its_data_is_not_up_yet() -> None:
    """It takes connections and answers, and what it answers is that it cannot yet."""
    loading = True

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    await reader.readline()
                    words.append((await reader.readline()).strip().upper())
                if words[0] == b"CLIENT":
                    writer.write(b"+OK\r\n")
                elif loading:
                    writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
                else:
                    writer.write(b"-NOSCRIPT none\r\n" if words[0] == b"EVALSHA" else b"+PONG\r\n")
        writer.close()

    listener = await asyncio.start_server(server, "127.0.0.1", 0)
    changes: list[tuple[bool, str]] = []
    try:
        url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with batching(url, changes=changes) as batcher:
            with pytest.raises(StoreUnavailable) as error:
                await batcher.call("PING")
            assert "loading" in str(error.value.reason)
            await asyncio.sleep(0.5)
            assert ups(changes) == [False]
            loading = False
            await recovers(batcher)
            loading = True
            with pytest.raises(StoreUnavailable) as error:
                await batcher.call("PING")
            assert "LOADING" in str(error.value.reason)
            assert not batcher.up
            assert ups(changes) == [False, True, False]
    finally:
        listener.close()


async def test_a_limiter_on_a_server_that_will_not_write_says_that_nobody_can_say(own_redis: RedisServer) -> None:
    async with real_time_world(own_redis.url) as world:
        principal = await world.caller(Limits(rpm=10))
        with own_redis.client() as other:
            other.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreUnavailable):
                await world.limiter.take(principal, ask())
            other.execute_command("REPLICAOF", "NO", "ONE")
        await recovers(world.commands)
        await world.limiter.take(principal, ask())
        assert await world.left(principal, "key requests") == 9


async def test_what_one_turn_asks_travels_together(every_redis: RedisServer) -> None:
    """Seen from the server: it reads a few times, and not once for each command."""
    async with batching(every_redis.url) as batcher:

        async def reads() -> int:
            stats = (await batcher.call("INFO", "stats")).decode()
            return int(
                next(line for line in stats.splitlines() if line.startswith("total_reads_processed")).split(":")[1]
            )

        before = await reads()
        await asyncio.gather(*(batcher.call("ECHO", "x") for _ in range(400)))
        together = await reads() - before
        for _ in range(40):
            await batcher.call("ECHO", "x")
        one_by_one = await reads() - before - together
        assert together <= 10
        assert one_by_one >= 40


async def test_nobody_waits_for_the_turn_of_another(redis_server: RedisServer) -> None:
    """Commands of later turns go out while the replies of earlier ones are still awaited: all over one connection."""
    async with batching(redis_server.url) as batcher:
        await batcher.call("PING")
        calls = []
        for _ in range(30):
            calls.append(batcher.call("INCR", "n"))
            await asyncio.sleep(0)
        assert await asyncio.gather(*calls) == list(range(1, 31))
        listed = (await batcher.call("CLIENT", "LIST")).decode()
        assert listed.count("name=weir") == 1


async def test_a_call_before_the_first_connection_is_answered_after_it(redis_server: RedisServer) -> None:
    changes: list[tuple[bool, str]] = []
    async with batching(redis_server.url, changes=changes) as batcher:
        assert not batcher.up
        assert await batcher.call("ECHO", "early") == b"early"
        assert batcher.up
        assert ups(changes) == [True]


# -- callers that leave


async def test_who_leaves_before_the_turn_is_over_has_asked_nothing(redis_server: RedisServer) -> None:
    async with batching(redis_server.url) as batcher:
        await batcher.call("PING")
        calls = [batcher.call("INCR", "n") for _ in range(10)]
        for call in calls[::2]:
            call.cancel()
        assert await asyncio.gather(*calls[1::2]) == [1, 2, 3, 4, 5]


async def test_who_leaves_later_takes_nobodys_reply(every_redis: RedisServer) -> None:
    async with batching(every_redis.url) as batcher:
        await batcher.call("PING")
        for turn in range(30):
            calls = [batcher.call("ECHO", f"{turn}-{number}") for number in range(20)]
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            for call in calls[turn % 3 :: 3]:
                call.cancel()
            for number, call in enumerate(calls):
                with contextlib.suppress(asyncio.CancelledError):
                    assert await call == f"{turn}-{number}".encode()
        assert await batcher.call("ECHO", "last") == b"last"


# -- bad times


async def test_a_server_that_says_nothing_costs_the_deadline_and_no_more(own_redis: RedisServer) -> None:
    changes: list[tuple[bool, str]] = []
    async with batching(own_redis.url, seconds=0.2, changes=changes) as batcher:
        await recovers(batcher)
        changes[:] = changes[-1:]  # a busy machine may need a second attempt
        own_redis.pause()
        try:
            for begin in range(3):
                started = time.monotonic()
                calls = [batcher.call("ECHO", "x") for _ in range(100)]
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert all(isinstance(result, StoreUnavailable) for result in results)
                taken = time.monotonic() - started
                assert taken < 2.0, "never a hang"
                assert begin or taken > 0.15, "not before the deadline"
            # After a while nobody waits at all.
            await within(SOON, lambda: gives_up_at_once(batcher))
            assert not batcher.up
            started = time.monotonic()
            with pytest.raises(StoreUnavailable) as error:
                await batcher.call("ECHO", "x")
            assert time.monotonic() - started < 0.1
            assert error.value.retry_after
        finally:
            own_redis.resume()
        await recovers(batcher)
        assert ups(changes) == [True, False, True], "each change is told once"
        assert all(why for up, why in changes if not up), "and why"


async def gives_up_at_once(batcher: Batcher) -> bool:
    call = batcher.call("ECHO", "x")
    at_once = call.done()
    with contextlib.suppress(StoreUnavailable):
        await call
    return at_once


async def test_a_server_that_stalls_for_a_moment_answers_who_waits(own_redis: RedisServer) -> None:
    changes: list[tuple[bool, str]] = []
    async with batching(own_redis.url, seconds=20.0, changes=changes) as batcher:
        await batcher.call("SET", "n", 0)
        own_redis.pause()
        try:
            calls = [batcher.call("INCR", "n") for _ in range(50)]
            await asyncio.sleep(0.3)
            assert not any(call.done() for call in calls)
        finally:
            own_redis.resume()
        assert await asyncio.gather(*calls) == list(range(1, 51))
        assert ups(changes) == [True]


async def test_that_this_process_stalls_is_not_the_servers_fault(own_redis: RedisServer) -> None:
    """Before the question goes out, and again before the reply is read; for longer than a server may be silent."""
    changes: list[tuple[bool, str]] = []
    async with batching(own_redis.url, seconds=0.1, changes=changes) as batcher:
        await recovers(batcher)
        loop, (bell, rope) = asyncio.get_running_loop(), os.pipe()

        def stall_now() -> None:
            time.sleep(HANG_SECONDS * 1.2)

        def stall() -> None:
            loop.remove_reader(bell)
            stall_now()

        try:
            loop.add_reader(bell, stall)
            call = batcher.call("ECHO", "here")
            os.write(rope, b"!")
            stall_now()
            assert await call == b"here"
        finally:
            os.close(bell)
            os.close(rope)
        assert ups(changes) == [True]


async def test_late_replies_are_nobodys_and_the_next_ones_are_right(own_redis: RedisServer) -> None:
    async with batching(own_redis.url, seconds=0.1) as batcher:
        await recovers(batcher)
        own_redis.pause()
        try:
            late = [batcher.call("ECHO", f"late-{number}") for number in range(20)]
            results = await asyncio.gather(*late, return_exceptions=True)
            assert all(isinstance(result, StoreUnavailable) and result.sent for result in results)
        finally:
            own_redis.resume()
        await recovers(batcher)
        for number in range(50):
            with contextlib.suppress(StoreUnavailable):
                assert await batcher.call("ECHO", f"{number}") == str(number).encode()


async def test_the_queue_is_bounded_and_nothing_in_it_is_lost(own_redis: RedisServer) -> None:
    async with batching(own_redis.url, seconds=60.0) as batcher:
        await batcher.call("SET", "n", 0)
        own_redis.pause()
        try:
            calls = [batcher.call("INCR", "n") for _ in range(PENDING_MAX)]
            await asyncio.sleep(0)
            over = [batcher.call("INCR", "n") for _ in range(10)]
            assert all(call.done() for call in over)
            assert all(isinstance(call.exception(), StoreUnavailable) for call in over)
        finally:
            own_redis.resume()
        try:
            assert await asyncio.gather(*calls) == list(range(1, PENDING_MAX + 1))
        except StoreUnavailable:
            pytest.fail("the connection was given up though the server was away for a moment only")
        assert await batcher.call("INCR", "n") == PENDING_MAX + 1


async def test_where_nobody_listens_the_answer_comes_at_once(loop_factory: Any) -> None:
    changes: list[tuple[bool, str]] = []
    async with batching(f"redis://127.0.0.1:{unused_port()}", changes=changes) as batcher:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await batcher.call("PING")
        assert time.monotonic() - started < 2.0
        await asyncio.sleep(0.5)  # several attempts, told once
        assert ups(changes) == [False]
        assert changes[0][1]
        assert not batcher.up


async def test_where_nobody_answers_it_comes_within_the_deadline() -> None:
    """A listener that never accepts, as behind a firewall that drops."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        async with batching(f"redis://127.0.0.1:{silent.getsockname()[1]}", seconds=0.1) as batcher:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await batcher.call("PING")
            assert time.monotonic() - started < 2.0


async def test_a_server_that_comes_later_is_found(own_redis: RedisServer) -> None:
    own_redis.stop()
    changes: list[tuple[bool, str]] = []
    async with batching(own_redis.url, changes=changes) as batcher:
        with pytest.raises(StoreUnavailable):
            await batcher.call("PING")
        await asyncio.to_thread(own_redis.start)
        await recovers(batcher)
        assert ups(changes) == [False, True]


async def test_a_server_that_restarts_is_found_again(own_redis: RedisServer) -> None:
    changes: list[tuple[bool, str]] = []
    async with batching(own_redis.url, changes=changes) as batcher:
        for _ in range(2):
            await recovers(batcher)
            waiting = batcher.call("BLPOP", "nothing", 0)
            await asyncio.sleep(0.05)
            started = time.monotonic()
            await asyncio.to_thread(own_redis.stop)
            with pytest.raises(StoreUnavailable) as error:
                await waiting
            assert error.value.sent, "it may have been carried out"
            assert time.monotonic() - started < SOON
            await asyncio.to_thread(own_redis.start)
        await recovers(batcher)
        assert ups(changes) == [True, False, True, False, True]


async def test_a_connection_that_is_killed_fails_whom_it_carried_and_is_made_again(every_redis: RedisServer) -> None:
    changes: list[tuple[bool, str]] = []
    async with batching(every_redis.url, changes=changes) as batcher:
        await batcher.call("PING")
        waiting = [batcher.call("BLPOP", "nothing", 0), *(batcher.call("ECHO", "x") for _ in range(10))]
        await asyncio.sleep(0.05)
        started = time.monotonic()
        with every_redis.client() as other:
            (connection,) = [one for one in other.client_list() if one["name"] == "weir"]
            other.client_kill_filter(_id=connection["id"])
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) and result.sent for result in results)
        assert time.monotonic() - started < SOON
        await recovers(batcher)
        assert ups(changes) == [True, False, True]


async def test_connections_killed_again_and_again_cost_only_whom_they_carried(redis_server: RedisServer) -> None:
    async with batching(redis_server.url) as batcher:
        await batcher.call("SET", "n", 0)
        done = failed = 0
        end = time.monotonic() + 1.0

        async def killer() -> None:
            with redis_server.client() as other:
                while time.monotonic() < end:
                    for one in other.client_list():
                        if one["name"] == "weir":
                            with contextlib.suppress(Exception):
                                other.client_kill_filter(_id=one["id"])
                    await asyncio.sleep(0.15)

        async def caller(number: int) -> None:
            nonlocal done, failed
            while time.monotonic() < end:
                word = f"{number}-{done}"
                try:
                    assert await batcher.call("ECHO", word) == word.encode()
                    done += 1
                except StoreUnavailable:
                    failed += 1
                    await asyncio.sleep(0.01)

        await asyncio.gather(killer(), *(caller(number) for number in range(20)))
        assert done
        assert failed
        await recovers(batcher)


async def test_a_connection_that_breaks_while_both_directions_are_busy_is_one_outage(own_redis: RedisServer) -> None:
    """One change is told, one reason given, and no second error is left lying about (see conftest)."""
    changes: list[tuple[bool, str]] = []
    async with batching(own_redis.url, changes=changes) as batcher:
        await batcher.call("PING")
        own_redis.pause()
        calls = [batcher.call("ECHO", "x" * 500_000) for _ in range(40)]  # more than sockets hold
        await asyncio.sleep(0.1)
        calls.append(batcher.call("ECHO", "y"))
        own_redis.stop()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        await asyncio.sleep(0.1)
        assert ups(changes) == [True, False]


@pytest.mark.parametrize("word", ["\ud800", None, object()], ids=["half-a-letter", "none", "no-word-at-all"])
async def test_a_word_that_cannot_be_sent_fails_its_caller_and_nobody_else(
    redis_server: RedisServer, word: Any
) -> None:
    """Above all, replies must not slip: who asked in the same turn gets its own."""
    async with batching(redis_server.url, seconds=0.5) as batcher:
        await recovers(batcher)
        before = batcher.call("ECHO", "before")
        with contextlib.suppress(TypeError, ValueError):
            bad = batcher.call("ECHO", word)
            after = batcher.call("ECHO", "after")
            with pytest.raises((StoreUnavailable, TypeError, ValueError)):
                async with asyncio.timeout(SOON):
                    await bad
            assert await after == b"after"
        assert await before == b"before"
        for number in range(20):
            assert await batcher.call("ECHO", f"{number}") == str(number).encode()


async def test_a_reply_that_nobody_asked_for_is_survived() -> None:
    """As a proxy in between might send before it closes."""

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if line.upper() == b"PING\r\n":
                    writer.write(b"+PONG\r\n+UNASKED\r\n-ERR and this\r\n")
                elif line.startswith(b"*"):
                    count[0] = int(line[1:])
                    for _ in range(count[0]):
                        await reader.readline()
                        word = (await reader.readline()).strip().upper()
                        if word == b"PING":
                            writer.write(b"+PONG\r\n+UNASKED\r\n-ERR and this\r\n")
                            break
                    else:
                        writer.write(b"+OK\r\n")
                await writer.drain()
        writer.close()

    count = [0]
    server = await asyncio.start_server(odd, "127.0.0.1", 0)
    try:
        async with batching(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", seconds=0.3) as batcher:
            for _ in range(3):
                await recovers(batcher)
                await asyncio.sleep(0.05)
    finally:
        server.close()


async def test_a_wrong_password_is_an_outage_and_its_reason_holds_no_secret() -> None:
    async def locked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                writer.write(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n" * 3)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(locked, "127.0.0.1", 0)
    changes: list[tuple[bool, str]] = []
    try:
        url = f"redis://user:sesame-secret@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with batching(url, changes=changes) as batcher:
            with pytest.raises(StoreUnavailable) as error:
                await batcher.call("PING")
            assert "WRONGPASS" in changes[0][1] or "invalid" in changes[0][1]
            assert "sesame" not in str(changes) + str(error.value.reason) + str(error.value)
    finally:
        server.close()


async def test_closing_fails_whoever_waits_and_lets_nobody_hang(redis_server: RedisServer) -> None:
    client = connect(redis_server.url, command_seconds=None)
    batcher = Batcher(client, command_seconds=0.3)
    await batcher.call("PING")
    waiting = batcher.call("BLPOP", "nothing", 0)
    await asyncio.sleep(0.02)
    await batcher.close()
    with pytest.raises(StoreUnavailable):
        await waiting
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(SOON):
            await batcher.call("PING")
    await client.aclose()
    with redis_server.client() as other:
        await within(SOON, lambda: no_connection(other))


async def no_connection(other: Any) -> bool:
    return not [one for one in other.client_list() if one["name"] == "weir"]


# -- scripts that Redis has forgotten


async def test_scripts_that_redis_has_forgotten_are_given_again_and_run_once(every_redis: RedisServer) -> None:
    """As after a restart and a failover: for many at once, for takes, settlements, renewals and looks."""
    limits = Limits(rpm=1, tpm=1, concurrency=60, burst_seconds=60_000)  # 1000 of both
    async with real_time_world(every_redis.url) as world:
        principal = await world.caller(limits, limits)
        await world.commands.call("SCRIPT", "FLUSH")
        grants = await asyncio.gather(*(world.limiter.take(principal, ask(4, 0)) for _ in range(50)))
        assert await world.left(principal, "team requests") == 950
        await world.commands.call("SCRIPT", "FLUSH")
        for number, grant in enumerate(grants):
            world.limiter.settle(grant, number % 5 if number % 10 else None)
        await world.heard()
        await world.commands.call("SCRIPT", "FLUSH")
        for scope in ("key", "team"):
            assert await world.left(principal, f"{scope} requests") == 955
            assert await world.left(principal, f"{scope} tokens") == 1000 - sum(n % 5 for n in range(50) if n % 10)
            assert await world.left(principal, f"{scope} concurrency") == 60


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_server_that_is_always_late_is_away_until_it_is_in_time_again(own_redis: RedisServer) -> None:
    """Or everybody would wait for the whole deadline, and every probe would say that all is well."""
    with FaultProxy(own_redis.host, own_redis.port) as proxy:
        changes: list[tuple[bool, str]] = []
        async with batching(f"redis://127.0.0.1:{proxy.port}", seconds=0.2, changes=changes) as batcher:
            await recovers(batcher)
            changes.clear()
            await asyncio.to_thread(proxy.switch, to_client=Fault(latency_ms=400))

            async def asked_again() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    await batcher.call("ECHO", "x")
                return not batcher.up

            await within(SOON, asked_again)
            assert ups(changes) == [False]
            assert "longer than 0.2 s" in changes[0][1]
            with pytest.raises(StoreUnavailable) as error:
                await asyncio.wait_for(batcher.call("ECHO", "x"), 0.1)
            assert not error.value.sent, "nobody waits for it any more"
            await asyncio.to_thread(proxy.heal)
            await recovers(batcher)
            assert ups(changes) == [False, True]
            assert await batcher.call("ECHO", "x") == b"x"


async def test_a_server_that_is_late_now_and_then_is_not_away(own_redis: RedisServer) -> None:
    with FaultProxy(own_redis.host, own_redis.port) as proxy:
        changes: list[tuple[bool, str]] = []
        async with batching(f"redis://127.0.0.1:{proxy.port}", seconds=0.2, changes=changes) as batcher:
            await recovers(batcher)
            changes.clear()
            for _ in range(3):
                await asyncio.to_thread(proxy.switch, to_client=Fault(latency_ms=700))
                with pytest.raises(StoreUnavailable):
                    await batcher.call("ECHO", "x")
                await asyncio.to_thread(proxy.heal)
                await asyncio.sleep(1.0)
                assert await batcher.call("ECHO", "x") == b"x"
            assert changes == []
