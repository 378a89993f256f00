"""A real Redis goes, hangs and comes back under the limiter that stands in for it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from tests.contract.world import RedisWorld, ask
from tests.fakes.redis_server import RedisServer, kinds
from weir.admission.failover import FailoverLimiter, OnOutage
from weir.admission.known import KNOWN_SECONDS, Known
from weir.admission.limiter import Grant
from weir.admission.limiter_redis import RedisLimiter
from weir.admission.replicas import Replicas
from weir.core import layout
from weir.core.commands import Commands
from weir.core.errors import (
    GatewayError,
    LimitExceeded,
    ModelNotFound,
    RequestsExceeded,
    StoreUnavailable,
    Unauthenticated,
)
from weir.core.types import Limits, Principal
from weir.store import Batcher, connect

DEADLINE = 0.5  # of a command; longer than in service, since a busy machine is no outage
AT_ONCE = 3.0  # what an answer may take however Redis is away, on the busiest machine
SOON = 20.0
BEAT = 0.2  # seconds
LIMITS = Limits(rpm=1, tpm=10, concurrency=50, burst_seconds=6_000)  # 100 requests, 1000 tokens: minutes fill nothing


class House:
    """A replica: its limiter, what it knows, and the people who hand out keys."""

    def __init__(self, people: "Redis", commands: Commands, on_outage: OnOutage) -> None:
        self.later = 0.0
        self.known = Known(self.clock)
        self.shared = RedisLimiter(commands, known=self.known)
        self.world = RedisWorld(people, commands, self.shared)
        self.replicas = Replicas(commands, beat_seconds=BEAT)
        self.limiter = FailoverLimiter(
            self.shared, self.known, on_outage=on_outage, replicas=lambda: self.replicas.count, clock=self.clock
        )

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.later

    async def served(self, who: Principal, model: str = "m") -> Grant:
        """Admitted, and all of it given back."""
        grant = await self.limiter.take(who, ask(model=model))
        self.limiter.settle(grant, None)
        return grant

    async def outcome(self, who: Principal, model: str = "m") -> str:
        """In a word, and within the time that is promised."""
        started = time.monotonic()
        try:
            word = "degraded" if (await self.served(who, model)).degraded else "admitted"
        except GatewayError as error:
            if isinstance(error, StoreUnavailable):
                assert error.retry_after is not None
            word = error.code
        assert time.monotonic() - started < AT_ONCE
        return word

    async def back(self, who: Principal) -> None:
        """Until Redis decides again."""

        async def decides() -> bool:
            return await self.outcome(who) == "admitted"

        await eventually(decides)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + SOON
    while not await condition():
        assert time.monotonic() < end, f"not within {SOON:g} seconds"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def house(server: RedisServer, on_outage: OnOutage = "degrade") -> AsyncIterator[House]:
    pipe = connect(server.url, command_seconds=None)
    people = Redis.from_url(server.url, socket_connect_timeout=SOON, socket_timeout=SOON, protocol=2)
    batcher = Batcher(pipe, command_seconds=DEADLINE)
    it = House(people, batcher, on_outage)
    tending = asyncio.get_running_loop().create_task(it.shared.tend())
    try:
        yield it
    finally:
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending
        await batcher.close()
        await pipe.aclose()
        await people.aclose()


@pytest.fixture
def lasting_redis() -> Iterator[RedisServer]:
    """One that finds its data again after it was stopped."""
    with RedisServer(kinds()[0], "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


OUTAGES = {"gone": (RedisServer.stop, RedisServer.start), "hanging": (RedisServer.pause, RedisServer.resume)}
MODES: list[OnOutage] = ["degrade", "closed", "open"]
UNAVAILABLE = StoreUnavailable.code


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("on_outage", MODES)
async def test_who_is_served_in_an_outage_and_who_after_it(
    lasting_redis: RedisServer, on_outage: OnOutage, outage: str
) -> None:
    begins, ends = OUTAGES[outage]
    async with house(lasting_redis, on_outage) as it:
        known, listed, unknown, revoked, deleted = [
            await it.world.caller(LIMITS, LIMITS),
            await it.world.caller(Limits(models=("m",))),
            await it.world.caller(LIMITS),
            await it.world.caller(LIMITS),
            await it.world.caller(LIMITS),
        ]
        for who in (known, listed, revoked, deleted):
            assert await it.outcome(who) == "admitted"
        await it.world.directory.revoke_key(revoked.key_id)
        await it.world.dismiss(deleted)
        for who in (revoked, deleted):
            assert await it.outcome(who) == Unauthenticated.code
        assert await it.outcome(listed, "other") == ModelNotFound.code

        begins(lasting_redis)
        served = UNAVAILABLE if on_outage == "closed" else "degraded"
        for who, model, expected in (
            (known, "m", served),
            (known, "never-asked-for", served),  # no model is forbidden to it
            (listed, "m", served),
            (listed, "other", UNAVAILABLE),
            (unknown, "m", UNAVAILABLE),
            (revoked, "m", UNAVAILABLE),
            (deleted, "m", UNAVAILABLE),
        ):
            assert await it.outcome(who, model) == expected
        it.later += KNOWN_SECONDS + 1
        assert await it.outcome(known) == UNAVAILABLE

        ends(lasting_redis)
        await it.back(known)
        for who, expected in ((unknown, "admitted"), (revoked, Unauthenticated.code), (deleted, Unauthenticated.code)):
            assert await it.outcome(who) == expected
        await it.world.heard()
        for what in ("key requests", "key tokens", "team requests", "team tokens"):
            assert await it.world.left(known, what) in (100, 1000), "nothing of what was tried stays charged"
        assert await it.world.left(known, "key concurrency") == 50


@pytest.mark.parametrize("outage", OUTAGES)
async def test_what_was_taken_before_the_outage_is_settled_to_the_token_after_it(
    lasting_redis: RedisServer, outage: str
) -> None:
    begins, ends = OUTAGES[outage]
    async with house(lasting_redis) as it:
        who = await it.world.caller(LIMITS)
        before = [await it.limiter.take(who, ask(90, 10)) for _ in range(3)]
        begins(lasting_redis)
        for grant, used in zip(before, (30, 130, None), strict=True):
            it.limiter.settle(grant, used)
            it.limiter.settle(grant, 5)
        during = await it.limiter.take(who, ask(90, 10))
        assert during.degraded
        ends(lasting_redis)
        await it.back(who)
        it.limiter.settle(during, 77)
        await it.world.heard()
        assert it.shared.unsettled == it.shared.dropped == 0
        assert it.shared.replayed >= 3
        assert await it.world.left(who, "key tokens") == 1000 - 30 - 130
        assert await it.world.left(who, "key requests") == 98
        assert await it.world.left(who, "key concurrency") == 50


async def test_what_redis_may_have_charged_unheard_is_given_back_though_it_was_granted_here(
    own_redis: RedisServer,
) -> None:
    async with house(own_redis) as it:
        who = await it.world.caller(LIMITS)
        await it.served(who)
        await it.world.heard()
        own_redis.pause()
        late = [await it.limiter.take(who, ask(90, 10)) for _ in range(2)]
        own_redis.resume()
        assert all(grant.degraded for grant in late)
        await it.back(who)
        await it.world.heard()
        assert [w.remaining for w in await it.shared.standing(who)] == [100, 1000, 50]
        for grant in late:
            it.limiter.settle(grant, 100)


async def test_a_redis_that_lost_everything_knows_nobody_and_then_nobody_is_known(own_redis: RedisServer) -> None:
    async with house(own_redis) as it:
        who = await it.world.caller(LIMITS)
        held = await it.limiter.take(who, ask())
        own_redis.stop()
        assert await it.outcome(who) == "degraded"
        it.limiter.settle(held, 5)
        own_redis.start()

        async def answers() -> bool:
            return await it.outcome(who) == Unauthenticated.code

        await eventually(answers)
        with pytest.raises(Unauthenticated):
            await it.limiter.standing(who)
        await it.world.heard()
        assert (it.shared.unsettled, it.shared.held, len(it.known)) == (0, 0, 0)
        own_redis.stop()
        assert await it.outcome(who) == UNAVAILABLE


# -- what the script tells of limits

ALL = Limits(rpm=7, tpm=900, concurrency=3, burst_seconds=30, shadow=frozenset({"requests", "concurrency"}))
TOLD = [
    pytest.param(Limits(), Limits(), id="none"),
    pytest.param(ALL, Limits(rpm=5), id="of-the-key"),
    pytest.param(Limits(tpm=5_000), ALL, id="of-the-team"),
    pytest.param(Limits(burst_seconds=1), Limits(burst_seconds=86_400), id="bursts-of-nothing"),
]


@pytest.mark.parametrize("refused", [False, True], ids=["admitted", "refused"])
@pytest.mark.parametrize(("key", "team"), TOLD)
async def test_limits_are_known_as_they_were_set(
    every_redis: RedisServer, key: Limits, team: Limits, refused: bool
) -> None:
    async with house(every_redis) as it:
        who = await it.world.caller(key, team)
        if refused:
            with contextlib.suppress(LimitExceeded):
                await it.limiter.take(who, ask(10**6, 10**6))
        else:
            await it.served(who)
        assert it.known.limits(who) == (key, team)
        assert it.known.allows(who, ask(model="whatever"))


LISTS = [
    # id                        of the key       of the team     a model that was never asked for
    pytest.param((), (), True, id="none"),
    pytest.param(("*",), ("x", "*"), True, id="stars"),
    pytest.param(("m*",), (), False, id="of-the-key"),
    pytest.param((), ("m*",), False, id="of-the-team"),
]


@pytest.mark.parametrize(("key", "team", "another"), LISTS)
async def test_who_may_use_any_model_is_known(
    every_redis: RedisServer, key: tuple[str, ...], team: tuple[str, ...], another: bool
) -> None:
    shadow = Limits(rpm=5, shadow=frozenset({"requests"}))
    async with house(every_redis) as it:
        who = await it.world.caller(Limits(models=key), Limits(shadow.rpm, models=team, shadow=shadow.shadow))
        await it.served(who)
        assert it.known.allows(who, ask(model="m"))
        assert it.known.allows(who, ask(model="m2")) is another


@pytest.mark.parametrize("whose", ["key", "team"])
async def test_a_list_that_is_new_is_heard_with_the_first_refusal(every_redis: RedisServer, whose: str) -> None:
    async with house(every_redis) as it:
        who = await it.world.caller()
        await it.served(who)
        await it.world.change(who, **{whose: Limits(models=("other",))})
        with pytest.raises(ModelNotFound) as refused:
            await it.served(who)
        assert refused.value.reason == f"not allowed to this {whose}"
        assert not it.known.allows(who, ask(model="m"))


# -- replicas


@asynccontextmanager
async def living(*houses: House) -> AsyncIterator[list["asyncio.Task[None]"]]:
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(one.replicas.tend()) for one in houses]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def counted(expected: int, *houses: House) -> None:
    async def is_so() -> bool:
        return all(one.replicas.count == expected for one in houses)

    await eventually(is_so)


async def test_those_that_live_are_counted_and_one_that_dies_is_forgotten(every_redis: RedisServer) -> None:
    async with (
        house(every_redis) as one,
        house(every_redis) as two,
        house(every_redis) as three,
        living(one, two, three) as tasks,
    ):
        await counted(3, one, two, three)
        tasks[2].cancel()  # as in a crash: it says nothing
        await counted(2, one, two)
        assert await one.world.redis.zcard(layout.REPLICAS) == 2


async def test_one_that_leaves_is_not_waited_for(every_redis: RedisServer) -> None:
    async with house(every_redis) as one, house(every_redis) as two, living(one, two):
        await counted(2, one, two)
        await two.replicas.leave()
        assert await one.world.redis.zcard(layout.REPLICAS) == 1
        await counted(1, one)


async def test_when_all_are_gone_nothing_of_them_stays(every_redis: RedisServer) -> None:
    async with house(every_redis) as one:
        async with living(one):
            await eventually(lambda: one.world.redis.exists(layout.REPLICAS))
        await eventually(lambda: _gone(one))


async def _gone(one: House) -> bool:
    return not await one.world.redis.exists(layout.REPLICAS)


async def test_each_of_two_holds_half_of_the_limits_and_as_many_as_before_when_redis_is_back(
    lasting_redis: RedisServer,
) -> None:
    async with house(lasting_redis) as one, house(lasting_redis) as two, living(one, two):
        who = await one.world.caller(Limits(rpm=10, burst_seconds=60), Limits(tpm=1000))
        await counted(2, one, two)
        for each in (one, two):
            await each.served(who)
        lasting_redis.stop()
        for each in (one, two):
            for _ in range(5):
                assert (await each.limiter.take(who, ask(5, 5))).degraded
            with pytest.raises(RequestsExceeded) as refused:
                await each.limiter.take(who, ask(5, 5))
            assert refused.value.window.limit == 5
            assert {w.limit for w in await each.limiter.standing(who)} == {5, 500}
        await asyncio.sleep(BEAT * 5)
        lasting_redis.start()
        for each in (one, two):
            await each.back(who)
            assert each.replicas.count == 2
            assert [w.limit for w in await each.limiter.standing(who)] == [10, 1000]
